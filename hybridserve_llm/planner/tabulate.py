"""Tables of replicas, each made once: models of time, power and queueing asked over all loads."""

from collections.abc import Hashable
from dataclasses import dataclass, field

from hybridserve_llm.planner.demand import TierDemand
from hybridserve_llm.planner.replica_table import ReplicaTable, rates_to_tabulate
from hybridserve_llm.profiles.curve import BatchCurve, batch_curve
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type, without_nvlink
from hybridserve_llm.profiles.grades import Grade, worst_grade
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.queueing import replica_load
from hybridserve_llm.profiles.throughput import requests_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaShape:
    """What a replica's figures depend on beside its model; `max_num_seqs` is its largest batch.

    Where it is not `is_linked`, its GPUs talk over PCIe.
    """

    gpu_type: GpuType
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_num_seqs: int
    is_linked: bool = True

    @property
    def n_gpus(self) -> int:
        """GPUs it runs on."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """The tables made so far; a load level, a reach or a cluster that changes makes none anew.

    The factors make the tables of a world in which the profiles are off, see
    `ReplicaTable.perturbed`.
    """

    step_factor: float = 1.0
    power_factor: float = 1.0
    _made: dict[Hashable, ReplicaTable] = field(default_factory=dict)

    def of(self, tier: TierDemand, shape: ReplicaShape) -> ReplicaTable:
        """Figures of a replica of `tier` in this shape, with its GPUs to itself."""
        key = (
            (tier.facts, tier.prompt_tokens, tier.output_tokens, tier.p95_output_tokens),
            tuple(tier.profiles),
            (shape.gpu_type.name, shape.tensor_parallel_size, shape.pipeline_parallel_size),
            (shape.max_num_seqs, shape.is_linked),
        )
        if key not in self._made:
            self._made[key] = _tabulated(tier, shape).perturbed(
                step_factor=self.step_factor, power_factor=self.power_factor
            )
        return self._made[key]


def _tabulated(tier: TierDemand, shape: ReplicaShape) -> ReplicaTable:
    gpu = shape.gpu_type if shape.is_linked else without_nvlink(shape.gpu_type)
    profile = profile_of(tier, shape)
    curve = batch_curve(
        tier.facts,
        gpu,
        tensor_parallel_size=shape.tensor_parallel_size,
        pipeline_parallel_size=shape.pipeline_parallel_size,
        max_num_seqs=shape.max_num_seqs,
        context_tokens=tier.prompt_tokens + tier.output_tokens / 2,
        prefill_ratio=tier.prompt_tokens / tier.output_tokens,
        profile=profile,
    )
    max_rate_per_s = _max_rate_per_s(curve, tier)
    rate_per_s = rates_to_tabulate(max_rate_per_s)
    idle_w, idle_grade = gpu.idle_awake_w * shape.n_gpus, gpu.idle_grade
    if profile is not None and profile.idle_w is not None:
        idle_w, idle_grade = profile.idle_w, "measured"
    load = replica_load(
        curve,
        rate_per_s,
        output_tokens=tier.output_tokens,
        prompt_tokens=tier.prompt_tokens,
        idle_w=idle_w,
        p95_output_tokens=tier.p95_output_tokens,
    )
    if load.power_w is None:
        raise ValueError("the fitted model always gives power")
    # Fitted on GPUs that are linked; a measurement of this shape knows the link that it has.
    link_grade: list[Grade] = [] if profile or gpu is shape.gpu_type else ["datasheet"]
    return ReplicaTable(
        rate_per_s=rate_per_s,
        power_w=load.power_w,
        ttft_s=load.ttft_s,
        itl_s=load.itl_s,
        latency_s=load.latency_s,
        p95_ttft_s=load.p95_ttft_s,
        p95_itl_s=load.p95_itl_s,
        p95_latency_s=load.p95_latency_s,
        busy_share=load.busy_share,
        max_rate_per_s=max_rate_per_s,
        idle_w=idle_w,
        tdp_w=gpu.tdp_w * shape.n_gpus,
        grades=tuple(worst_grade([grade, idle_grade, *link_grade]) for grade in load.grades),
    )


def _max_rate_per_s(curve: BatchCurve, tier: TierDemand) -> float:
    """What a full batch serves, or what prompts one after the other allow, whichever is less."""
    full = float(requests_per_s(curve, tier.output_tokens)[-1])
    prompt_s = tier.prompt_tokens * (curve.prefill_token_s or 0.0)
    return min(full, 1 / prompt_s) if prompt_s > 0 else full


def profile_of(tier: TierDemand, shape: ReplicaShape) -> Profile | None:
    """The measurements of this model in this shape, the last given; None without any."""
    for profile in reversed(tier.profiles):
        sizes = (profile.tensor_parallel_size, profile.pipeline_parallel_size)
        if (
            profile.gpu is not None
            and gpu_type(profile.gpu).name == shape.gpu_type.name
            and sizes == (shape.tensor_parallel_size, shape.pipeline_parallel_size)
        ):
            return profile
    return None
