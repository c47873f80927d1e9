"""The steps of an engine whose hardware has no model, from closed-loop windows: a demo engine's.

With c requests in flight whose prompts have P tokens and whose answers L, a sequence gets a token
every `c / output_tokens_per_s` seconds. Once in L steps it has a prompt instead of a token, so

    c / output_tokens_per_s = fixed + c * sequence + (P - 1) * c / L * prompt_token

Windows of two lengths tell the three apart, by least squares of relative errors, none below 0. What
is left over at each c corrects the steps of c sequences. CPU-seconds of a step go the same way, in
the place that joules have elsewhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from eval.simulator.step_table import StepTable
from eval.simulator.workload import Floats
from eval.studies.live_engine import Window
from hybridserve_llm.errors import CannotBeDone


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLimits:
    """What the engine was started with."""

    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLaw:
    """Seconds, or CPU-seconds, of a step; `factors` by the sequences that were measured."""

    fixed: float
    sequence: float
    prompt_token: float
    factors: tuple[tuple[int, float], ...]

    def factor(self, sequences: Floats) -> Floats:
        """Between measured numbers of sequences on a straight line; beyond them the nearest."""
        at, factors = zip(*self.factors, strict=True)
        return np.asarray(np.interp(sequences, at, factors))


def step_law(windows: Sequence[Window], step: Sequence[float]) -> StepLaw:
    """The law that fits best; `step` are the seconds of a step in each window.

    Raises:
        CannotBeDone: Fewer than three windows, or windows of one length alone.
    """
    if len({window.lengths for window in windows}) < 2 or len(windows) < 3:
        raise CannotBeDone("a step is calibrated by three windows at least, of two lengths")
    rows = np.array(
        [
            (
                1.0,
                window.concurrency,
                (window.lengths.prompt_tokens - 1)
                * window.concurrency
                / window.lengths.output_tokens,
            )
            for window in windows
        ]
    )
    measured = np.array(step)
    (fixed, sequence, prompt_token), _ = nnls(rows / measured[:, None], np.ones(len(measured)))
    ratios = measured / (rows @ np.array([fixed, sequence, prompt_token]))
    at = sorted({window.concurrency for window in windows})
    factors = tuple(
        (c, float(np.exp(np.mean([np.log(r) for w, r in _zipped(windows, ratios, c)])))) for c in at
    )
    return StepLaw(
        fixed=float(fixed),
        sequence=float(sequence),
        prompt_token=float(prompt_token),
        factors=factors,
    )


def calibrated_table(
    windows: Sequence[Window], limits: EngineLimits, *, idle_cores: float | None
) -> StepTable:
    """The table of the engine; its "joules" are CPU-seconds, 0 where nobody measured them.

    Raises:
        CannotBeDone: No tokens were made in a window, or the windows do not tell.
    """
    if any(window.output_tokens_per_s <= 0 for window in windows):
        raise CannotBeDone("an engine made no token in a window: give a longer --window-s")
    step_s = [window.concurrency / window.output_tokens_per_s for window in windows]
    time = step_law(windows, step_s)
    cores = [window.engine_cores or 0.0 for window in windows]
    is_measured = all(core > 0 for core in cores)
    cpu = (
        step_law(windows, [s * core for s, core in zip(step_s, cores, strict=True)])
        if is_measured
        else StepLaw(fixed=0.0, sequence=0.0, prompt_token=0.0, factors=time.factors)
    )
    n = np.arange(limits.max_num_batched_tokens + limits.max_num_seqs + 1, dtype=np.float64)
    sequences = np.arange(limits.max_num_seqs + 1, dtype=np.float64)
    time_factor, cpu_factor = time.factor(sequences), cpu.factor(sequences)
    return StepTable(
        tokens_s=tuple((time.fixed + time.prompt_token * n).tolist()),
        tokens_j=tuple((cpu.fixed + cpu.prompt_token * n).tolist()),
        # A token that is decoded is in `tokens_s` with a prompt token's seconds already.
        sequence_s=time.sequence - time.prompt_token,
        sequence_j=cpu.sequence - cpu.prompt_token,
        cached_s=(0.0,) * (limits.max_num_seqs + 1),
        cached_j=0.0,
        factor=tuple(time_factor.tolist()),
        power_factor=tuple((cpu_factor / time_factor).tolist()),
        power_limit_w=np.inf,
        idle_w=idle_cores or 0.0,
        parked_w=0.0,
        max_num_seqs=limits.max_num_seqs,
        max_num_batched_tokens=limits.max_num_batched_tokens,
        kv_cache_tokens=limits.kv_cache_tokens,
        max_request_tokens=limits.kv_cache_tokens,
        n_gpus=0,
        grade="calibrated-2pt",
    )


def _zipped(windows: Sequence[Window], ratios: Floats, c: int) -> list[tuple[Window, float]]:
    return [
        (window, float(ratio))
        for window, ratio in zip(windows, ratios, strict=True)
        if window.concurrency == c
    ]
