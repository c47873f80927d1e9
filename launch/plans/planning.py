"""From configuration, options and hardware to the plan: searched on GPUs, else as configured."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.cluster import Cluster, Node, described_nodes
from hybridserve_llm.planner.demand import Demand
from hybridserve_llm.planner.forecast import Forecast, forecast
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.links import by_links, linked_size
from hybridserve_llm.planner.plan import MAX_SHARED_GPU_MEMORY, Plan
from hybridserve_llm.planner.robustness import OffProfile, off_profiles
from hybridserve_llm.planner.search import Planner, Solution
from hybridserve_llm.planner.searched import plan_of
from hybridserve_llm.planner.shortfall import Shortfall, shortfall
from hybridserve_llm.planner.tabulate import Tables
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type
from launch.machine.hardware import numbers_of, probe
from launch.options import LaunchOptions
from launch.plans.configured import Configured, configured
from launch.plans.planning_demand import UnknownModel, demand_of
from launch.plans.remarks import remarks_on

log = logging.getLogger(__name__)

_DESCRIBED_GPUS = 8
_SHARE_STEPS = 1000
_ON_CPU = "without GPUs nothing is searched"


@dataclass(frozen=True, slots=True, kw_only=True)
class Gear:
    """The best plan at one load level; `solution` is None where nothing carries it."""

    level: float
    requests_per_s: float
    solution: Solution | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What `--explain` adds."""

    gears: tuple[Gear, ...]
    off_profiles: tuple[OffProfile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Searched:
    """What a search came to: `forecast` with the runners-up, or `shortfall`.

    Attributes:
        assumptions: What the demand takes for granted because nobody said it.
        remarks: What to know of this machine's hardware.
    """

    cluster: Cluster
    demand: Demand
    config: CascadeConfig
    assumptions: tuple[str, ...]
    solution: Solution | None
    forecast: Forecast | None
    runners_up: tuple[Solution, ...]
    shortfall: Shortfall | None
    explanation: Explanation | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """A plan, or why there is none: either `searched`, or placed as `configured`.

    Attributes:
        gpu_numbers: The driver's number of each GPU of this machine, by UUID; empty for GPUs that
            are described.
    """

    plan: Plan | None
    searched: Searched | None = None
    configured: Configured | None = None
    gpu_numbers: Mapping[str, int] = field(default_factory=dict)

    @property
    def parked_gpus(self) -> tuple[str, ...]:
        """GPUs that a search was given and that its plan leaves without a replica."""
        if self.searched is None or self.plan is None:
            return ()
        used = {uuid for placement in self.plan.placements for uuid in placement.gpu_uuids}
        gpus = (uuid for node in self.searched.cluster.nodes for uuid in node.gpus)
        return tuple(uuid for uuid in gpus if uuid not in used)

    def checked(self) -> Plan:
        """The plan.

        Raises:
            CannotBeDone: Nothing fits; the message says what is short, and what would help.
        """
        if self.plan is not None:
            return self.plan
        if self.configured is not None:
            raise CannotBeDone(self.configured.reason)
        found = self.searched.shortfall if self.searched else None
        raise CannotBeDone(found.text if found else "nothing fits")


def planned(
    config: CascadeConfig, options: LaunchOptions, certificate: Certificate | None
) -> Planned:
    """The plan for GPUs that are described (`--gpu-type`, `cluster:`), or for this machine.

    GPUs are searched for the best plan. Replicas are placed as configured on the CPU, and, with a
    warning, on GPUs where a model or GPU type is not known.

    Raises:
        ConfigError: `CUDA_VISIBLE_DEVICES`, or the configuration, names what is not there; or a
            GPU type that is described, or a model to be planned for it, is not known.
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
        return _remarked(found, hardware, is_logged=not options.dry_run)
    except UnknownModel as exc:
        log.warning("replicas are placed as configured, not searched: %s", exc)
        return as_configured(hardware, str(exc))


def config_starts_engines(config: CascadeConfig) -> bool:
    """Whether any tier has engines to start."""
    return any(not tier.endpoints for tier in config.tiers)


def cluster_of(hardware: Hardware) -> Cluster:
    """This machine's GPUs: one node for each GPU type there.

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
    """Part of a GPU's memory that engines may take: what is free, rounded down, at most 0.9."""
    if gpu.free_bytes is None:
        return MAX_SHARED_GPU_MEMORY
    free = gpu.free_bytes * _SHARE_STEPS // gpu.memory_bytes / _SHARE_STEPS
    return min(MAX_SHARED_GPU_MEMORY, free)


def _described(config: CascadeConfig, options: LaunchOptions) -> Cluster | None:
    """The cluster that options or configuration describe; None where neither does."""
    if options.gpu_type is not None:
        n_gpus = options.gpus or _DESCRIBED_GPUS
        return Cluster(nodes=described_nodes("node", gpu_type(options.gpu_type), n_gpus=n_gpus))
    if config.cluster is None:
        return None
    nodes = [
        replace(node, name=name, gpus=tuple(f"{name}/{i}" for i in range(group.gpus)))
        for group in config.cluster.nodes
        for place, node in enumerate(
            described_nodes(
                group.name,
                gpu_type(group.gpu_type),
                n_gpus=group.gpus * group.count,
                gpus_per_node=group.gpus,
            )
        )
        for name in [group.name if group.count == 1 else f"{group.name}-{place}"]
    ]
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"cluster.nodes has two nodes called {name!r}; names must differ")
    cluster = Cluster(nodes=tuple(nodes))
    if options.gpus is None:
        return cluster
    if options.gpus > cluster.n_gpus:
        raise CannotBeDone(
            f"{options.gpus} GPUs asked for, {cluster.n_gpus} in cluster.nodes: "
            f"{options.gpus - cluster.n_gpus} too few"
        )
    return cluster.first(options.gpus)


