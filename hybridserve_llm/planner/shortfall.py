"""Find out why nothing fits: what is missing, how much, and which changes would make it fit."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from hybridserve_llm.planner.arrangements import arrangements, shapes_of
from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.demand import Demand, Slo, TierDemand
from hybridserve_llm.planner.report import Shortfall
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.memory import memory_use
from hybridserve_llm.units import GIB

_MOST_GPUS_ADDED = 4096
_LITTLE = 1e-3
"""Share of the load that is almost none: a bound that breaks there does not break for the load."""


def shortfall(planner: Planner, demand: Demand) -> Shortfall:
    """Return why `planner` found nothing for `demand`, which must be one that it cannot meet."""
    n_more = _gpus_to_add(planner, demand)
    rate_per_s = planner.largest_rate_per_s(replace(demand, objective="energy"))
    reason, missing = (
        _tier_shortage(planner, demand.tiers)
        or _bound_shortage(planner, demand)
        or _load_shortage(planner, demand, rate_per_s)
        or _common_shortage(planner, demand.tiers)
    )
    return Shortfall(
        reason=reason,
        missing_memory_gib=None if missing is None else missing / GIB,
        missing_gpus=n_more,
        changes=tuple(_changes(planner, demand, n_more, rate_per_s)),
    )


_Reason = tuple[str, int | None]


def _tier_shortage(planner: Planner, tiers: Sequence[TierDemand]) -> _Reason | None:
    """Return the first tier that fits in no shape even alone, and the fewest bytes it lacks."""
    for tier in tiers:
        if arrangements(planner.cluster, [tier], planner.tables):
            continue
        lacks = _lacks(planner.cluster, tier)
        if not lacks:
            return _no_shape(planner.cluster, tier), None
        # Of equal shapes the one with most GPUs to a layer: an operator would try it first.
        least = min(lacks, key=lambda lack: (lack.missing_bytes, lack.n_gpus, -lack.group_size))
        return least.text, least.missing_bytes
    return None


def _bound_shortage(planner: Planner, demand: Demand) -> _Reason | None:
    """Return a bound that the quickest shapes break without any load."""
    quickest_s = 0.0
    for tier in demand.tiers:
        tables = [
            choice.replicas[0].table
            for choice in arrangements(planner.cluster, [tier], planner.tables)
        ]
        quickest_s += tier.reach * min(float(table.latency_s[0]) for table in tables)
        for key, bound in demand.slo.of_tiers:
            reached_s = min(float(table.times_s[key][0]) for table in tables)
            if reached_s > bound:
                return (
                    f"tier {tier.name} cannot keep planner.slo.{key} {bound:g} s: its quickest "
                    f"shape takes {reached_s:.3g} s without any load",
                    None,
                )
    limit_s = demand.slo.latency_s
    if limit_s is not None and quickest_s > limit_s:
        return (
            f"planner.slo.latency_s {limit_s:g} s cannot be kept: the quickest shapes take "
            f"{quickest_s:.3g} s without any load",
            None,
        )
    return None


def _load_shortage(planner: Planner, demand: Demand, rate_per_s: float) -> _Reason | None:
    if rate_per_s <= 0:
        return None
    within = " and the bounds on time" if demand.slo != Slo() else ""
    return (
        f"{planner.cluster.n_gpus} GPUs carry {rate_per_s:.3g} of the {demand.requests_per_s:g} "
        f"requests/s with {demand.head_room:.0%} head-room{within}: "
        f"{demand.requests_per_s - rate_per_s:.3g} too many",
        None,
    )


def _common_shortage(planner: Planner, tiers: Sequence[TierDemand]) -> _Reason:
    """Return the reason for tiers that fit alone but not together, and the bytes they lack."""
    cluster = planner.cluster
    needs = {
        tier.name: min(
            lack.wanted_bytes * lack.n_gpus
            for lack in _lacks(cluster, tier)
            if not lack.missing_bytes
        )
        for tier in tiers
    }
    there = sum(
        len(node.gpus) * math.floor(node.memory_share * node.memory_bytes) for node in cluster.nodes
    )
    missing = sum(needs.values()) - there
    listed = ", ".join(f"{name} {need / GIB:.1f}" for name, need in needs.items())
    reason = (
        f"each tier fits alone, all together do not: at least {sum(needs.values()) / GIB:.1f} GiB "
        f"({listed}), of which {cluster.n_gpus} GPUs have {there / GIB:.1f}"
    )
    if missing > 0:
        return f"{reason}: {missing / GIB:.1f} GiB too little", missing
    return f"{reason}, in pieces too small", None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Lack:
    """Hold the bytes that a tier wants on each GPU of one shape, and lacks on all of them."""

    wanted_bytes: int
    missing_bytes: int
    n_gpus: int
    group_size: int
    text: str


def _lacks(cluster: Cluster, tier: TierDemand) -> list[_Lack]:
    """Return what the tier wants and lacks in every shape that its heads and the nodes allow."""
    return [
        _lack(cluster, gpu_type, tier, shape)
        for gpu_type in cluster.types
        for shape in shapes_of(cluster, gpu_type, tier)
    ]


def _lack(cluster: Cluster, gpu_type: GpuType, tier: TierDemand, shape: tuple[int, int]) -> _Lack:
    tp, pp = shape
    share = tier.memory_share or cluster.memory_share(gpu_type)
    there = int(share * cluster.memory_bytes(gpu_type))
    use = memory_use(
        tier.facts,
        memory_bytes_per_gpu=there,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
    )
    # The cache of one sequence of `max_tokens`, with whole heads on each GPU.
    heads = -(-tier.facts.n_kv_heads // tp) / tier.facts.n_kv_heads
    cache = int(tier.max_tokens * tier.facts.kv_bytes_per_token * heads / pp)
    missing = max(cache - use.kv_bytes, 0)
    n_gpus = tp * pp
    wanted = use.weight_bytes + use.overhead_bytes + cache
    return _Lack(
        wanted_bytes=wanted,
        missing_bytes=missing * n_gpus,
        n_gpus=n_gpus,
        group_size=tp,
        text=(
            f"tier {tier.name} does not fit: {_shape(shape)} needs {wanted / GIB:.1f} GiB on each "
            f"of {n_gpus} {gpu_type.name} (weights {use.weight_bytes / GIB:.1f}, engine "
            f"{use.overhead_bytes / GIB:.1f}, KV cache of {tier.max_tokens} tokens "
            f"{cache / GIB:.1f}), of which an engine may take {there / GIB:.1f}: "
            f"{missing / GIB:.1f} GiB a GPU too little, {missing * n_gpus / GIB:.1f} in all"
        ),
    )


def _shape(shape: tuple[int, int]) -> str:
    tp, pp = shape
    return f"TP {tp}" if pp == 1 else f"TP {tp} x PP {pp}"


def _no_shape(cluster: Cluster, tier: TierDemand) -> str:
    sizes = sorted({size for kind in cluster.types for size in cluster.group_sizes(kind)})
    wish = tier.tensor_parallel_size
    return (
        f"tier {tier.name} has no shape: tensor_parallel_size "
        f"{'any' if wish is None else wish} must divide its {tier.facts.n_heads} attention heads "
        f"and be one of {', '.join(map(str, sizes))}, the powers of two that a node holds"
    )


def _gpus_to_add(planner: Planner, demand: Demand) -> int | None:
    """Return the fewest GPUs of the last node's type that make it fit; more never fit worse."""

    def fits(n_more: int) -> bool:
        grown = replace(planner, cluster=planner.cluster.grown(n_more))
        return grown.best(replace(demand, objective="energy")) is not None

    return _least(fits, _MOST_GPUS_ADDED)


