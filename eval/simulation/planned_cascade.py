"""From a plan, what is known of its tiers, and a trace to the cascade that the simulator runs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from eval.simulation.known_tiers import KnownTier
from eval.simulation.plan_file import PlanOnCluster
from eval.simulator.cascade import SimulatedCascade, SimulatedTier
from eval.simulator.step_table import ReplicaShape, StepTable, step_table
from eval.simulator.tier import ReplicaLife
from eval.simulator.workload import Requests
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.plan import MAX_SHARED_GPU_MEMORY, Placement, TierPlan
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type, without_nvlink
from hybridserve_llm.profiles.grades import worst_grade
from hybridserve_llm.profiles.memory import kv_capacity_sequences, kv_capacity_tokens
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.units import GIB

_MAX_NUM_SEQS = 256
# vLLM's defaults of max_num_batched_tokens for its server (0.32.0, `engine/arg_utils.py`): by the
# memory that the driver reports of a GPU, largest first; an A100 has the smallest in any case.
_BATCHED_TOKENS = ((160 * GIB, 16384), (70 * GIB, 8192), (0, 2048))
_ALWAYS_SMALL = "A100"


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMaker:
    """Makes the table of every shape once.

    Attributes:
        prompt_tokens: Mean of the requests; `output_tokens` likewise.
        max_num_batched_tokens: Of every engine; None for vLLM's default.
        cluster: Whose GPUs NVLink joins, or does not.
    """

    prompt_tokens: float
    output_tokens: float
    max_num_batched_tokens: int | None
    cluster: Cluster

    @classmethod
    def of(
        cls, requests: Requests, max_num_batched_tokens: int | None, cluster: Cluster
    ) -> "TableMaker":
        """With the means of `requests`."""
        return cls(
            prompt_tokens=float(requests.prompt_tokens.mean()),
            output_tokens=float(requests.output_tokens.mean()),
            max_num_batched_tokens=max_num_batched_tokens,
            cluster=cluster,
        )

    def mean_tokens(self, tier: KnownTier) -> tuple[float, float]:
        """Mean prompt and answer of a tier."""
        return self.prompt_tokens * tier.prompt_scale, self.output_tokens * tier.output_scale

    def table(
        self,
        tier: KnownTier,
        kind: GpuType,
        *,
        tensor_parallel_size: int,
        pipeline_parallel_size: int,
        memory_bytes: int,
        max_num_seqs: int | None,
    ) -> StepTable:
        """The table of a replica of `tier` that may take `memory_bytes` of each GPU.

        Raises:
            CannotBeDone: The weights do not fit.
        """
        prompt_tokens, output_tokens = self.mean_tokens(tier)
        kv_tokens = _kv_tokens(
            tier.facts,
            prompt_tokens + output_tokens,
            memory_bytes,
            (tensor_parallel_size, pipeline_parallel_size),
        )
        if kv_tokens < 1:
            raise CannotBeDone(
                f"{tier.name} does not fit: {tensor_parallel_size * pipeline_parallel_size} GPUs "
                f"with {memory_bytes / GIB:.1f} GiB each have no room for its KV cache"
            )
        n_seqs = max_num_seqs or tier.max_num_seqs or _MAX_NUM_SEQS
        is_linked = self.cluster.is_linked(kind, tensor_parallel_size)
        n_tokens = self.max_num_batched_tokens or _default_batched_tokens(kind)
        profile = _profile_of(tier, kind, (tensor_parallel_size, pipeline_parallel_size))
        table = step_table(
            ReplicaShape(
                facts=tier.facts,
                gpu=kind if is_linked else without_nvlink(kind),
                tensor_parallel_size=tensor_parallel_size,
                pipeline_parallel_size=pipeline_parallel_size,
                max_num_seqs=n_seqs,
                max_num_batched_tokens=max(n_tokens, n_seqs),
                kv_cache_tokens=kv_tokens,
                max_model_len=tier.max_tokens,
            ),
            prompt_tokens=prompt_tokens,
            output_tokens=output_tokens,
            profile=profile,
        )
        if profile or is_linked:
            return table
        # As in the planner: fitted on GPUs that are linked.
        return replace(table, grade=worst_grade([table.grade, "datasheet"]))


def planned_cascade(
    planned: PlanOnCluster, tiers: Sequence[KnownTier], make: TableMaker
) -> SimulatedCascade:
    """The plan's replicas; GPUs of the cluster that it does not use are parked.

    Raises:
        ConfigError: The plan has other tiers than are known.
        CannotBeDone: A model does not fit.
    """
    known = {tier.name: tier for tier in tiers}
    names = [tier.tier for tier in planned.plan.tiers]
    if names != [tier.name for tier in tiers]:
        raise ConfigError(
            f"the plan has the tiers {', '.join(names)}, the configuration {', '.join(known)}"
        )
    kinds = {node.name: node.gpu_type for node in planned.cluster.nodes}
    made: dict[Placement, StepTable] = {}
    simulated = tuple(
        simulated_tier(
            known[tier.tier],
            tuple(
                ReplicaLife(table=table)
                for table in _tables(tier, known[tier.tier], planned, kinds, make, made)
            ),
        )
        for tier in planned.plan.tiers
    )
    cluster = planned.cluster
    return SimulatedCascade(
        tiers=simulated,
        n_gpus=cluster.n_gpus,
        parked_w=cluster.parked_w(),
        planned_for_per_s=None if planned.demand is None else planned.demand.requests_per_s,
    )


def simulated_tier(tier: KnownTier, lives: tuple[ReplicaLife, ...]) -> SimulatedTier:
    """The tier with these replicas."""
    return SimulatedTier(
        name=tier.name,
        reach=tier.reach,
        lives=lives,
        prompt_scale=tier.prompt_scale,
        output_scale=tier.output_scale,
    )


def _tables(
    tier: TierPlan,
    known: KnownTier,
    planned: PlanOnCluster,
    kinds: dict[str, GpuType],
    make: TableMaker,
    made: dict[Placement, StepTable],
) -> tuple[StepTable, ...]:
    tables = []
    for placement in tier.placements:
        kind = _kind_of(placement, planned, kinds)
        # Replicas that differ in place alone have one table.
        share = placement.gpu_memory_share or known.memory_share or MAX_SHARED_GPU_MEMORY
        key = Placement(
            name=tier.tier,
            device="gpu",
            node=kind.name,
            tensor_parallel_size=placement.tensor_parallel_size,
            pipeline_parallel_size=placement.pipeline_parallel_size,
            gpu_memory_share=share,
            max_num_seqs=placement.max_num_seqs,
        )
        if key not in made:
            made[key] = make.table(
                known,
                kind,
                tensor_parallel_size=placement.tensor_parallel_size,
                pipeline_parallel_size=placement.pipeline_parallel_size,
                memory_bytes=int(share * planned.cluster.memory_bytes(kind)),
                max_num_seqs=placement.max_num_seqs,
            )
        tables.append(made[key])
    return tuple(tables)


def _kind_of(placement: Placement, planned: PlanOnCluster, kinds: dict[str, GpuType]) -> GpuType:
    types = planned.cluster.types
    return types[0] if len(types) == 1 else kinds[placement.node.split("+")[0]]


def _default_batched_tokens(kind: GpuType) -> int:
    """VLLM's `max_num_batched_tokens` where nobody sets it."""
    if kind.name.startswith(_ALWAYS_SMALL):
        return _BATCHED_TOKENS[-1][1]
    return next(n for least, n in _BATCHED_TOKENS if kind.usable_memory_bytes >= least)


def _kv_tokens(
    facts: ModelFacts, mean_tokens: float, memory_bytes: int, sizes: tuple[int, int]
) -> int:
    """Tokens that the KV cache of a replica holds; below 1 where the weights do not fit.

    Where layers keep a window or a state, that depends on the length of sequences: it is what as
    many sequences as fit come to, as the planner counts them, at the mean length of the requests.
    """
    tp, pp = sizes
    if not (facts.n_window_layers or facts.state_bytes_per_sequence):
        return kv_capacity_tokens(
            facts,
            memory_bytes_per_gpu=memory_bytes,
            tensor_parallel_size=tp,
            pipeline_parallel_size=pp,
        )
    n_sequences = kv_capacity_sequences(
        facts,
        context_tokens=mean_tokens,
        memory_bytes_per_gpu=memory_bytes,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
    )
    return int(n_sequences * mean_tokens)


def _profile_of(tier: KnownTier, kind: GpuType, sizes: tuple[int, int]) -> Profile | None:
    """The last measurements given of this shape."""
    for profile in reversed(tier.profiles):
        own = (profile.tensor_parallel_size, profile.pipeline_parallel_size)
        if profile.gpu is not None and gpu_type(profile.gpu).name == kind.name and own == sizes:
            return profile
    return None
