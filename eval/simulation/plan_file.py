"""Read the plan to simulate: plan.json, or the whole report of `hs-launch --dry-run --json`.

A plan names GPUs, not their type, and tiers, not their models. The report has all that. Without it
the configuration and its `cluster:`, or an option, must give it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.files import read_bytes
from hybridserve_llm.planner.cluster import (
    Cluster,
    Node,
    configured_nodes,
    described_node,
    described_nodes,
)
from hybridserve_llm.planner.plan import Plan
from hybridserve_llm.planner.report import PlannedGear, PlannedNode, PlanReport, report_in
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLoad:
    """Hold the load that a plan was made for; lengths are means."""

    requests_per_s: float
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOnCluster:
    """Hold a plan and the GPUs it was made for, parked ones included.

    Attributes:
        report: The whole report; None for a plan without one.
    """

    plan: Plan
    cluster: Cluster
    report: PlanReport | None = None

    @property
    def load(self) -> PlannedLoad | None:
        """Return the load that the plan was searched for; None where the file does not have it."""
        if self.report is None or self.report.demand is None:
            return None
        return PlannedLoad(
            requests_per_s=self.report.requests_per_s,
            prompt_tokens=self.report.demand.prompt_tokens,
            output_tokens=self.report.demand.output_tokens,
        )

    @property
    def gears(self) -> tuple[PlannedGear, ...]:
        """Return the report's plans for other loads, by rising load; only those that fit."""
        explanation = None if self.report is None else self.report.explanation
        gears = () if explanation is None else explanation.gears
        fitting = [gear for gear in gears if gear.fits and gear.replicas]
        return tuple(sorted(fitting, key=lambda gear: gear.requests_per_s))

    @property
    def assumptions(self) -> tuple[str, ...]:
        """Return what the report took for granted."""
        return () if self.report is None else self.report.assumptions


def read_plan(
    path: Path, config: CascadeConfig | None, *, gpu_type_name: str | None, n_gpus: int | None
) -> PlanOnCluster:
    """Return the plan in the file at `path`, with its GPUs.

    These are GPUs of the type `gpu_type_name`, `n_gpus` or as many as the plan uses. Without that
    name they are those of the report, or else of the configuration.

    Raises:
        ConfigError: The file cannot be read or holds no plan, the GPU type is not known or not
            given, or there are fewer GPUs than the plan uses.
        CannotBeDone: A tier runs elsewhere, on the CPU, or shares GPUs with another.
    """
    text = read_bytes(path, name=f"plan {path}")
    try:
        values: Any = orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"plan {path} is not JSON: {exc}") from exc
    is_report = isinstance(values, dict) and "plan" in values
    if is_report and values["plan"] is None:
        raise ConfigError(f"{path} is the report of a cascade that does not fit: it has no plan")
    plan = Plan.from_json(orjson.dumps(values["plan"] if is_report else values))
    report = report_in(text, path) if is_report else None
    _check_can_be_simulated(plan)
    n_used = len({uuid for placement in plan.placements for uuid in placement.gpu_uuids})
    if gpu_type_name is not None:
        n_there = n_used if n_gpus is None else n_gpus
        nodes = described_nodes("node", gpu_type(gpu_type_name), n_gpus=n_there)
    else:
        described = () if report is None else report.cluster
        nodes = tuple(map(_node_of_report, described))
        if not nodes and config is not None and config.cluster is not None:
            nodes = configured_nodes(config.cluster)
    cluster = Cluster(nodes=nodes)
    if not nodes:
        raise ConfigError(
            f"plan {path} does not say of what type its GPUs are: give --gpu-type, or the whole "
            "report of hs-launch --dry-run --json, or cluster: in the configuration"
        )
    if cluster.n_gpus < n_used:
        raise ConfigError(f"the plan uses {n_used} GPUs; there are {cluster.n_gpus}")
    if len(cluster.types) > 1:
        _check_nodes(plan, cluster)
    return PlanOnCluster(plan=plan, cluster=cluster, report=report)


def _check_can_be_simulated(plan: Plan) -> None:
    """Check the plan before anything else is asked for, which would not help.

    Raises:
        CannotBeDone: A tier runs elsewhere, on the CPU, or shares GPUs with another.
    """
    for tier in plan.tiers:
        if tier.endpoints:
            raise CannotBeDone(f"tier {tier.tier} runs at its endpoints, of which nothing is known")
    for placement in plan.placements:
        if placement.device == "cpu":
            raise CannotBeDone(f"{placement.name} runs on the CPU, for which there is no model")
    uuids = [uuid for placement in plan.placements for uuid in placement.gpu_uuids]
    if len(uuids) > len(set(uuids)):
        raise CannotBeDone(
            "the plan has engines that share a GPU: nobody measured how they share its time, and "
            "the simulator does not guess it"
        )


def _node_of_report(node: PlannedNode) -> Node:
    """Return a node as the planner saw it; drivers count memory in whole MiB."""
    return replace(
        described_node(node.node, gpu_type(node.gpu_type), node.gpus),
        memory_bytes=round(node.memory_gib_per_gpu * GIB / MIB) * MIB,
        linked_size=node.linked_size,
    )


def _check_nodes(plan: Plan, cluster: Cluster) -> None:
    """Check that every placement names a node of the cluster, as GPU types differ.

    Raises:
        ConfigError: One names a node that does not exist.
    """
    names = {node.name for node in cluster.nodes}
    for placement in plan.placements:
        unknown = [name for name in placement.node.split("+") if name not in names]
        if unknown:
            raise ConfigError(
                f"{placement.name} runs on node {unknown[0]}, which is not one of "
                f"{', '.join(sorted(names))}: the type of its GPUs is not known"
            )