def _remarked(found: Planned, hardware: Hardware, *, is_logged: bool) -> Planned:
    """The same with remarks; a dry run prints them, any other writes them to the log."""
    if found.searched is None:
        return found
    searched = found.searched
    remarks = tuple(remarks_on(hardware, searched.cluster, searched.forecast))
    for remark in remarks if is_logged else ():
        log.warning("%s", remark)
    return replace(
        found,
        searched=replace(searched, remarks=remarks),
        gpu_numbers=numbers_of(hardware),
    )


def _as_configured(
    config: CascadeConfig,
    certificate: Certificate | None,
    hardware: Hardware,
    why: str,
    *,
    asks_the_hub: bool,
) -> Planned:
    found = configured(config, hardware, certificate, why=why, asks_the_hub=asks_the_hub)
    return Planned(plan=found.plan, configured=found, gpu_numbers=numbers_of(hardware))


def _searched(
    config: CascadeConfig,
    options: LaunchOptions,
    certificate: Certificate | None,
    cluster: Cluster,
) -> Planned:
    demand, assumptions = demand_of(config, certificate)
    planner = Planner(cluster=cluster, tables=Tables())
    solution = planner.best(demand)
    found = None if solution is None else forecast(solution)
    plan = None
    if found is not None:
        plan = plan_of(found, {tier.name: tier.endpoints for tier in config.tiers})
    return Planned(
        plan=plan,
        searched=Searched(
            cluster=cluster,
            demand=demand if solution is None else solution.demand,
            config=config,
            assumptions=assumptions,
            solution=solution,
            forecast=found,
            runners_up=planner.runners_up(solution) if solution and options.dry_run else (),
            shortfall=shortfall(planner, demand) if solution is None else None,
            explanation=_explained(planner, solution, config.planner.gears)
            if solution and options.explain
            else None,
        ),
    )


def _explained(planner: Planner, solution: Solution, levels: tuple[float, ...]) -> Explanation:
    demand = replace(solution.demand, objective="energy")
    gears = []
    for level in sorted(set(levels)):
        rate = demand.requests_per_s * level
        best = planner.best(replace(demand, requests_per_s=rate))
        gears.append(Gear(level=level, requests_per_s=rate, solution=best))
    return Explanation(gears=tuple(gears), off_profiles=off_profiles(planner, solution))