def _least(fits: Callable[[int], bool], most: int) -> int | None:
    """Return the least of 1 to `most` that fits, if all above one that fits do, too."""
    high = 1
    while not fits(high):
        if high >= most:
            return None
        high = min(2 * high, most)
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high


def _changes(
    planner: Planner, demand: Demand, n_more: int | None, rate_per_s: float
) -> Iterator[str]:
    """Yield changes that the operator may make: settings first, as they cost no hardware."""
    energy = replace(demand, objective="energy")
    bounds = demand.slo
    if bounds != Slo() and (loose := planner.best(replace(energy, slo=Slo()))) is not None:
        yield f"drop planner.slo (without it {loose.power_w:.0f} W would do)"
    if rate_per_s > demand.requests_per_s * _LITTLE:
        yield f"lower the load to {rate_per_s:.3g} requests/s"
    pinned = replace(
        energy,
        tiers=tuple(
            replace(tier, tensor_parallel_size=None, replicas=None, memory_share=None)
            for tier in demand.tiers
        ),
    )
    if pinned.tiers != demand.tiers and planner.best(pinned) is not None:
        yield (
            "leave tensor_parallel_size, replicas and gpu_memory_utilization of the tiers "
            "to the planner"
        )
    if n_more is not None:
        kind = planner.cluster.nodes[-1].gpu_type.name
        yield f"add {n_more} {kind} ({planner.cluster.n_gpus + n_more} GPUs in all)"
