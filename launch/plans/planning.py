"""Make the plan from configuration, options and hardware: searched on GPUs, else as configured."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from msgspec import structs

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.cluster import Cluster, Node, configured_nodes, described_nodes
from hybridserve_llm.planner.demand import Demand
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.packing import by_links, linked_size
from hybridserve_llm.planner.plan import MAX_SHARED_GPU_MEMORY, Plan, rounded_share
from hybridserve_llm.planner.replica_table import Tables
from hybridserve_llm.planner.report import PlanReport
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type
from launch.machine.hardware import numbers_of, probe
from launch.options import LaunchOptions
from launch.plans.configured import configured_report
from launch.plans.planning_demand import UnknownModel, demand_of
from launch.plans.remarks import remarks_on
from launch.plans.report import explanation_of, solved_report, unsolved_report

log = logging.getLogger(__name__)

_DESCRIBED_GPUS = 8
_ON_CPU = "without GPUs nothing is searched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """Hold the input of a search: the GPUs and the demand."""

    cluster: Cluster
    demand: Demand


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """Hold the report of a plan, or of why there is none.

    Attributes:
        searched: None for a plan that was placed as configured.
        gpu_numbers: The driver's number of each GPU of this machine, by UUID; empty for GPUs that
            are described.
    """

    report: PlanReport
    searched: Searched | None = None
    gpu_numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def parked_gpus(self) -> tuple[str, ...]:
        """Return the GPUs that a search was given and that its plan leaves without a replica."""
        plan = self.report.plan
        if self.searched is None or plan is None:
            return ()
        used = {uuid for placement in plan.placements for uuid in placement.gpu_uuids}
        gpus = (uuid for node in self.searched.cluster.nodes for uuid in node.gpus)
        return tuple(uuid for uuid in gpus if uuid not in used)

    def checked(self) -> Plan:
        """Return the plan.

        Raises:
            CannotBeDone: Nothing fits; the message says what is missing, and what would help.
        """
        if self.report.plan is None:
            raise CannotBeDone(self.report.reason)
        return self.report.plan


def planned(
    config: CascadeConfig, options: LaunchOptions, certificate: Certificate | None
) -> Planned:
    """Return the plan for GPUs that are described (`--gpu-type`, `cluster:`), or for this machine.

    GPUs are searched for the best plan. Replicas are placed as configured on the CPU, and, with a
    warning, on GPUs whose type is not known or where a model's size is not known.

    Raises:
        ConfigError: `CUDA_VISIBLE_DEVICES` or the configuration names something that does not
            exist, or GPUs are described whose type is not known, or a model's size is not known.
        CannotBeDone: There are fewer GPUs than asked for.
    """
    as_configured = partial(_as_configured, config, certificate, asks_the_hub=options.dry_run)
    if options.cpu or not config_starts_engines(config):
        hardware = probe(cpu_only=options.cpu, n_gpus=options.gpus)
        is_cpu = options.cpu and config_starts_engines(config)
        return as_configured(hardware, _ON_CPU if is_cpu else "no tier has engines to start")
    described = _described(config, options)
    if described is not None:
        return _searched(config, options, certificate, described)
    hardware = probe(n_gpus=options.gpus)
    if not hardware.gpus:
        return as_configured(hardware, _ON_CPU)
    try:
        cluster = cluster_of(hardware)
        found = _searched(config, options, certificate, cluster)
    except UnknownModel as exc:
        log.warning("replicas are placed as configured, not searched: %s", exc)
        return as_configured(hardware, str(exc))
    remarks = tuple(remarks_on(hardware, cluster, found.report.tiers))
    for remark in () if options.dry_run else remarks:  # a dry run prints them
        log.warning("%s", remark)
    report = structs.replace(found.report, remarks=remarks)
    return replace(found, report=report, gpu_numbers=numbers_of(hardware))


def config_starts_engines(config: CascadeConfig) -> bool:
    """Return True if any tier has engines to start."""
    return any(not tier.endpoints for tier in config.tiers)


def cluster_of(hardware: Hardware) -> Cluster:
    """Return this machine's GPUs: one node for each GPU type.

    Raises:
        UnknownModel: A GPU type is not in the catalogue.
    """
    try:
        kinds = {gpu.name: gpu_type(gpu.name) for gpu in hardware.gpus}
    except ConfigError as exc:
        raise UnknownModel(str(exc)) from exc
    return Cluster(
        nodes=tuple(
            _node(kind, [gpu for gpu in hardware.gpus if kinds[gpu.name] is kind])
            for kind in dict.fromkeys(kinds.values())
        )
    )


def _node(kind: GpuType, found: Sequence[Gpu]) -> Node:
    gpus = by_links(found)
    return Node(
        name="localhost",
        gpu_type=kind,
        gpus=tuple(gpu.uuid for gpu in gpus),
        memory_bytes=min(gpu.memory_bytes for gpu in gpus),
        memory_share=min(_free_share(gpu) for gpu in gpus),
        numbers=tuple(gpu.index for gpu in gpus),
        linked_size=linked_size(gpus),
    )


def _free_share(gpu: Gpu) -> float:
    """Return the part of a GPU's memory that engines may take: free, rounded down, at most 0.9."""
    if gpu.free_bytes is None:
        return MAX_SHARED_GPU_MEMORY
    return min(MAX_SHARED_GPU_MEMORY, rounded_share(gpu.free_bytes / gpu.memory_bytes))


def _described(config: CascadeConfig, options: LaunchOptions) -> Cluster | None:
    """Return the cluster that options or configuration describe; None if neither does."""
    if options.gpu_type is not None:
        n_gpus = options.gpus or _DESCRIBED_GPUS
        return Cluster(nodes=described_nodes("node", gpu_type(options.gpu_type), n_gpus=n_gpus))
    if config.cluster is None:
        return None
    cluster = Cluster(nodes=configured_nodes(config.cluster))
    if options.gpus is None:
        return cluster
    if options.gpus > cluster.n_gpus:
        raise CannotBeDone(
            f"{options.gpus} GPUs asked for, {cluster.n_gpus} in cluster.nodes: "
            f"{options.gpus - cluster.n_gpus} too few"
        )
    return cluster.first(options.gpus)


def _as_configured(
    config: CascadeConfig,
    certificate: Certificate | None,
    hardware: Hardware,
    why: str,
    *,
    asks_the_hub: bool,
) -> Planned:
    report = configured_report(config, hardware, certificate, why=why, asks_the_hub=asks_the_hub)
    return Planned(report=report, gpu_numbers=numbers_of(hardware))


def _searched(
    config: CascadeConfig,
    options: LaunchOptions,
    certificate: Certificate | None,
    cluster: Cluster,
) -> Planned:
    demand, assumptions = demand_of(config, certificate)
    planner = Planner(cluster=cluster, tables=Tables())
    solution = planner.best(demand)
    if solution is None:
        report = unsolved_report(config, planner, demand)
    else:
        report = solved_report(
            config,
            solution,
            planner.runners_up(solution) if options.dry_run else (),
            explanation_of(planner, solution, config.planner.gears) if options.explain else None,
        )
        demand = solution.demand
    return Planned(
        report=structs.replace(report, assumptions=assumptions),
        searched=Searched(cluster=cluster, demand=demand),
    )
