"""Compute step time and power of a replica over its batch, from the model, a profile, or both.

A table, which is three points or more, is read between its points and never beyond them. Step time
is linear over the batch, as a step is a fixed part and one that grows with the batch. Watts are
linear in logarithms. The fitted model may go beyond: there the ratio of measurement to model stays
as it is at the nearest point, and the grade says so. Fewer points correct the model between them.

`hs-profile --check` judges this reading, and the planner uses the same. At a batch inside the table
and the profile's own lengths both agree to the last digit.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.correction import (
    corrected_time_s,
    correction_factor,
    read_power_w,
    read_time_s,
)
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type
from hybridserve_llm.profiles.grades import Grade
from hybridserve_llm.profiles.power_model import H100_POWER, PowerConstants, power_w
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.step_model import (
    H100_STEP,
    StepConstants,
    prefill_token_s,
    step_time_s,
)
from hybridserve_llm.profiles.step_work import Floats

_POINTS_OF_A_TABLE = 3
_SAME_LENGTH = 0.05
"""Lengths count as those of the profile where they differ by no more than this share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCurve:
    """Describe a replica at every batch from 1 to its `max_num_seqs`.

    Attributes:
        batch: Sequences that decode at a time: 1, 2, ... [n].
        step_time_s: Seconds from one token of a sequence to its next, [n].
        power_w: Watts of all GPUs of the replica together, [n]; None where not known.
        prefill_token_s: Seconds that each prompt token takes; None where not known.
        grade: The grade of `step_time_s` and `power_w` over the whole curve.
        measured_to: Up to this batch both are read from a table; 0 for none.
        ttft_s: Measured mean seconds to the first token with so many requests in flight, their
            prompts included, [n]; None where nobody measured it.
        itl_s: Measured mean seconds between two tokens of a request, without the wait for the
            first, [n]; None where nobody measured it.
    """

    batch: Floats
    step_time_s: Floats
    power_w: Floats | None
    prefill_token_s: float | None
    grade: Grade
    measured_to: int = 0
    ttft_s: Floats | None = None
    itl_s: Floats | None = None


def batch_curve(
    facts: ModelFacts,
    gpu: GpuType,
    *,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    max_num_seqs: int,
    context_tokens: float,
    prefill_ratio: float,
    profile: Profile | None = None,
    step_constants: StepConstants = H100_STEP,
    power_constants: PowerConstants = H100_POWER,
) -> BatchCurve:
    """Return the fitted model's curve, corrected by `profile` where there is one.

    Inside a table the profile is read, beyond it the model is corrected. Where the profile was
    measured with other prompts and answers, the model carries it over. The factor of the correction
    is measured over modelled, both at the profile's own lengths. Then nothing is graded `measured`.

    Args:
        facts: The model.
        gpu: The GPU type that it runs on.
        tensor_parallel_size: GPUs that share every layer.
        pipeline_parallel_size: Stages that share the layers.
        max_num_seqs: The largest batch.
        context_tokens: Mean tokens that a sequence has in its KV cache.
        prefill_ratio: Prompt tokens computed per output token.
        profile: Measurements of this model on this hardware.
        step_constants: Fitted constants of time.
        power_constants: Fitted constants of power.

    Raises:
        ConfigError: `profile` is of another GPU type or of other parallel sizes.
    """
    replica = _Replica(
        facts=facts,
        gpu=gpu,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        step_constants=step_constants,
        power_constants=power_constants,
    )
    batch = np.arange(1, max_num_seqs + 1, dtype=np.float64)
    time_s, watts = replica.modelled(batch, context_tokens, prefill_ratio)
    grade: Grade = "fleet-fit" if step_constants.gpu == gpu.name else "datasheet"
    measured_to = 0
    if profile is not None:
        replica.check(profile)
        time_s, watts = replica.corrected(profile, batch, time_s, watts)
        if _is_same_length(profile, context_tokens, prefill_ratio):
            measured_to = min(_measured_to(profile), max_num_seqs)
        grade = "measured" if measured_to == max_num_seqs else "calibrated-2pt"
    return BatchCurve(
        batch=batch,
        step_time_s=time_s,
        power_w=watts,
        prefill_token_s=replica.prefill_token_s(),
        grade=grade,
        measured_to=measured_to,
    )


