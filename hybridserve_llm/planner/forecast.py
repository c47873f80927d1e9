"""What a solution is expected to do: tier by tier, with the grade of every figure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.planner.columns import TierLoad, loads_of, tier_power_w
from hybridserve_llm.planner.packing import Group, pack
from hybridserve_llm.planner.plan import Placement, Plan, TierPlan
from hybridserve_llm.planner.search import Choice, Solution
from hybridserve_llm.profiles.grades import GRADES, Grade, worst_grade
from hybridserve_llm.profiles.memory import kv_capacity_tokens, memory_use


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaPlace:
    """Where one replica of a tier runs: one group of GPUs for each pipeline stage."""

    name: str
    stages: tuple[Group, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TierForecast:
    """One tier as planned; watts are of all its replicas, seconds means or what 95 % keep.

    Attributes:
        memory_share: Part of each GPU's memory that an engine of the tier may take;
            `memory_bytes_per_gpu` is the same in bytes, of which `weight_bytes_per_gpu` are
            weights and `kv_bytes_per_gpu` KV cache.
        kv_tokens: Tokens that the KV cache of one replica holds.
        reach: Share of requests that ask the tier.
        requests_per_s: Of all replicas together.
        utilisation: Of each replica: its rate over what it could carry.
        shares_with: Tiers on the same GPUs.
    """

    name: str
    gpu_type: str
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_num_seqs: int
    replicas: int
    memory_share: float
    memory_bytes_per_gpu: int
    weight_bytes_per_gpu: int
    kv_bytes_per_gpu: int
    kv_tokens: int
    reach: float
    requests_per_s: float
    utilisation: float
    power_w: float
    ttft_s: float
    itl_s: float
    latency_s: float
    p95_ttft_s: float
    p95_itl_s: float
    p95_latency_s: float
    grade: Grade
    shares_with: tuple[str, ...]
    places: tuple[ReplicaPlace, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """The whole solution; `power_w` is the sum of the tiers' and of the parked GPUs'."""

    tiers: tuple[TierForecast, ...]
    requests_per_s: float
    n_gpus: int
    n_gpus_parked: int
    parked_power_w: float
    power_w: float
    latency_s: float
    grade: Grade

    @property
    def energy_j_per_request(self) -> float:
        """Joules of all GPUs for each request, parked ones included."""
        return self.power_w / self.requests_per_s


def forecast(solution: Solution) -> Forecast:
    """What `solution` does under its demand."""
    places = _places(solution)
    tiers = sorted(
        (tier for choice in solution.choices for tier in _tiers_of(solution, choice, places)),
        key=lambda item: item[0],
    )
    found = tuple(tier for _, tier in tiers)
    parked_w = solution.parked_power_w
    return Forecast(
        tiers=found,
        requests_per_s=solution.demand.requests_per_s,
        n_gpus=solution.n_gpus,
        n_gpus_parked=solution.cluster.n_gpus - solution.n_gpus,
        parked_power_w=parked_w,
        power_w=sum(tier.power_w for tier in found) + parked_w,
        latency_s=sum(tier.reach * tier.latency_s for tier in found),
        grade=worst_grade(tier.grade for tier in found),
    )


def loads_at(solution: Solution, choice: Choice) -> tuple[TierLoad, ...]:
    """What one replica of each tier of `choice` does under the solution's demand, shape [1]."""
    rates = solution.demand.rates_per_s
    return loads_of(
        choice.arrangement,
        [np.array([rates[r.tier] / choice.replicas]) for r in choice.arrangement.replicas],
    )


