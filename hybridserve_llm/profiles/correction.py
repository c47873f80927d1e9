"""Measured points of a curve: read between them, or a modelled curve corrected by a few."""

import numpy as np
from numpy.typing import ArrayLike

from hybridserve_llm.profiles.step_work import Floats


def read_time_s(batch: ArrayLike, *, at: ArrayLike, measured: ArrayLike) -> Floats:
    """The step time at `batch`, [n], by a table: linear over the batch between two points.

    A step is a fixed part and one that grows with the batch. Interpolating logarithms is twice as
    far off on dense models (docs/planner-fit.md, Tables). Beyond the points it is the time at the
    nearest one: a caller that has no table there does not ask.

    Args:
        batch: Batches to read at, [n].
        at: Batches that were measured, rising, [k].
        measured: What was measured there, [k].
    """
    points, times = np.asarray(at, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    return np.asarray(np.interp(np.asarray(batch, dtype=np.float64), points, times))


def read_power_w(batch: ArrayLike, *, at: ArrayLike, measured: ArrayLike) -> Floats:
    """Watts at `batch`, [n], by a table: linear in the logarithms of both, as they level off.

    Arguments are those of `read_time_s`.
    """
    points, watts = np.log(np.asarray(at)), np.log(np.asarray(measured))
    return np.asarray(np.exp(np.interp(np.log(np.asarray(batch)), points, watts)))


def corrected_time_s(
    batch: ArrayLike,
    modelled: ArrayLike,
    *,
    at: ArrayLike,
    measured: ArrayLike,
    modelled_at: ArrayLike,
) -> Floats:
    """The modelled step time, corrected so that it meets what was measured, [n].

    A step's time is a sum of a fixed part and of parts that grow with the batch, and so is what the
    model lacks: the difference of measurement and model is interpolated linearly over the batch.
    Beyond the first and the last point the ratio of both stays what it is there; between points it
    stays within the ratios of all points, so that the time remains above 0.

    Args:
        batch: Batches to correct at, [n].
        modelled: What the model says at them, [n].
        at: Batches that were measured, rising, [k].
        measured: What was measured there, [k].
        modelled_at: What the model says there, [k].
    """
    batches, points = np.asarray(batch, dtype=np.float64), np.asarray(at, dtype=np.float64)
    times, known = np.asarray(modelled, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    known_times = np.asarray(modelled_at, dtype=np.float64)
    ratios = known / known_times
    inside = (times + np.interp(batches, points, known - known_times)) / times
    factor = np.clip(inside, ratios.min(), ratios.max())
    factor = np.where(batches <= points[0], ratios[0], factor)
    return np.asarray(times * np.where(batches >= points[-1], ratios[-1], factor))


def correction_factor(
    batch: ArrayLike, *, at: ArrayLike, measured: ArrayLike, modelled: ArrayLike
) -> Floats:
    """By what to multiply modelled power at `batch`, [n], so that it meets what was measured.

    The logarithm of measured over modelled is interpolated linearly over the logarithm of the
    batch; beyond the first and the last point the factor stays what it is there. One point gives a
    constant factor.

    Args:
        batch: Batches to correct at, [n].
        at: Batches that were measured, rising, [k].
        measured: What was measured there, [k].
        modelled: What the model says there, [k].
    """
    log_ratio = np.log(np.asarray(measured, dtype=np.float64) / np.asarray(modelled))
    log_batch = np.log(np.asarray(batch, dtype=np.float64))
    return np.asarray(np.exp(np.interp(log_batch, np.log(np.asarray(at)), log_ratio)))
