"""Turn a solution into its tiers with their expected figures, and into a plan to carry out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.planner.arrangements import ArrangedReplica
from hybridserve_llm.planner.columns import TierLoad, loads_of, tier_power_w
from hybridserve_llm.planner.packing import Group, pack
from hybridserve_llm.planner.plan import Placement, Plan, TierPlan
from hybridserve_llm.planner.report import PlannedTier, ReplicaGpus
from hybridserve_llm.planner.search import Choice, Solution
from hybridserve_llm.profiles.grades import GRADES
from hybridserve_llm.profiles.memory import kv_capacity_tokens, memory_use
from hybridserve_llm.units import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlacedReplica:
    """Hold where one replica of a tier runs: one group of GPUs for each pipeline stage."""

    name: str
    stages: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _PlacedTier:
    """Hold the replicas of one tier: each is a `replica` of this `choice`, with this `load`."""

    choice: Choice
    replica: ArrangedReplica
    load: TierLoad
    placed: tuple[_PlacedReplica, ...]


def planned_tiers(solution: Solution) -> tuple[PlannedTier, ...]:
    """Return every tier of `solution` with its figures under the demand, in the demand's order."""
    return tuple(_planned_tier(solution, tier) for tier in _placed(solution).values())


def plan_of(solution: Solution, endpoints: Mapping[str, Sequence[str]]) -> Plan:
    """Return the plan for all tiers, cheapest first.

    Args:
        solution: The replicas of the tiers that are started.
        endpoints: Every tier of the cascade in order, with the URLs where it runs already; none
            for a tier of `solution`.
    """
    placed = _placed(solution)
    plan = Plan(
        tiers=tuple(
            TierPlan(tier=name, endpoints=tuple(urls))
            if urls
            else TierPlan(
                tier=name,
                placements=tuple(
                    _placement(placed[name].replica, place) for place in placed[name].placed
                ),
            )
            for name, urls in endpoints.items()
        )
    )
    plan.check()
    return plan


def loads_at(solution: Solution, choice: Choice) -> tuple[TierLoad, ...]:
    """Return the load of one replica of each tier of `choice` under the demand, arrays of [1]."""
    rates = solution.demand.rates_per_s
    return loads_of(
        choice.arrangement,
        [np.array([rates[r.tier] / choice.replicas]) for r in choice.arrangement.replicas],
    )


def _placed(solution: Solution) -> dict[str, _PlacedTier]:
    """Return every tier by name with its GPUs; replicas of one arrangement are on the same."""
    wanted = [
        (choice.arrangement.gpu_type, choice.arrangement.group_size)
        for choice in solution.choices
        for _ in range(choice.replicas * choice.arrangement.n_groups)
    ]
    groups = iter(pack(solution.cluster, wanted))
    found: dict[int, _PlacedTier] = {}
    for choice in solution.choices:
        stages = [
            tuple(next(groups) for _ in range(choice.arrangement.n_groups))
            for _ in range(choice.replicas)
        ]
        loads = loads_at(solution, choice)
        for replica, load in zip(choice.arrangement.replicas, loads, strict=True):
            name = solution.demand.tiers[replica.tier].name
            found[replica.tier] = _PlacedTier(
                choice=choice,
                replica=replica,
                load=load,
                placed=tuple(
                    _PlacedReplica(name=f"{name}/{i}", stages=each) for i, each in enumerate(stages)
                ),
            )
    return {solution.demand.tiers[tier].name: found[tier] for tier in sorted(found)}


def _planned_tier(solution: Solution, placed: _PlacedTier) -> PlannedTier:
    choice, replica, load, demand = placed.choice, placed.replica, placed.load, solution.demand
    arrangement, shape, tier = choice.arrangement, replica.shape, demand.tiers[replica.tier]
    requests_per_s = demand.rates_per_s[replica.tier]
    parallel = {
        "memory_bytes_per_gpu": replica.memory_bytes,
        "tensor_parallel_size": shape.tensor_parallel_size,
        "pipeline_parallel_size": shape.pipeline_parallel_size,
    }
    use = memory_use(tier.facts, **parallel)
    return PlannedTier(
        name=tier.name,
        device="gpu",
        gpu_type=arrangement.gpu_type.name,
        tensor_parallel_size=shape.tensor_parallel_size,
        pipeline_parallel_size=shape.pipeline_parallel_size,
        replicas=choice.replicas,
        max_num_seqs=shape.max_num_seqs,
        placements=tuple(gpus for place in placed.placed for gpus in _gpus_by_node(place)),
        shares_gpus_with=tuple(
            demand.tiers[other.tier].name for other in arrangement.replicas if other is not replica
        ),
        gpu_memory_utilization=replica.memory_share,
        memory_gib_per_gpu=replica.memory_bytes / GIB,
        weight_gib_per_gpu=use.weight_bytes / GIB,
        kv_cache_gib_per_gpu=use.kv_bytes / GIB,
        kv_cache_tokens=kv_capacity_tokens(tier.facts, **parallel),
        reach=tier.reach,
        requests_per_s=requests_per_s,
        utilisation=float(load.utilisation[0]),
        power_w=float(tier_power_w(load.power_w, choice.replicas)[0]),
        ttft_s=float(load.time_s("ttft_s")[0]),
        itl_s=float(load.time_s("itl_s")[0]),
        latency_s=float(load.latency_s[0]),
        p95_ttft_s=float(load.time_s("p95_ttft_s")[0]),
        p95_itl_s=float(load.time_s("p95_itl_s")[0]),
        p95_latency_s=float(load.time_s("p95_latency_s")[0]),
        # Nobody measured engines that share a GPU.
        grade=GRADES[-1]
        if arrangement.is_shared
        else replica.table.grade_at(requests_per_s / choice.replicas),
    )


def _gpus_by_node(place: _PlacedReplica) -> Iterator[ReplicaGpus]:
    gpus: dict[str, list[int]] = {}
    for stage in place.stages:
        gpus.setdefault(stage.node.name, []).extend(stage.numbers)
    for node, numbers in gpus.items():
        yield ReplicaGpus(replica=place.name, node=node, gpus=tuple(numbers))


def _placement(replica: ArrangedReplica, place: _PlacedReplica) -> Placement:
    nodes = dict.fromkeys(stage.node.name for stage in place.stages)
    return Placement(
        name=place.name,
        device="gpu",
        node="+".join(nodes),
        tensor_parallel_size=replica.shape.tensor_parallel_size,
        pipeline_parallel_size=replica.shape.pipeline_parallel_size,
        gpu_uuids=tuple(gpu for stage in place.stages for gpu in stage.gpu_ids),
        gpu_memory_share=replica.memory_share,
        max_num_seqs=replica.shape.max_num_seqs,
    )
