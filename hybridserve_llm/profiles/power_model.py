"""Compute the power of a GPU in a decoding step from the parts of the step's time."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.step_model import (
    H100_STEP,
    StageTime,
    StepConstants,
    stage_batch,
    stage_time,
)
from hybridserve_llm.profiles.step_work import Floats, step_work


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerConstants:
    """Hold shares of TDP; fitted by `eval/studies/planner_fit.py`.

    Attributes:
        busy_share: Share of a GPU that runs any step.
        reading_share: Further share while weights are read.
        caching_share: Further share while the KV cache is read.
        computing_share: Further share while numbers are multiplied.
        gpu: Name of the GPU type of the fitted measurements.
    """

    busy_share: float
    reading_share: float
    caching_share: float
    computing_share: float
    gpu: str = "H100-80GB"


# Fitted together with `H100_STEP`, to the same runs.
H100_POWER = PowerConstants(
    busy_share=0.631, reading_share=0.001, caching_share=0.489, computing_share=0.630
)


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
    """Return the watts of each GPU of a replica that decodes `batch` without a pause, [n].

    Arguments are those of `step_time_s`. A pipeline with fewer sequences than stages leaves stages
    waiting; these draw as much as an awake GPU.
    """
    work = step_work(
        facts,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        batch=stage_batch(batch, pipeline_parallel_size),
        context_tokens=context_tokens,
        prefill_ratio=prefill_ratio,
        expert_spread=step_constants.expert_spread,
    )
    busy_w = busy_power_w(gpu, stage_time(facts, gpu, work, step_constants), constants)
    sequences = np.asarray(batch, dtype=np.float64)
    busy_share = np.minimum(sequences / pipeline_parallel_size, 1.0)
    if pipeline_parallel_size == 1:
        return busy_w
    return np.asarray(busy_share * busy_w + (1 - busy_share) * gpu.idle_awake_w)


def busy_power_w(gpu: GpuType, stage: StageTime, constants: PowerConstants) -> Floats:
    """Return the watts of a GPU while it works on a stage.

    `TDP * min(1, busy + reading * r + caching * k + computing * c)` with r, k and c the shares of
    the stage's time.

    Source: a linear law of power over utilisation, as of servers (Fan et al., ISCA 2007, section
    3.1). Deviation: shares of modelled time take the place of a measured utilisation.
    """
    total_s = stage.total_s
    share = (
        constants.busy_share
        + constants.reading_share * stage.reading_s / total_s
        + constants.caching_share * stage.caching_s / total_s
        + constants.computing_share * stage.computing_s / total_s
    )
    return np.asarray(gpu.tdp_w * np.minimum(share, 1.0))
