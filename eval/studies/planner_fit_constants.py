"""Fits the constants of step time and power to measured curves.

Step time: maximum a posteriori. What is minimised is the sum over runs of a soft-L1 loss of
`log(modelled / measured)`, so that relative errors count and wild runs count less, plus the squared
distance of every logarithm of a constant from its guess. The guesses keep a constant at a physical
value where runs do not tell it (compute, in decoding), and are all there is without runs.

What files of measurements do not say is fitted along and thrown away: prompt tokens of each task,
seconds that a request of a task costs beside its tokens (images), and how much of an answer is in
the cache in the mean.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
from scipy.optimize import least_squares

from eval.studies.planner_fit_points import MeasuredCurve
from hybridserve_llm.profiles.power_model import PowerConstants, busy_power_w
from hybridserve_llm.profiles.step_model import StageTime, StepConstants, stage_time
from hybridserve_llm.profiles.step_work import Floats, step_work

_USUAL_ERROR = 0.05


@dataclass(frozen=True, slots=True)
class _Guess:
    """The median and, of its logarithm, the standard deviation."""

    value: float
    spread: float


# Engineering guesses, not taken from the measurements that are fitted to.
_STEP_GUESSES: Mapping[str, _Guess] = {
    "bandwidth_share": _Guess(0.8, 0.1),
    "expert_bandwidth_share": _Guess(0.6, 0.3),
    "kv_bandwidth_share": _Guess(0.7, 0.15),
    "compute_share": _Guess(0.6, 0.05),
    "expert_spread": _Guess(0.7, 0.7),
    "fixed_s": _Guess(1.5e-3, 0.7),
    "layer_s": _Guess(1e-5, 1.0),
    "expert_layer_s": _Guess(3e-5, 1.0),
    "sequence_s": _Guess(2e-5, 1.0),
    "all_reduce_s": _Guess(1.5e-5, 0.5),
    "fp8_factor": _Guess(1.5, 0.5),
}
_CACHED_SHARE = _Guess(0.7, 0.3)
_PROMPT_TOKENS = _Guess(300.0, 1.0)
_REQUEST_S = _Guess(5e-3, 1.5)
# Busy, reading, caching, computing.
_POWER_GUESS = np.array([0.4, 0.3, 0.3, 0.5])
_POWER_SPREAD = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """Constants of one GPU type, and what was fitted along with them.

    Attributes:
        cached_share: Share of an answer that is in the cache, in the mean over sequences.
        prompt_tokens: By task.
        request_s: Seconds of a request beside its tokens, by task.
    """

    step: StepConstants
    power: PowerConstants
    cached_share: float
    prompt_tokens: Mapping[str, float]
    request_s: Mapping[str, float]

    def step_time_s(self, curve: MeasuredCurve) -> Floats:
        """Modelled seconds of a step at every run of `curve`."""
        return self._stage(curve).total_s

    def power_w(self, curve: MeasuredCurve) -> Floats:
        """Modelled watts of each GPU at every run of `curve`."""
        return busy_power_w(curve.gpu, self._stage(curve), self.power)

    def _stage(self, curve: MeasuredCurve) -> StageTime:
        task = curve.task
        return _stage(
            curve,
            self.step,
            self.cached_share,
            self.prompt_tokens.get(task, _PROMPT_TOKENS.value),
            self.request_s.get(task, _REQUEST_S.value),
        )


def fit_constants(curves: Sequence[MeasuredCurve], *, gpu: str, start: Fit | None = None) -> Fit:
    """The constants that fit `curves` best, all of the GPU type `gpu`; the guesses without curves.

    Power stays at its guess where no curve has any.

    Args:
        curves: Measured.
        gpu: Name of their GPU type.
        start: Where to begin; only saves time.
    """
    tasks = sorted({curve.task for curve in curves})
    guesses = _guesses(tasks)
    median = np.log([guess.value for guess in guesses])
    spread = np.array([guess.spread for guess in guesses])
    power_guess = _power_constants(_POWER_GUESS, gpu)

    def fit_of(logs: Floats, power: PowerConstants = power_guess) -> Fit:
        return _fit_of(np.exp(logs), tasks, power, gpu)

    def residuals(logs: Floats) -> Floats:
        fit = fit_of(logs)
        errors = [np.log(fit.step_time_s(curve) / curve.step_time_s) for curve in curves]
        return np.concatenate([*map(_softened, errors), (logs - median) / spread])

    begin = median if start is None else np.log(_values_of(start, tasks))
    solution = least_squares(residuals, begin, xtol=1e-4, ftol=1e-5)
    fit = fit_of(solution.x)
    return fit_of(solution.x, _fitted_power(fit, curves, gpu))


def _guesses(tasks: Sequence[str]) -> list[_Guess]:
    per_task = [_PROMPT_TOKENS] * len(tasks) + [_REQUEST_S] * len(tasks)
    return [*_STEP_GUESSES.values(), _CACHED_SHARE, *per_task]


def _fit_of(values: Floats, tasks: Sequence[str], power: PowerConstants, gpu: str) -> Fit:
    numbers = [float(value) for value in values]
    n_step, n_tasks = len(_STEP_GUESSES), len(tasks)
    step = dict(zip(_STEP_GUESSES, numbers[:n_step], strict=True))
    step["expert_spread"] = min(1.0, step["expert_spread"])
    of_tasks = numbers[n_step + 1 :]
    return Fit(
        step=StepConstants(**step, gpu=gpu),
        power=power,
        cached_share=numbers[n_step],
        prompt_tokens=dict(zip(tasks, of_tasks[:n_tasks], strict=True)),
        request_s=dict(zip(tasks, of_tasks[n_tasks:], strict=True)),
    )


def _values_of(fit: Fit, tasks: Sequence[str]) -> list[float]:
    step = [getattr(fit.step, name) for name in _STEP_GUESSES]
    prompts = [fit.prompt_tokens.get(task, _PROMPT_TOKENS.value) for task in tasks]
    requests = [fit.request_s.get(task, _REQUEST_S.value) for task in tasks]
    return [*step, fit.cached_share, *prompts, *requests]


def _stage(
    curve: MeasuredCurve,
    constants: StepConstants,
    cached_share: float,
    prompt_tokens: float,
    request_s: float,
) -> StageTime:
    work = step_work(
        curve.facts,
        tensor_parallel_size=curve.tensor_parallel_size,
        pipeline_parallel_size=1,
        batch=curve.batch,
        context_tokens=prompt_tokens + cached_share * curve.output_tokens,
        prefill_ratio=prompt_tokens / curve.output_tokens,
        expert_spread=constants.expert_spread,
    )
    stage = stage_time(curve.facts, curve.gpu, work, constants)
    # Of `batch` sequences batch / output_tokens begin in a step.
    beginning_s = request_s * curve.batch / curve.output_tokens
    return StageTime(
        reading_s=stage.reading_s,
        caching_s=stage.caching_s,
        computing_s=stage.computing_s,
        talking_s=stage.talking_s,
        fixed_s=np.asarray(stage.fixed_s + beginning_s),
    )


def _softened(errors: Floats) -> Floats:
    """Residuals whose squares are the soft-L1 loss `2 (sqrt(1 + z^2) - 1)` of scaled errors."""
    scaled = errors / _USUAL_ERROR
    return np.asarray(np.sign(scaled) * np.sqrt(2 * (np.sqrt(1 + scaled**2) - 1)))


def _fitted_power(fit: Fit, curves: Sequence[MeasuredCurve], gpu: str) -> PowerConstants:
    """Shares of power at the modelled shares of time, with the same loss."""
    known = [(curve, curve.power_w) for curve in curves if curve.power_w is not None]
    stages = [fit._stage(curve) for curve, _ in known]

    def residuals(shares: Floats) -> Floats:
        constants = _power_constants(shares, gpu)
        errors = [
            np.log(busy_power_w(curve.gpu, stage, constants) / watts)
            for (curve, watts), stage in zip(known, stages, strict=True)
        ]
        distance = (shares - _POWER_GUESS) / _POWER_SPREAD
        return np.concatenate([*map(_softened, errors), distance])

    bounds = (np.full(len(_POWER_GUESS), 1e-3), np.full(len(_POWER_GUESS), 3.0))
    return _power_constants(least_squares(residuals, _POWER_GUESS, bounds=bounds).x, gpu)


def _power_constants(shares: Floats, gpu: str) -> PowerConstants:
    names = [field.name for field in fields(PowerConstants) if field.name != "gpu"]
    numbers = [float(share) for share in shares]
    return PowerConstants(**dict(zip(names, numbers, strict=True)), gpu=gpu)