def _tiers_of(
    solution: Solution, choice: Choice, places: dict[int, tuple[ReplicaPlace, ...]]
) -> Iterator[tuple[int, TierForecast]]:
    arrangement, demand = choice.arrangement, solution.demand
    names = [demand.tiers[replica.tier].name for replica in arrangement.replicas]
    for replica, load in zip(arrangement.replicas, loads_at(solution, choice), strict=True):
        tier, shape = demand.tiers[replica.tier], replica.shape
        parallel = {
            "memory_bytes_per_gpu": replica.memory_bytes,
            "tensor_parallel_size": shape.tensor_parallel_size,
            "pipeline_parallel_size": shape.pipeline_parallel_size,
        }
        use = memory_use(tier.facts, **parallel)
        yield (
            replica.tier,
            TierForecast(
                name=tier.name,
                gpu_type=arrangement.gpu_type.name,
                tensor_parallel_size=shape.tensor_parallel_size,
                pipeline_parallel_size=shape.pipeline_parallel_size,
                max_num_seqs=shape.max_num_seqs,
                replicas=choice.replicas,
                memory_share=replica.memory_share,
                memory_bytes_per_gpu=replica.memory_bytes,
                weight_bytes_per_gpu=use.weight_bytes,
                kv_bytes_per_gpu=use.kv_bytes,
                kv_tokens=kv_capacity_tokens(tier.facts, **parallel),
                reach=tier.reach,
                requests_per_s=demand.rates_per_s[replica.tier],
                utilisation=float(load.utilisation[0]),
                power_w=float(tier_power_w(load.power_w, choice.replicas)[0]),
                latency_s=float(load.latency_s[0]),
                ttft_s=float(load.time_s("ttft_s")[0]),
                itl_s=float(load.time_s("itl_s")[0]),
                p95_ttft_s=float(load.time_s("p95_ttft_s")[0]),
                p95_itl_s=float(load.time_s("p95_itl_s")[0]),
                p95_latency_s=float(load.time_s("p95_latency_s")[0]),
                # Nobody measured engines that share a GPU.
                grade=GRADES[-1]
                if arrangement.is_shared
                else replica.table.grade_at(demand.rates_per_s[replica.tier] / choice.replicas),
                shares_with=tuple(name for name in names if name != tier.name),
                places=places[replica.tier],
            ),
        )


def _places(solution: Solution) -> dict[int, tuple[ReplicaPlace, ...]]:
    """Replicas of every tier with their GPUs; those of one arrangement are on the same."""
    wanted = [
        (choice.arrangement.gpu_type, choice.arrangement.group_size)
        for choice in solution.choices
        for _ in range(choice.replicas * choice.arrangement.n_groups)
    ]
    groups = iter(pack(solution.cluster, wanted))
    found: dict[int, tuple[ReplicaPlace, ...]] = {}
    for choice in solution.choices:
        stages = [
            tuple(next(groups) for _ in range(choice.arrangement.n_groups))
            for _ in range(choice.replicas)
        ]
        for replica in choice.arrangement.replicas:
            name = solution.demand.tiers[replica.tier].name
            found[replica.tier] = tuple(
                ReplicaPlace(name=f"{name}/{i}", stages=each) for i, each in enumerate(stages)
            )
    return found


def plan_of(forecast: Forecast, endpoints: Mapping[str, Sequence[str]]) -> Plan:
    """The plan for all tiers, cheapest first.

    Args:
        forecast: Of the tiers that are started.
        endpoints: Every tier of the cascade in order, with the URLs where it runs already; none
            for a tier of `forecast`.
    """
    placed = {tier.name: tier for tier in forecast.tiers}
    plan = Plan(
        tiers=tuple(
            TierPlan(tier=name, endpoints=tuple(urls))
            if urls
            else TierPlan(
                tier=name,
                placements=tuple(_placement(placed[name], place) for place in placed[name].places),
            )
            for name, urls in endpoints.items()
        )
    )
    plan.check()
    return plan


def _placement(tier: TierForecast, place: ReplicaPlace) -> Placement:
    nodes = dict.fromkeys(stage.node.name for stage in place.stages)
    return Placement(
        name=place.name,
        device="gpu",
        node="+".join(nodes),
        tensor_parallel_size=tier.tensor_parallel_size,
        pipeline_parallel_size=tier.pipeline_parallel_size,
        gpu_uuids=tuple(gpu for stage in place.stages for gpu in stage.gpu_ids),
        gpu_memory_share=tier.memory_share,
        max_num_seqs=tier.max_num_seqs,
    )
