"""What the planner's choice is compared with, on the same GPUs and under the same requests.

* `giant-only`: the last tier alone answers everything, planned by the same planner for the fewest
  watts at the plan's load, with the same head-room and bounds; answers count as long as the mean
  for p95 bounds.
* `proportional`: no model of energy and no bounds. Every tier in the shape that answers the most
  requests a second and GPU, with replicas in proportion to reach times a replica's seconds for a
  request, as many as carry the plan's load with the same head-room.

GPUs that are left over are parked.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

from eval.simulation.known_tiers import KnownTier
from eval.simulation.planned_cascade import TableMaker, simulated_tier
from eval.simulator.cascade import SimulatedCascade, SimulatedTier
from eval.simulator.tier import ReplicaLife
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.arrangements import Arrangement, arrangements
from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.demand import Demand, Slo, TierDemand
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.planner.tabulate import Tables

_LESS = 0.99
"""The step in which replicas are made fewer until the GPUs hold them."""


def giant_only(
    cluster: Cluster,
    giant: KnownTier,
    make: TableMaker,
    *,
    requests_per_s: float,
    head_room: float,
    slo: Slo,
) -> SimulatedCascade:
    """The last tier alone, planned for `requests_per_s`.

    Where no plan keeps the bounds at that rate it is planned without them. Where the GPUs do not
    carry the rate with this head-room, the most that they carry is planned.

    Raises:
        CannotBeDone: The giant does not fit at all.
    """
    alone = replace(giant, reach=1.0)
    demand = Demand(
        tiers=(_demand_of(alone, make),),
        requests_per_s=requests_per_s,
        slo=slo,
        head_room=head_room,
    )
    planner = Planner(cluster=cluster, tables=Tables())
    unbound = replace(demand, slo=Slo())
    is_bound = slo != unbound.slo
    kept = planner.best(demand)
    found = planner.best(unbound) if kept is None and is_bound else kept
    if found is None:
        most = planner.largest_rate_per_s(unbound)
        found = planner.best(replace(unbound, requests_per_s=most)) if most > 0 else None
    if found is None:
        raise CannotBeDone(f"{giant.name} alone does not fit on {cluster.n_gpus} GPUs")
    choice = found.choices[0]
    return SimulatedCascade(
        tiers=(_tier(alone, choice.arrangement, choice.replicas, make),),
        n_gpus=cluster.n_gpus,
        parked_w=cluster.parked_w(),
        planned_for_per_s=found.demand.requests_per_s,
        keeps_slo=kept is not None if is_bound else None,
    )


def proportional(
    cluster: Cluster,
    tiers: Sequence[KnownTier],
    make: TableMaker,
    *,
    requests_per_s: float,
    head_room: float,
) -> SimulatedCascade:
    """Replicas in proportion to the work of every tier, for `requests_per_s`.

    Source: the replica ratios of HybridServe's public prototype (github.com/drunkcoding/
    model-inference), reach times latency. Deviations: the seconds of a replica that a request takes
    at full batch in place of its latency; the fewest replicas that carry the load in place of a
    multiple; no search over stages. Where they are more than the GPUs hold all tiers have fewer.

    Raises:
        CannotBeDone: One replica of each tier is more than there are GPUs.
    """
    best = [_most_a_gpu(cluster, _demand_of(tier, make)) for tier in tiers]
    n_gpus = [arrangement.n_gpus for arrangement in best]
    there = cluster.count(cluster.types[0])
    if sum(n_gpus) > there:
        raise CannotBeDone(f"proportional replication needs {sum(n_gpus)} GPUs, {there} are there")
    wanted = [
        requests_per_s * tier.reach / ((1 - head_room) * _rate_of(arrangement))
        for tier, arrangement in zip(tiers, best, strict=True)
    ]
    counts = _counts(wanted, n_gpus, there)
    carried = min(n / share for n, share in zip(counts, wanted, strict=True) if share > 0)
    return SimulatedCascade(
        tiers=tuple(
            _tier(tier, arrangement, count, make)
            for tier, arrangement, count in zip(tiers, best, counts, strict=True)
        ),
        n_gpus=cluster.n_gpus,
        parked_w=cluster.parked_w(),
        planned_for_per_s=requests_per_s * min(carried, 1.0),
    )


def _rate_of(arrangement: Arrangement) -> float:
    """Requests a second of a replica at full batch."""
    return arrangement.replicas[0].table.max_rate_per_s


def _counts(wanted: Sequence[float], n_gpus: Sequence[int], there: int) -> list[int]:
    """Whole replicas, one at least; by one factor fewer where the GPUs do not hold them."""
    counts = [max(1, math.ceil(n)) for n in wanted]
    scale = 1.0
    while sum(g * n for g, n in zip(n_gpus, counts, strict=True)) > there:
        scale *= min(_LESS, there / sum(g * n for g, n in zip(n_gpus, counts, strict=True)))
        counts = [max(1, math.floor(scale * n)) for n in wanted]
    return counts


def _most_a_gpu(cluster: Cluster, tier: TierDemand) -> Arrangement:
    """The shape on the first GPU type with the most requests a second and GPU."""
    fitting = [
        arrangement
        for arrangement in arrangements(cluster, (tier,), Tables())
        if arrangement.gpu_type.name == cluster.types[0].name
    ]
    if not fitting:
        raise CannotBeDone(f"{tier.name} does not fit on {cluster.n_gpus} GPUs")
    return max(fitting, key=lambda a: (_rate_of(a) / a.n_gpus, -a.n_gpus))


def _tier(
    tier: KnownTier, arrangement: Arrangement, n_replicas: int, make: TableMaker
) -> SimulatedTier:
    replica = arrangement.replicas[0]
    table = make.table(
        tier,
        arrangement.gpu_type,
        tensor_parallel_size=replica.shape.tensor_parallel_size,
        pipeline_parallel_size=replica.shape.pipeline_parallel_size,
        memory_bytes=replica.memory_bytes,
        max_num_seqs=replica.shape.max_num_seqs,
    )
    lives = (ReplicaLife(table=table),) * n_replicas
    return simulated_tier(tier, lives)


def _demand_of(tier: KnownTier, make: TableMaker) -> TierDemand:
    prompt_tokens, output_tokens = make.mean_tokens(tier)
    mean_tokens = int(prompt_tokens + output_tokens) + 1
    return TierDemand(
        name=tier.name,
        facts=tier.facts,
        reach=tier.reach,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        max_tokens=tier.max_tokens or mean_tokens,
        max_num_seqs=tier.max_num_seqs,
        memory_share=tier.memory_share,
        profiles=tier.profiles,
    )
