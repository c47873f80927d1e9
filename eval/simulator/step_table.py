"""Look up the seconds and joules of every step of a replica, instead of computing them.

The planner's model of time and power is a sum: of a part for the tokens that a step computes, one
for the sequences in it, and one for the tokens in the KV cache. So three tables hold all of it, and
many steps with the same sequences have a sum in closed form.
"""

from dataclasses import dataclass, replace

import numpy as np

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.curve import batch_curve
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.grades import Grade, worst_grade
from hybridserve_llm.profiles.power_model import H100_POWER, PowerConstants
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.step_model import (
    H100_STEP,
    StageTime,
    StepConstants,
    stage_time,
)
from hybridserve_llm.profiles.step_work import Floats, StepWork, step_work


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaShape:
    """Hold the values that decide what a replica's steps take.

    Attributes:
        max_num_seqs: Sequences that run at a time.
        max_num_batched_tokens: Tokens that a step computes at most, of prompts and of answers.
        kv_cache_tokens: Tokens that the KV cache holds.
        max_model_len: Tokens of a request, prompt and answer, at most; None for what the KV cache
            holds.
    """

    facts: ModelFacts
    gpu: GpuType
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_tokens: int
    max_model_len: int | None = None

    @property
    def n_gpus(self) -> int:
        """Return the number of GPUs of the replica."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTable:
    """Hold the seconds and joules of a step; joules are of all GPUs of the replica.

    A step of b sequences that decode, p prompts with c tokens in all, and k tokens in the caches of
    the b takes

        factor[b] * (tokens_s[b + c] + sequence_s * (b + p) + cached_s[b] * k)

    seconds, and the joules alike.

    Attributes:
        tokens_s: By tokens computed, [max_num_batched_tokens + max_num_seqs + 1].
        tokens_j: The same in joules.
        cached_s: A cached token, by sequences that decode, [max_num_seqs + 1].
        cached_j: A cached token.
        factor: What a profile corrects time by, [max_num_seqs + 1]; 1 without one.
        power_factor: The profile's correction of power.
        power_limit_w: TDP of all GPUs, which work keeps to on average.
        idle_w: Of all GPUs, while the engine waits or loads.
        parked_w: Of all GPUs, without an engine.
        max_request_tokens: Prompt and answer of a request that it takes, at most.
        n_gpus: GPUs of the replica.
    """

    tokens_s: tuple[float, ...]
    tokens_j: tuple[float, ...]
    sequence_s: float
    sequence_j: float
    cached_s: tuple[float, ...]
    cached_j: float
    factor: tuple[float, ...]
    power_factor: tuple[float, ...]
    power_limit_w: float
    idle_w: float
    parked_w: float
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_tokens: int
    max_request_tokens: int
    n_gpus: int
    grade: Grade

    def scaled(self, *, step: float = 1.0, prompt: float = 1.0) -> "StepTable":
        """Return the table with longer steps: `step` times, prompt tokens further `prompt` times.

        Power stays: joules grow with the seconds.
        """
        first = self.tokens_s[1]
        seconds = [self.tokens_s[0], *(first + prompt * (s - first) for s in self.tokens_s[1:])]
        joules = [
            j * s / old for j, s, old in zip(self.tokens_j, seconds, self.tokens_s, strict=True)
        ]
        return replace(
            self,
            tokens_s=tuple(seconds),
            tokens_j=tuple(joules),
            factor=tuple(step * factor for factor in self.factor),
        )


def step_table(
    shape: ReplicaShape,
    *,
    prompt_tokens: float,
    output_tokens: float,
    profile: Profile | None = None,
    step_constants: StepConstants = H100_STEP,
    power_constants: PowerConstants = H100_POWER,
) -> StepTable:
    """Return the table of a replica.

    Source: `hybridserve_llm/profiles/step_model.py` and `power_model.py`. Deviations: a layer with
    a window sees its share of a cache of mean length. The limit of power is kept over a second of
    work, not in each step. A prompt in a step counts as a sequence there.

    Args:
        shape: The replica.
        prompt_tokens: Mean of the requests; a profile's correction is carried over at it.
        output_tokens: Mean of the answers, likewise.
        profile: Measurements of this model in this shape.
        step_constants: What is fitted of time.
        power_constants: What is fitted of power.

    Raises:
        ConfigError: `profile` is of other hardware.
    """
    pp = shape.pipeline_parallel_size
    tokens = np.arange(shape.max_num_batched_tokens + shape.max_num_seqs + 1, dtype=np.float64)
    in_stage = np.maximum(tokens / pp, 1.0)
    law = _Law(shape, step_constants, power_constants)
    fixed = law.stage(in_stage, context_tokens=0.0)
    # Sampling and states are by sequence, not by token: `sequence_s` adds them.
    sequence_s, sequence_j = law.sequence()
    stage_s = fixed.total_s - sequence_s * in_stage
    stage_j = law.joules(fixed) - sequence_j * in_stage
    cached_s, cached_j = law.cached_token(max(prompt_tokens + output_tokens / 2, 1.0))
    per_stage = np.maximum(pp / np.maximum(np.arange(shape.max_num_seqs + 1), 1), 1.0)
    idle_w, idle_grade = _idle(shape, profile)
    factor, power_factor, grade = _corrections(
        shape, prompt_tokens, output_tokens, profile, step_constants, power_constants
    )
    return StepTable(
        tokens_s=tuple((pp * stage_s).tolist()),
        tokens_j=tuple(law.pipeline_joules(tokens, stage_s, stage_j).tolist()),
        sequence_s=sequence_s,
        sequence_j=sequence_j,
        cached_s=tuple((cached_s * per_stage).tolist()),
        cached_j=cached_j,
        factor=factor,
        power_factor=power_factor,
        power_limit_w=shape.gpu.tdp_w * shape.n_gpus,
        idle_w=idle_w,
        parked_w=shape.gpu.idle_bare_w * shape.n_gpus,
        max_num_seqs=shape.max_num_seqs,
        max_num_batched_tokens=shape.max_num_batched_tokens,
        kv_cache_tokens=shape.kv_cache_tokens,
        max_request_tokens=min(shape.kv_cache_tokens, shape.max_model_len or shape.kv_cache_tokens),
        n_gpus=shape.n_gpus,
        grade=worst_grade([grade, idle_grade]),
    )


@dataclass(frozen=True, slots=True)
class _Law:
    """Return the planner's model of a stage, with joules of all GPUs in place of watts of one."""

    shape: ReplicaShape
    step: StepConstants
    power: PowerConstants

    @property
    def busy_w(self) -> float:
        """Return the watts that all GPUs draw in any step, before its work is counted."""
        return self.power.busy_share * self.shape.gpu.tdp_w * self.shape.n_gpus

    def stage(self, batch: Floats, context_tokens: float) -> StageTime:
        work: StepWork = step_work(
            self.shape.facts,
            tensor_parallel_size=self.shape.tensor_parallel_size,
            pipeline_parallel_size=self.shape.pipeline_parallel_size,
            batch=batch,
            context_tokens=context_tokens,
            prefill_ratio=0.0,
            expert_spread=self.step.expert_spread,
        )
        return stage_time(self.shape.facts, self.shape.gpu, work, self.step)

    def sequence(self) -> tuple[float, float]:
        """Return the seconds and joules of a sequence in a step, for sampling and its states."""
        empty = self.stage(np.ones(1), context_tokens=0.0)
        state_s = float(empty.caching_s[0])
        tdp_w = self.shape.gpu.tdp_w * self.shape.n_gpus
        seconds = self.step.sequence_s + state_s
        return seconds, self.busy_w * seconds + tdp_w * self.power.caching_share * state_s

    def cached_token(self, context_tokens: float) -> tuple[float, float]:
        """Return the seconds and joules of a cached token, at a cache of `context_tokens`."""
        empty, full = self.stage(np.ones(1), 0.0), self.stage(np.ones(1), context_tokens)
        seconds = float((full.total_s - empty.total_s)[0])
        joules = float((self.joules(full) - self.joules(empty))[0])
        return seconds / context_tokens, joules / context_tokens

    def pipeline_joules(self, tokens: Floats, stage_s: Floats, stage_j: Floats) -> Floats:
        """Return the joules of all stages; with fewer tokens than stages some stages wait."""
        pp = self.shape.pipeline_parallel_size
        busy = np.minimum(tokens / pp, 1.0) if pp > 1 else np.ones_like(tokens)
        idle_w = self.shape.gpu.idle_awake_w * self.shape.n_gpus
        return np.asarray(pp * (busy * stage_j + (1 - busy) * idle_w * stage_s))

    def joules(self, stage: StageTime) -> Floats:
        tdp_w, law = self.shape.gpu.tdp_w * self.shape.n_gpus, self.power
        above = (
            law.reading_share * stage.reading_s
            + law.caching_share * stage.caching_s
            + law.computing_share * stage.computing_s
        )
        return np.asarray(self.busy_w * stage.total_s + tdp_w * above)


