"""The plan to simulate: plan.json, or the whole report of `hs-launch --dry-run --json`.

A plan names GPUs, not their type, and tiers, not their models. The report has all that; without it
the configuration and its `cluster:`, or an option, must say it.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from eval.simulation.reported_demand import ReportedDemand, reported_demand
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.cluster import Cluster, Node, described_nodes
from hybridserve_llm.planner.plan import Plan
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.units import GIB, MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class GearReplicas:
    """Replicas of one tier in a gear, all of one shape; `shares_gpus_with` names other tiers."""

    tier: str
    gpu_type: str
    replicas: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_num_seqs: int
    memory_gib_per_gpu: float
    shares_gpus_with: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedGear:
    """What `hs-launch --explain` planned for another load."""

    requests_per_s: float
    replicas: tuple[GearReplicas, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanOnCluster:
    """A plan and the GPUs it was made for, parked ones included.

    Attributes:
        gears: Plans of the same report for other loads, rising; those that do not fit left out.
        demand: What the report was made for; None of a bare plan.
        assumptions: What the report took for granted.
    """

    plan: Plan
    cluster: Cluster
    gears: tuple[PlannedGear, ...] = ()
    demand: ReportedDemand | None = None
    assumptions: tuple[str, ...] = ()


_GEARS = TypeAdapter(list[PlannedGear])


def read_plan(
    path: Path, config: CascadeConfig | None, *, gpu_type_name: str | None, n_gpus: int | None
) -> PlanOnCluster:
    """The plan in the file at `path`.

    The GPUs are those of `gpu_type_name`, as many as `n_gpus` or else as the plan uses; else of the
    report; else of the configuration.

    Raises:
        ConfigError: The file cannot be read or holds no plan, the GPU type is not known or not
            told, or there are fewer GPUs than the plan uses.
        CannotBeDone: A tier runs elsewhere, on the CPU, or shares GPUs with another.
    """
    try:
        values: Any = orjson.loads(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"cannot read plan {path}: {exc.strerror}") from exc
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"plan {path} is not JSON: {exc}") from exc
    report = values if isinstance(values, dict) and "plan" in values else {}
    if report and report["plan"] is None:
        raise ConfigError(f"{path} is the report of a cascade that does not fit: it has no plan")
    plan = Plan.from_json(orjson.dumps(report["plan"] if report else values))
    _check_can_be_simulated(plan)
    n_used = len({uuid for placement in plan.placements for uuid in placement.gpu_uuids})
    if gpu_type_name is not None:
        n_there = n_used if n_gpus is None else n_gpus
        nodes = described_nodes("node", gpu_type(gpu_type_name), n_gpus=n_there)
    else:
        nodes = _nodes_of_report(report, path) or _nodes_of_config(config)
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
    return PlanOnCluster(
        plan=plan,
        cluster=cluster,
        gears=_gears_of(report, path),
        demand=reported_demand(report, path),
        assumptions=tuple(map(str, report.get("assumptions", ()))),
    )


def _check_can_be_simulated(plan: Plan) -> None:
    """Before anything is asked of the user: what he gave would not help."""
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


def _gears_of(report: dict[str, Any], path: Path) -> tuple[PlannedGear, ...]:
    try:
        gears = _GEARS.validate_python(
            [
                {"requests_per_s": gear["requests_per_s"], "replicas": gear["replicas"]}
                for gear in (report.get("explanation") or {}).get("gears", ())
                if gear["fits"] and "replicas" in gear
            ]
        )
    except (KeyError, TypeError, AttributeError, ValidationError) as exc:
        raise ConfigError(f"report {path}: a gear is not as hs-launch writes it: {exc}") from exc
    return tuple(sorted(gears, key=lambda gear: gear.requests_per_s))


def _nodes_of_report(report: dict[str, Any], path: Path) -> tuple[Node, ...]:
    try:
        return tuple(_node_of_report(entry) for entry in report.get("cluster", ()))
    except (KeyError, TypeError) as exc:
        raise ConfigError(f"report {path}: an entry of cluster lacks {exc}") from exc


def _node_of_report(entry: dict[str, Any]) -> Node:
    """A node as the planner saw it; drivers count memory in whole MiB."""
    return replace(
        _node(entry["node"], entry["gpu_type"], entry["gpus"]),
        memory_bytes=round(entry["memory_gib_per_gpu"] * GIB / MIB) * MIB,
        linked_size=entry.get("linked_size"),
    )


def _nodes_of_config(config: CascadeConfig | None) -> tuple[Node, ...]:
    if config is None or config.cluster is None:
        return ()
    return tuple(
        _node(group.name if group.count == 1 else f"{group.name}-{i}", group.gpu_type, group.gpus)
        for group in config.cluster.nodes
        for i in range(group.count)
    )


def _node(name: str, gpu_type_name: str, n_gpus: int) -> Node:
    kind = gpu_type(gpu_type_name)
    return Node(
        name=name,
        gpu_type=kind,
        gpus=tuple(f"{name}/{i}" for i in range(n_gpus)),
        memory_bytes=kind.usable_memory_bytes,
    )


def _check_nodes(plan: Plan, cluster: Cluster) -> None:
    """With GPUs of several types every placement must name a node that is there."""
    names = {node.name for node in cluster.nodes}
    for placement in plan.placements:
        unknown = [name for name in placement.node.split("+") if name not in names]
        if unknown:
            raise ConfigError(
                f"{placement.name} runs on node {unknown[0]}, which is not one of "
                f"{', '.join(sorted(names))}: the type of its GPUs is not known"
            )
