"""List every way to run a tier's replica on the GPUs available, alone or sharing with other tiers.

An arrangement does not depend on the load: `columns.py` computes how many of it a load needs.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.demand import TierDemand
from hybridserve_llm.planner.plan import rounded_share
from hybridserve_llm.planner.replica_table import EngineShape, ReplicaTable, Tables
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.memory import kv_capacity_sequences, kv_capacity_tokens, memory_use

_LARGEST_BATCH = 256
_SMALLER_BATCHES = (64, 16)
_MAX_STAGES = 8
_MAX_TIERS_A_GPU = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ArrangedReplica:
    """Hold one replica of a tier in an arrangement: its shape, part of the memory and figures.

    Attributes:
        tier: The tier's place in the demand.
        memory_share: Part of each GPU's memory by the driver's count.
        memory_bytes: The same in bytes, of each GPU.
        table: Its figures with its GPUs to itself.
    """

    tier: int
    shape: EngineShape
    memory_share: float
    memory_bytes: int
    table: ReplicaTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """Hold the replicas that run on the same GPUs: one, or one of each of several tiers.

    Those that share have one tensor-parallel size, so that each GPU carries an equal part.
    """

    gpu_type: GpuType
    replicas: tuple[ArrangedReplica, ...]

    @property
    def group_size(self) -> int:
        """Return how many GPUs of one node work on the same layer."""
        return self.replicas[0].shape.tensor_parallel_size

    @property
    def n_groups(self) -> int:
        """Return the number of groups of that size: the pipeline stages."""
        return self.replicas[0].shape.pipeline_parallel_size

    @property
    def n_gpus(self) -> int:
        """Return the number of GPUs of all groups."""
        return self.group_size * self.n_groups

    @property
    def serves(self) -> int:
        """Return the tiers it serves as bits: bit i is set for tier i."""
        return sum(1 << replica.tier for replica in self.replicas)

    @property
    def is_shared(self) -> bool:
        """Return True if several tiers share the GPUs."""
        return len(self.replicas) > 1


def arrangements(
    cluster: Cluster, tiers: Sequence[TierDemand], tables: Tables
) -> tuple[Arrangement, ...]:
    """Return all arrangements whose weights and KV cache fit, in a fixed order.

    Order: GPU types as the cluster has them, alone before shared, tiers, small groups first.
    """
    return tuple(
        arrangement
        for gpu_type in cluster.types
        for found in (
            _alone(cluster, gpu_type, tiers, tables),
            _shared(cluster, gpu_type, tiers, tables),
        )
        for arrangement in found
    )


def shapes_of(cluster: Cluster, gpu_type: GpuType, tier: TierDemand) -> Iterator[tuple[int, int]]:
    """Yield the tensor and pipeline parallel sizes that the model and the nodes allow.

    vLLM splits attention heads evenly, and key-value heads evenly or each onto several GPUs.
    """
    facts = tier.facts
    for tp in cluster.group_sizes(gpu_type):
        is_even = facts.n_heads % tp == 0 and (
            facts.n_kv_heads % tp == 0 or tp % facts.n_kv_heads == 0
        )
        if not is_even or tier.tensor_parallel_size not in (None, tp):
            continue
        for exponent in range(_MAX_STAGES.bit_length()):
            pp = 1 << exponent
            if pp <= min(facts.n_layers, cluster.n_groups(gpu_type, tp)):
                yield tp, pp


def _alone(
    cluster: Cluster, gpu_type: GpuType, tiers: Sequence[TierDemand], tables: Tables
) -> Iterator[Arrangement]:
    for place, tier in enumerate(tiers):
        share = tier.memory_share or cluster.memory_share(gpu_type)
        for tp, pp in shapes_of(cluster, gpu_type, tier):
            for replica in _replicas(cluster, gpu_type, (place, tier), (tp, pp), share, tables):
                yield Arrangement(gpu_type=gpu_type, replicas=(replica,))


def _replicas(
    cluster: Cluster,
    gpu_type: GpuType,
    placed: tuple[int, TierDemand],
    parallel: tuple[int, int],
    memory_share: float,
    tables: Tables,
    *,
    largest_only: bool = False,
) -> Iterator[ArrangedReplica]:
    """Yield one replica for each bound on the batch to try; none if the model does not fit."""
    (place, tier), (tp, pp) = placed, parallel
    memory_bytes = math.floor(memory_share * cluster.memory_bytes(gpu_type))
    n_sequences = _sequences_that_fit(tier, memory_bytes, tp, pp)
    if n_sequences < 1:
        return
    for max_num_seqs in _batches(tier, n_sequences)[: 1 if largest_only else None]:
        shape = EngineShape(
            gpu_type=gpu_type,
            tensor_parallel_size=tp,
            pipeline_parallel_size=pp,
            max_num_seqs=max_num_seqs,
            is_linked=cluster.is_linked(gpu_type, tp),
        )
        yield ArrangedReplica(
            tier=place,
            shape=shape,
            memory_share=memory_share,
            memory_bytes=memory_bytes,
            table=tables.of(tier, shape),
        )


def _sequences_that_fit(tier: TierDemand, memory_bytes: int, tp: int, pp: int) -> int:
    """Return how many sequences fit at a time; 0 also if one of `max_tokens` does not fit."""
    n_tokens = kv_capacity_tokens(
        tier.facts,
        memory_bytes_per_gpu=memory_bytes,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
    )
    if n_tokens < tier.max_tokens:
        return 0
    return kv_capacity_sequences(
        tier.facts,
        context_tokens=tier.prompt_tokens + tier.output_tokens,
        memory_bytes_per_gpu=memory_bytes,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
    )


def _batches(tier: TierDemand, n_sequences: int) -> tuple[int, ...]:
    """Return bounds on the batch, largest first: the operator's, or powers of two that fit.

    With smaller ones the time between tokens is shorter at full load. They are powers of two so
    that a little more memory does not change every figure.
    """
    if tier.max_num_seqs is not None:
        return (min(tier.max_num_seqs, n_sequences),)
    largest = min(_LARGEST_BATCH, 1 << (n_sequences.bit_length() - 1))
    return (largest, *(batch for batch in _SMALLER_BATCHES if batch < largest))


def _shared(
    cluster: Cluster, gpu_type: GpuType, tiers: Sequence[TierDemand], tables: Tables
) -> Iterator[Arrangement]:
    placed = list(enumerate(tiers))
    for n_sharing in range(2, min(len(tiers), _MAX_TIERS_A_GPU) + 1):
        for sharing in combinations(placed, n_sharing):
            fixed = {tier.replicas for _, tier in sharing} - {None}
            if len(fixed) > 1:
                continue  # a shared GPU has one replica of each tier: their numbers must be equal
            shapes = [set(shapes_of(cluster, gpu_type, tier)) for _, tier in sharing]
            for tp, pp in sorted(set.intersection(*shapes)):
                if pp == 1:
                    yield from _shared_by(cluster, gpu_type, sharing, tp, tables)


def _shared_by(
    cluster: Cluster,
    gpu_type: GpuType,
    sharing: Sequence[tuple[int, TierDemand]],
    tp: int,
    tables: Tables,
) -> Iterator[Arrangement]:
    seen = set()
    for weigh_length in (False, True):
        shares = _memory_shares(
            cluster.memory_bytes(gpu_type),
            cluster.memory_share(gpu_type),
            [tier for _, tier in sharing],
            tp,
            weigh_length=weigh_length,
        )
        if shares is None or shares in seen:
            continue
        seen.add(shares)
        replicas = [
            replica
            for placed, share in zip(sharing, shares, strict=True)
            for replica in _replicas(
                cluster, gpu_type, placed, (tp, 1), share, tables, largest_only=True
            )
        ]
        if len(replicas) == len(sharing):
            yield Arrangement(gpu_type=gpu_type, replicas=tuple(replicas))


def _memory_shares(
    gpu_bytes: int, most: float, tiers: Sequence[TierDemand], tp: int, *, weigh_length: bool
) -> tuple[float, ...] | None:
    """Return each tier's share of a GPU: weights, overhead, and a part of the rest.

    The shares add up to `most`. The part is equal for all; with `weigh_length` it is in proportion
    to the bytes that a request's tokens take. A share that the operator set is kept. None means
    that the weights alone are too large.
    """
    needs = [
        memory_use(
            tier.facts, memory_bytes_per_gpu=0, tensor_parallel_size=tp, pipeline_parallel_size=1
        )
        for tier in tiers
    ]
    least = [use.weight_bytes + use.overhead_bytes for use in needs]
    fixed = [None if tier.memory_share is None else tier.memory_share * gpu_bytes for tier in tiers]
    left = most * gpu_bytes - sum(
        need if own is None else own for need, own in zip(least, fixed, strict=True)
    )
    if left < 0:
        return None
    weights = [
        0.0 if own is not None else _kv_weight(tier) if weigh_length else 1.0
        for tier, own in zip(tiers, fixed, strict=True)
    ]
    shares = [
        (need + left * weight / (sum(weights) or 1.0)) / gpu_bytes
        if own is None
        else own / gpu_bytes
        for need, own, weight in zip(least, fixed, weights, strict=True)
    ]
    return tuple(map(rounded_share, shares))


def _kv_weight(tier: TierDemand) -> float:
    return tier.facts.kv_bytes_per_token * (tier.prompt_tokens + tier.output_tokens) + 1.0
