"""Power of a GPU in a decoding step, by how busy its memory and its tensor cores are."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.step_model import (
    H100_STEP,
    StepConstants,
    flops_s,
    stage_batch,
    stage_time_s,
)
from hybridserve_llm.profiles.step_work import Floats, StepWork, step_work


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerConstants:
    """Shares of TDP: of a busy GPU as such, and at full use of bandwidth and of compute."""

    busy_share: float
    bandwidth_share: float
    compute_share: float
    gpu: str = "H100-80GB"


H100_POWER = PowerConstants(busy_share=0.437, bandwidth_share=0.320, compute_share=0.853)


def power_w(
    facts: ModelFacts,
    gpu: GpuType,
    *,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    prefill_ratio: ArrayLike,
    constants: PowerConstants = H100_POWER,
    step_constants: StepConstants = H100_STEP,
) -> Floats:
    """Watts of each GPU of a replica that decodes `batch` sequences without a pause, [n].

    Arguments are those of `step_time_s`. A pipeline with fewer sequences than stages leaves stages
    waiting; these draw what an awake GPU draws.
    """
    work = step_work(
        facts,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        batch=stage_batch(batch, pipeline_parallel_size),
        context_tokens=context_tokens,
        prefill_ratio=prefill_ratio,
    )
    stage_s = stage_time_s(facts, gpu, work, step_constants)
    busy_w = busy_power_w(facts, gpu, work, stage_s, constants)
    sequences = np.asarray(batch, dtype=np.float64)
    busy_share = np.minimum(sequences / pipeline_parallel_size, 1.0)
    if pipeline_parallel_size == 1:
        return busy_w
    return np.asarray(busy_share * busy_w + (1 - busy_share) * gpu.idle_awake_w)


def busy_power_w(
    facts: ModelFacts,
    gpu: GpuType,
    work: StepWork,
    stage_s: Floats,
    constants: PowerConstants,
) -> Floats:
    """Watts of a GPU that does `work` in `stage_s` seconds.

    `TDP * min(1, busy + bandwidth * memory use + compute * compute use)`, a use being what the step
    needs over what the datasheet allows in its time.
    """
    memory_use = (work.weight_bytes + work.kv_bytes) / (stage_s * gpu.bandwidth_bytes_s)
    compute_use = work.flops / (stage_s * flops_s(facts, gpu))
    share = (
        constants.busy_share
        + constants.bandwidth_share * memory_use
        + constants.compute_share * compute_use
    )
    return np.asarray(gpu.tdp_w * np.minimum(share, 1.0))