def curve_of_profile(profile: Profile, max_num_seqs: int | None = None) -> BatchCurve:
    """Return a profile alone as a curve, read between its points; power may be None.

    Args:
        profile: Measured from one request at a time on.
        max_num_seqs: The largest batch; None for the largest that was measured.

    Raises:
        ConfigError: The curve would have to go beyond what was measured.
    """
    at = np.array([point.concurrency for point in profile.points])
    last = int(at[-1]) if max_num_seqs is None else max_num_seqs
    if at[0] > 1 or last > at[-1] or last < 1:
        raise ConfigError(
            f"the profile of {profile.model} was measured at {at[0]:g} to {at[-1]:g} requests at a "
            f"time, which does not cover 1 to {last}; a table alone is not extrapolated"
        )
    batch = np.arange(1, last + 1, dtype=np.float64)
    watts = _powers(profile)
    return BatchCurve(
        batch=batch,
        step_time_s=read_time_s(batch, at=at, measured=_times(profile)),
        power_w=None if watts is None else read_power_w(batch, at=at, measured=watts),
        prefill_token_s=None,
        grade="measured",
        measured_to=last,
        ttft_s=_between(batch, at, [point.ttft_s for point in profile.points]),
        itl_s=_between(batch, at, [point.itl_s for point in profile.points]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Replica:
    """Hold one replica and the constants of its model."""

    facts: ModelFacts
    gpu: GpuType
    tensor_parallel_size: int
    pipeline_parallel_size: int
    step_constants: StepConstants
    power_constants: PowerConstants

    def modelled(
        self, batch: Floats, context_tokens: float, prefill_ratio: float
    ) -> tuple[Floats, Floats]:
        """Return step time and power of the whole replica."""
        time_s = step_time_s(
            self.facts,
            self.gpu,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            batch=batch,
            context_tokens=context_tokens,
            prefill_ratio=prefill_ratio,
            constants=self.step_constants,
        )
        watts = power_w(
            self.facts,
            self.gpu,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            batch=batch,
            context_tokens=context_tokens,
            prefill_ratio=prefill_ratio,
            constants=self.power_constants,
            step_constants=self.step_constants,
        )
        return time_s, watts * (self.tensor_parallel_size * self.pipeline_parallel_size)

    def prefill_token_s(self) -> float:
        """Return the seconds that each prompt token takes."""
        return prefill_token_s(
            self.facts,
            self.gpu,
            tensor_parallel_size=self.tensor_parallel_size,
            pipeline_parallel_size=self.pipeline_parallel_size,
            constants=self.step_constants,
        )

    def corrected(
        self, profile: Profile, batch: Floats, time_s: Floats, watts: Floats
    ) -> tuple[Floats, Floats]:
        """Return step time and power, corrected so that they meet the profile.

        Power stays as modelled where none was measured. The profile's own lengths give the factor;
        the model carries it over to other lengths.
        """
        at = np.array([point.concurrency for point in profile.points])
        context = profile.prompt_tokens + profile.output_tokens / 2
        ratio = profile.prompt_tokens / profile.output_tokens
        time_at, watts_at = self.modelled(at, context, ratio)
        own_time, own_watts = self.modelled(batch, context, ratio)
        is_read = (at[0] <= batch) & (batch <= at[-1]) & (len(at) >= _POINTS_OF_A_TABLE)
        met = corrected_time_s(
            batch, own_time, at=at, measured=_times(profile), modelled_at=time_at
        )
        met = np.where(is_read, read_time_s(batch, at=at, measured=_times(profile)), met)
        time_s = time_s * met / own_time
        if (measured_w := _powers(profile)) is not None:
            factor = correction_factor(batch, at=at, measured=measured_w, modelled=watts_at)
            read_w = read_power_w(batch, at=at, measured=measured_w)
            watts = watts * np.where(is_read, read_w / own_watts, factor)
        return time_s, watts

    def check(self, profile: Profile) -> None:
        """Raise ConfigError where `profile` is not of this replica's hardware."""
        if profile.gpu is None or gpu_type(profile.gpu).name != self.gpu.name:
            raise ConfigError(
                f"the profile of {profile.model} was measured on {profile.gpu or 'a CPU'}, "
                f"the replica runs on {self.gpu.name}"
            )
        sizes = (profile.tensor_parallel_size, profile.pipeline_parallel_size)
        if sizes != (self.tensor_parallel_size, self.pipeline_parallel_size):
            raise ConfigError(
                f"the profile of {profile.model} was measured with tensor_parallel_size "
                f"{sizes[0]} and pipeline_parallel_size {sizes[1]}, the replica has "
                f"{self.tensor_parallel_size} and {self.pipeline_parallel_size}"
            )


def _measured_to(profile: Profile) -> int:
    """Return the largest batch of which a table from 1 on holds time and power; 0 for none."""
    first, last = profile.points[0].concurrency, profile.points[-1].concurrency
    is_table = len(profile.points) >= _POINTS_OF_A_TABLE and profile.has_power and first <= 1
    return math.floor(last) if is_table else 0


def _is_same_length(profile: Profile, context_tokens: float, prefill_ratio: float) -> bool:
    """Return True where these are the lengths that `profile` was measured with."""
    context = profile.prompt_tokens + profile.output_tokens / 2
    ratio = profile.prompt_tokens / profile.output_tokens
    return math.isclose(context_tokens, context, rel_tol=_SAME_LENGTH) and math.isclose(
        prefill_ratio, ratio, rel_tol=_SAME_LENGTH
    )


def _times(profile: Profile) -> Floats:
    return np.array([point.step_time_s for point in profile.points])


def _powers(profile: Profile) -> Floats | None:
    watts = [point.power_w for point in profile.points if point.power_w is not None]
    return np.array(watts) if profile.has_power else None


def _between(batch: Floats, at: Floats, values: Sequence[float | None]) -> Floats | None:
    """Interpolate linearly over the batch; None where any value is missing."""
    known = [value for value in values if value is not None]
    return np.asarray(np.interp(batch, at, known)) if len(known) == len(values) else None