def _idle(shape: ReplicaShape, profile: Profile | None) -> tuple[float, Grade]:
    """Return the watts of the replica's GPUs while it waits, and what they rest on."""
    if profile is not None and profile.idle_w is not None:
        return profile.idle_w, "measured"
    return shape.gpu.idle_awake_w * shape.n_gpus, shape.gpu.idle_grade


def _corrections(
    shape: ReplicaShape,
    prompt_tokens: float,
    output_tokens: float,
    profile: Profile | None,
    step_constants: StepConstants,
    power_constants: PowerConstants,
) -> tuple[tuple[float, ...], tuple[float, ...], Grade]:
    """Return the profile's factors on time and power at 0, 1, ... sequences, and the grade."""
    modelled, corrected = (
        batch_curve(
            shape.facts,
            shape.gpu,
            tensor_parallel_size=shape.tensor_parallel_size,
            pipeline_parallel_size=shape.pipeline_parallel_size,
            max_num_seqs=shape.max_num_seqs,
            context_tokens=prompt_tokens + output_tokens / 2,
            prefill_ratio=prompt_tokens / output_tokens,
            profile=used,
            step_constants=step_constants,
            power_constants=power_constants,
        )
        for used in (None, profile)
    )
    if modelled.power_w is None or corrected.power_w is None:
        raise ValueError("the fitted model always gives power")
    time = corrected.step_time_s / modelled.step_time_s
    power = corrected.power_w / modelled.power_w
    return (time[0], *time.tolist()), (power[0], *power.tolist()), corrected.grade
