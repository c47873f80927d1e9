"""Compute the time of a decoding step: an additive roofline fitted to public measurements."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.step_work import Floats, StepWork, step_work


@dataclass(frozen=True, slots=True, kw_only=True)
class StepConstants:
    """Hold what the datasheet does not say of a step; fitted by `eval/studies/planner_fit.py`.

    Attributes:
        bandwidth_share: Share of the datasheet's bandwidth that is reached in reading weights.
        expert_bandwidth_share: The same in reading weights of routed experts.
        kv_bandwidth_share: The same in reading the KV cache.
        compute_share: Share of the datasheet's compute.
        expert_spread: Share of the tokens that choose experts of their own.
        fixed_s: Fixed seconds of any step.
        layer_s: Seconds of each layer.
        expert_layer_s: Further seconds of each layer of a mixture of experts.
        sequence_s: Seconds for each sequence of the batch: scheduling and sampling.
        all_reduce_s: Fixed seconds of an all-reduce of any size.
        fp8_factor: Seconds of a layer with 8-bit activations over those of one with 16.
        link_share: Share of the link's bandwidth that an all-reduce reaches; not fitted.
        gpu: Name of the GPU type of the fitted measurements.
    """

    bandwidth_share: float
    expert_bandwidth_share: float
    kv_bandwidth_share: float
    compute_share: float
    expert_spread: float
    fixed_s: float
    layer_s: float
    expert_layer_s: float
    sequence_s: float
    all_reduce_s: float
    fp8_factor: float
    link_share: float = 0.7
    gpu: str = "H100-80GB"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """Hold the seconds of one pipeline stage over one step, by cause; each of the batch's shape.

    Attributes:
        reading_s: Seconds in which weights are read.
        caching_s: Seconds in which the KV cache and states are read.
        computing_s: Seconds in which numbers are multiplied.
        talking_s: Seconds in which GPUs exchange results.
        fixed_s: Seconds of launching kernels, scheduling and sampling.
    """

    reading_s: Floats
    caching_s: Floats
    computing_s: Floats
    talking_s: Floats
    fixed_s: Floats

    @property
    def total_s(self) -> Floats:
        """Return the seconds of the stage."""
        return np.asarray(
            self.reading_s + self.caching_s + self.computing_s + self.talking_s + self.fixed_s
        )


# `eval/studies/planner_fit.py` on 371 runs of 26 dense and MoE models with vLLM 0.11 on H100, of
# the ML.ENERGY leaderboard v3 (github.com/ml-energy/leaderboard); see docs/planner-fit.md.
H100_STEP = StepConstants(
    bandwidth_share=0.873,
    expert_bandwidth_share=0.612,
    kv_bandwidth_share=0.760,
    compute_share=0.679,
    expert_spread=0.307,
    fixed_s=5.31e-4,
    layer_s=4.04e-5,
    expert_layer_s=8.70e-5,
    sequence_s=4.14e-5,
    all_reduce_s=6.87e-6,
    fp8_factor=3.37,
)


def step_time_s(
    facts: ModelFacts,
    gpu: GpuType,
    *,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    prefill_ratio: ArrayLike,
    constants: StepConstants = H100_STEP,
) -> Floats:
    """Return the seconds in which each of `batch` sequences gets one token.

    Prompts of others are included. With p pipeline stages the batch is cut into p parts that follow
    each other through the stages: a token takes p stage times of `batch / p` sequences, of one
    sequence at least.

    Args:
        facts: The model.
        gpu: The GPU type that it runs on.
        tensor_parallel_size: GPUs that share every layer.
        pipeline_parallel_size: Stages that share the layers.
        batch: Sequences that decode at a time, [n].
        context_tokens: Mean tokens that a sequence has in its KV cache, [n] or one.
        prefill_ratio: Prompt tokens computed per output token, [n] or one.
        constants: Fitted constants.
    """
    work = step_work(
        facts,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        batch=stage_batch(batch, pipeline_parallel_size),
        context_tokens=context_tokens,
        prefill_ratio=prefill_ratio,
        expert_spread=constants.expert_spread,
    )
    return pipeline_parallel_size * stage_time(facts, gpu, work, constants).total_s


def stage_batch(batch: ArrayLike, pipeline_parallel_size: int) -> Floats:
    """Return the sequences that are in one stage at a time."""
    sequences = np.asarray(batch, dtype=np.float64)
    if pipeline_parallel_size == 1:
        return sequences
    return np.maximum(sequences / pipeline_parallel_size, 1.0)


def stage_time(
    facts: ModelFacts, gpu: GpuType, work: StepWork, constants: StepConstants
) -> StageTime:
    """Return how long one pipeline stage takes for the work of one step, by cause.

    Terms add up: on measured engines reading, computing and communicating hardly overlap within a
    decoding step, and a maximum of them fits worse (docs/planner-fit.md).
    """
    is_8_bit = facts.matmul_bits == 8
    reading = (work.weight_bytes - work.expert_bytes) / constants.bandwidth_share
    reading = reading + work.expert_bytes / constants.expert_bandwidth_share
    messages = work.all_reduce_bytes / (constants.link_share * gpu.link_bytes_s)
    layer_s = constants.layer_s * (constants.fp8_factor if is_8_bit else 1.0)
    if facts.n_experts:
        layer_s += constants.expert_layer_s
    return StageTime(
        reading_s=reading / gpu.bandwidth_bytes_s,
        caching_s=work.kv_bytes / (constants.kv_bandwidth_share * gpu.bandwidth_bytes_s),
        computing_s=work.flops / (constants.compute_share * flops_s(facts, gpu)),
        talking_s=work.n_all_reduces * constants.all_reduce_s + messages,
        fixed_s=constants.fixed_s + work.n_layers * layer_s + work.batch * constants.sequence_s,
    )


def prefill_token_s(
    facts: ModelFacts,
    gpu: GpuType,
    *,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    constants: StepConstants = H100_STEP,
) -> float:
    """Return the seconds that one more prompt token adds to a step of one stage."""
    per_token = [
        float(
            step_time_s(
                facts,
                gpu,
                tensor_parallel_size=tensor_parallel_size,
                pipeline_parallel_size=pipeline_parallel_size,
                batch=1.0,
                context_tokens=0.0,
                prefill_ratio=ratio,
                constants=constants,
            )
        )
        for ratio in _PROMPT_CHUNKS
    ]
    return (per_token[1] - per_token[0]) / (_PROMPT_CHUNKS[1] - _PROMPT_CHUNKS[0])


# Two sizes of a prompt's chunk, both large enough to meet all experts of a mixture.
_PROMPT_CHUNKS = (1024.0, 2048.0)


def flops_s(facts: ModelFacts, gpu: GpuType) -> float:
    """Return the datasheet's operations per second, at the precision of the model's products."""
    if facts.matmul_bits == 8 and gpu.flops_fp8_s is not None:
        return gpu.flops_fp8_s
    return gpu.flops_s
