"""What the planner's choice is compared with, on the same GPUs and under the same requests.

* `giant-only`: the last tier alone answers everything, planned by the same planner for the fewest
  watts; GPUs that are left over are parked.
* `proportional`: no planner. Every tier in its smallest shape that holds a request of mean length
  (and `engine.max_model_len` tokens, where that is given), with replicas in proportion to reach, as
  many as the GPUs allow; what is left over is parked.
"""

from collections.abc import Sequence
from dataclasses import replace

from eval.known_tiers import KnownTier
from eval.simulated_cascade import TableMaker, simulated_tier
from eval.simulator.cascade import SimulatedCascade, SimulatedTier
from eval.simulator.tier import ReplicaLife
from eval.simulator.workload import Requests
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.arrangements import Arrangement, arrangements
from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.demand import Demand, Slo, TierDemand
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.planner.tabulate import Tables


def giant_only(
    cluster: Cluster,
    giant: KnownTier,
    make: TableMaker,
    *,
    requests: Requests,
    head_room: float,
    slo: Slo,
) -> SimulatedCascade:
    """The last tier alone, planned for the trace's mean rate.

    Where the GPUs do not carry that with this head-room, the most that they carry is planned.

    Raises:
        CannotBeDone: The giant does not fit at all.
    """
    demand = Demand(
        tiers=(_demand_of(replace(giant, reach=1.0), make),),
        requests_per_s=len(requests) / max(requests.span_s, 1e-9),
        slo=slo,
        head_room=head_room,
    )
    planner = Planner(cluster=cluster, tables=Tables())
    found = planner.best(demand)
    if found is None:
        unbound = replace(demand, slo=Slo())
        most = planner.largest_rate_per_s(unbound)
        found = planner.best(replace(unbound, requests_per_s=most)) if most > 0 else None
    if found is None:
        raise CannotBeDone(f"{giant.name} alone does not fit on {cluster.n_gpus} GPUs")
    choice = found.choices[0]
    return SimulatedCascade(
        tiers=(_tier(replace(giant, reach=1.0), choice.arrangement, choice.replicas, make),),
        n_gpus=cluster.n_gpus,
        parked_w=cluster.parked_w(),
    )


def proportional(
    cluster: Cluster, tiers: Sequence[KnownTier], make: TableMaker
) -> SimulatedCascade:
    """Every tier's smallest replica, as many times as its reach commands.

    Raises:
        CannotBeDone: One replica of each is more than there are GPUs.
    """
    kind = cluster.types[0]
    smallest = [_smallest(cluster, _demand_of(tier, make)) for tier in tiers]
    n_gpus = [arrangement.n_gpus for arrangement in smallest]
    there = cluster.count(kind)
    reaches = [tier.reach for tier in tiers]
    scale = there / sum(g * reach for g, reach in zip(n_gpus, reaches, strict=True))
    counts = [max(1, int(scale * reach)) for reach in reaches]
    used = sum(g * count for g, count in zip(n_gpus, counts, strict=True))
    if used > there:
        raise CannotBeDone(f"proportional replication needs {used} GPUs, {there} are there")
    return SimulatedCascade(
        tiers=tuple(
            _tier(tier, arrangement, count, make)
            for tier, arrangement, count in zip(tiers, smallest, counts, strict=True)
        ),
        n_gpus=cluster.n_gpus,
        parked_w=cluster.parked_w(),
    )


def _smallest(cluster: Cluster, tier: TierDemand) -> Arrangement:
    """Of the first GPU type; among equals the largest batch."""
    fitting = [
        arrangement
        for arrangement in arrangements(cluster, (tier,), Tables())
        if arrangement.gpu_type.name == cluster.types[0].name
    ]
    if not fitting:
        raise CannotBeDone(f"{tier.name} does not fit on {cluster.n_gpus} GPUs")
    return min(fitting, key=lambda a: (a.n_gpus, a.n_groups, -a.replicas[0].shape.max_num_seqs))


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
