"""How far the fitted model is off on models it was not fitted to, and after two measurements.

* Leave one model out (LOMO): a model's runs are predicted by constants fitted to all other models.
  By hub id; and, stricter, by shape: models of equal facts (Llama 3.1 and 3.3 70B) are left out
  together.
* Two points: the prediction of leave-one-model-out, corrected by the runs at the smallest and the
  largest batch of each curve; only the runs between these two are scored.
* Table: every run between the first and the last of a curve is read off a table of the others, no
  model in it; of curves of four runs and more, so that a table has three.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from eval.studies.planner_fit_constants import Fit, fit_constants
from eval.studies.planner_fit_points import MeasuredCurve
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.correction import (
    corrected_time_s,
    correction_factor,
    read_power_w,
    read_time_s,
)
from hybridserve_llm.profiles.step_work import Floats

Family = Literal["dense", "moe", "hybrid"]
_CALIBRATION_POINTS = [0, -1]
_POINTS_OF_A_TABLE = 3


def family_of(facts: ModelFacts) -> Family:
    """Mixture of experts, hybrid of attention and Mamba, or neither."""
    if facts.n_experts:
        return "moe"
    return "hybrid" if facts.state_bytes_per_sequence else "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """Predicted over measured at runs of a curve, [n]; energy is that of a token."""

    curve: MeasuredCurve
    step_time: Floats
    energy: Floats | None


def fitted_on(curves: Sequence[MeasuredCurve]) -> list[MeasuredCurve]:
    """The curves that constants are fitted to: hybrids run kernels of their own, and are not."""
    return [curve for curve in curves if family_of(curve.facts) != "hybrid"]


def by_id(curve: MeasuredCurve) -> Hashable:
    """The model by its name."""
    return curve.model


def by_shape(curve: MeasuredCurve) -> Hashable:
    """The model by its facts."""
    return curve.facts.model_dump_json()


def left_out(
    curves: Sequence[MeasuredCurve], full: Fit, model_of: Callable[[MeasuredCurve], Hashable]
) -> list[tuple[MeasuredCurve, Fit]]:
    """Every curve with the constants fitted to all other models.

    Args:
        curves: All of one GPU type.
        full: What fits all of them, to begin from.
        model_of: What makes two curves one model.
    """
    pairs = []
    for model in dict.fromkeys(map(model_of, curves)):
        others = [curve for curve in fitted_on(curves) if model_of(curve) != model]
        fit = fit_constants(others, gpu=full.step.gpu, start=full)
        pairs += [(curve, fit) for curve in curves if model_of(curve) == model]
    return pairs


def predicted(curve: MeasuredCurve, fit: Fit) -> Ratios:
    """The fit against every run of the curve."""
    times = fit.step_time_s(curve) / curve.step_time_s
    if curve.power_w is None:
        return Ratios(curve=curve, step_time=times, energy=None)
    return Ratios(curve=curve, step_time=times, energy=times * fit.power_w(curve) / curve.power_w)


def after_two_points(curve: MeasuredCurve, fit: Fit) -> Ratios | None:
    """The corrected fit against the runs between the two; None where there are none between."""
    if len(np.unique(curve.batch)) != len(curve.batch) or len(curve.batch) <= 2:
        return None
    ends, inside = _CALIBRATION_POINTS, slice(1, -1)
    times = fit.step_time_s(curve)
    corrected = corrected_time_s(
        curve.batch,
        times,
        at=curve.batch[ends],
        measured=curve.step_time_s[ends],
        modelled_at=times[ends],
    )
    of_time = (corrected / curve.step_time_s)[inside]
    if curve.power_w is None:
        return Ratios(curve=curve, step_time=of_time, energy=None)
    watts = fit.power_w(curve)
    factor = correction_factor(
        curve.batch, at=curve.batch[ends], measured=curve.power_w[ends], modelled=watts[ends]
    )
    of_power = (watts * factor / curve.power_w)[inside]
    return Ratios(curve=curve, step_time=of_time, energy=of_time * of_power)


def read_off_tables(curve: MeasuredCurve) -> Ratios | None:
    """Every inner run by a table of the curve's others; None where there are fewer than four."""
    n = len(curve.batch)
    if n <= _POINTS_OF_A_TABLE or len(np.unique(curve.batch)) != n:
        return None
    times, energy = [], []
    for i in range(1, n - 1):
        at, one = np.delete(curve.batch, i), curve.batch[i : i + 1]
        time_s = read_time_s(one, at=at, measured=np.delete(curve.step_time_s, i))
        times.append(time_s / curve.step_time_s[i])
        if curve.power_w is not None:
            watts = read_power_w(one, at=at, measured=np.delete(curve.power_w, i))
            energy.append(times[-1] * watts / curve.power_w[i])
    return Ratios(
        curve=curve,
        step_time=np.concatenate(times),
        energy=np.concatenate(energy) if energy else None,
    )


def mape(ratios: Iterable[Floats | None]) -> float | None:
    """Mean absolute error of predictions over measurements, in percent; None without any."""
    known = [values for values in ratios if values is not None]
    if not sum(len(values) for values in known):
        return None
    return float(100 * np.mean(np.abs(np.concatenate(known) - 1)))
