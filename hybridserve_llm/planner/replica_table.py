"""Tabulate the figures of one replica at any load: computed once a shape, then looked up.

The models of time, power and queueing are those of `hybridserve_llm/profiles/`.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from hybridserve_llm.planner.demand import TierDemand, TierTime
from hybridserve_llm.planner.problem import FloatArray
from hybridserve_llm.profiles.curve import BatchCurve, batch_curve
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type, without_nvlink
from hybridserve_llm.profiles.grades import Grade, worst_grade
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.queueing import replica_load
from hybridserve_llm.profiles.throughput import requests_per_s

_LARGEST_UTILISATION = 0.999
_SMALLEST_UTILISATION = 1e-4
_N_RATES = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaTable:
    """Hold the figures of one replica at rising request rates; between them they are interpolated.

    All arrays, and `grades`, have shape [n_rates]; the first rate is 0, where the engine waits.

    Attributes:
        rate_per_s: Requests per second.
        power_w: Watts of all its GPUs.
        ttft_s: Mean time to first token.
        itl_s: Mean time between tokens.
        latency_s: Mean time of a request, waiting included.
        p95_ttft_s: Time to first token that 95 % of answers keep; `p95_itl_s` and `p95_latency_s`
            likewise, the former of tokens.
        busy_share: Share of the time in which it works on at least one request.
        max_rate_per_s: Rate that it can carry with nothing to spare.
        idle_w: Watts of all its GPUs while it waits for work.
        tdp_w: Most watts of all its GPUs.
        grades: Grade of the figures at every rate.
    """

    rate_per_s: FloatArray
    power_w: FloatArray
    ttft_s: FloatArray
    itl_s: FloatArray
    latency_s: FloatArray
    p95_ttft_s: FloatArray
    p95_itl_s: FloatArray
    p95_latency_s: FloatArray
    busy_share: FloatArray
    max_rate_per_s: float
    idle_w: float
    tdp_w: float
    grades: tuple[Grade, ...]

    def grade_at(self, rate_per_s: float) -> Grade:
        """Return the grade at this rate: the worse of the two that it lies between."""
        place = int(np.searchsorted(self.rate_per_s, rate_per_s))
        last = len(self.grades) - 1
        return worst_grade(self.grades[min(i, last)] for i in (max(place - 1, 0), place))

    def power_at(self, rate_per_s: FloatArray) -> FloatArray:
        """Return the watts at the rates given; at most those of the last rate in the table."""
        return np.interp(rate_per_s, self.rate_per_s, self.power_w)

    def latency_at(self, rate_per_s: FloatArray) -> FloatArray:
        """Return the seconds a request takes at the rates given; infinite beyond the table."""
        return self._at(rate_per_s, self.latency_s)

    def time_at(self, name: TierTime, rate_per_s: FloatArray) -> FloatArray:
        """Return the time called `name`, in seconds, at the rates given.

        It is infinite beyond the table.
        """
        return self._at(rate_per_s, self.times_s[name])

    @property
    def times_s(self) -> Mapping[TierTime, FloatArray]:
        """Return the times that may be bounded, in seconds, at the rates of the table."""
        return {
            "ttft_s": self.ttft_s,
            "itl_s": self.itl_s,
            "p95_ttft_s": self.p95_ttft_s,
            "p95_itl_s": self.p95_itl_s,
            "p95_latency_s": self.p95_latency_s,
        }

    def busy_at(self, rate_per_s: FloatArray) -> FloatArray:
        """Return the share of the time in which it is busy at the rates given."""
        return np.interp(rate_per_s, self.rate_per_s, self.busy_share)

    def _at(self, rate_per_s: FloatArray, times_s: FloatArray) -> FloatArray:
        return np.interp(rate_per_s, self.rate_per_s, times_s, right=np.inf)

    def perturbed(self, *, step_factor: float = 1.0, power_factor: float = 1.0) -> "ReplicaTable":
        """Return the table of the same replica with all steps `step_factor` times as long.

        Then it is in the same state at 1 / `step_factor` of the rate. `power_factor` multiplies
        the watts above its idle power, up to TDP.
        """
        above_idle_w = power_factor * (self.power_w - self.idle_w)
        return replace(
            self,
            rate_per_s=self.rate_per_s / step_factor,
            power_w=np.minimum(self.idle_w + above_idle_w, self.tdp_w),
            latency_s=self.latency_s * step_factor,
            ttft_s=self.ttft_s * step_factor,
            itl_s=self.itl_s * step_factor,
            p95_ttft_s=self.p95_ttft_s * step_factor,
            p95_itl_s=self.p95_itl_s * step_factor,
            p95_latency_s=self.p95_latency_s * step_factor,
            max_rate_per_s=self.max_rate_per_s / step_factor,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineShape:
    """Hold all that a replica's figures depend on, apart from its model and lengths.

    Attributes:
        max_num_seqs: Its largest batch.
        is_linked: True if NVLink joins its GPUs; otherwise they communicate over PCIe.
    """

    gpu_type: GpuType
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_num_seqs: int
    is_linked: bool = True

    @property
    def n_gpus(self) -> int:
        """Return the number of GPUs it runs on."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Compute tables and keep them; another load, reach or cluster needs no new ones.

    The factors make the tables of a world in which the profiles are wrong, see
    `ReplicaTable.perturbed`.
    """

    step_factor: float = 1.0
    power_factor: float = 1.0
    _made: dict[Hashable, ReplicaTable] = field(default_factory=dict)

    def of(self, tier: TierDemand, shape: EngineShape) -> ReplicaTable:
        """Return the table of a replica of `tier` in this shape, with its GPUs to itself."""
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


def _tabulated(tier: TierDemand, shape: EngineShape) -> ReplicaTable:
    gpu = shape.gpu_type if shape.is_linked else without_nvlink(shape.gpu_type)
    sizes = (shape.tensor_parallel_size, shape.pipeline_parallel_size)
    profile = profile_of(tier.profiles, shape.gpu_type, sizes)
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
    rate_per_s = _rates_to_tabulate(max_rate_per_s)
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
    # The model was fitted on GPUs with NVLink; a profile of this shape was measured on its link.
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


def _rates_to_tabulate(max_rate_per_s: float) -> FloatArray:
    """Return 0, then rates that rise by equal factors to just below `max_rate_per_s`."""
    rising = np.geomspace(_SMALLEST_UTILISATION, _LARGEST_UTILISATION, _N_RATES)
    return np.concatenate([[0.0], max_rate_per_s * rising])


def _max_rate_per_s(curve: BatchCurve, tier: TierDemand) -> float:
    """Return the rate that a full batch serves, or that prompts one by one allow: the lower one."""
    full = float(requests_per_s(curve, tier.output_tokens)[-1])
    prompt_s = tier.prompt_tokens * (curve.prefill_token_s or 0.0)
    return min(full, 1 / prompt_s) if prompt_s > 0 else full


def profile_of(profiles: Sequence[Profile], gpu: GpuType, sizes: tuple[int, int]) -> Profile | None:
    """Return the last profile measured on this GPU type with these parallel sizes, or None."""
    for profile in reversed(profiles):
        own = (profile.tensor_parallel_size, profile.pipeline_parallel_size)
        if profile.gpu is not None and gpu_type(profile.gpu).name == gpu.name and own == sizes:
            return profile
    return None
