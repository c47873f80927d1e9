"""Read a curve between its measured points, or correct a modelled curve by a few of them."""

import numpy as np
from numpy.typing import ArrayLike

from hybridserve_llm.profiles.step_work import Floats


def read_time_s(batch: ArrayLike, *, at: ArrayLike, measured: ArrayLike) -> Floats:
    """Read the step time at `batch`, [n], from a table, linearly between two points.

    A step is a fixed part and one that grows with the batch. Interpolating logarithms is twice as
    far off on dense models (docs/planner-fit.md, Tables). Beyond the points it is the time at the
    nearest one; callers must not ask there.

    Args:
        batch: Batches to read at, [n].
        at: Batches that were measured, rising, [k].
        measured: Step times that were measured there, [k].
    """
    points, times = np.asarray(at, dtype=np.float64), np.asarray(measured, dtype=np.float64)
    return np.asarray(np.interp(np.asarray(batch, dtype=np.float64), points, times))


def read_power_w(batch: ArrayLike, *, at: ArrayLike, measured: ArrayLike) -> Floats:
    """Read watts at `batch`, [n], from a table, linearly in the logarithms of both.

    Watts level off, and logarithms follow that. Arguments are those of `read_time_s`.
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
    """Correct the modelled step time so that it meets the measurements, [n].

    A step's time is a sum of a fixed part and of parts that grow with the batch, and so is the
    error of the model. Hence the difference of measurement and model is interpolated linearly over
    the batch. Beyond the first and the last point the ratio of both stays as it is there. Between
    points it stays within the ratios of all points, so that the time remains above 0.

    Args:
        batch: Batches to correct at, [n].
        modelled: Values of the model at them, [n].
        at: Batches that were measured, rising, [k].
        measured: Values that were measured there, [k].
        modelled_at: Values of the model there, [k].
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
    """Return the factor for modelled power at `batch`, [n], that makes it meet measurements.

    The logarithm of measured over modelled is interpolated linearly over the logarithm of the
    batch. Beyond the first and the last point the factor stays as it is there. One point gives a
    constant factor.

    Args:
        batch: Batches to correct at, [n].
        at: Batches that were measured, rising, [k].
        measured: Values that were measured there, [k].
        modelled: Values of the model there, [k].
    """
    log_ratio = np.log(np.asarray(measured, dtype=np.float64) / np.asarray(modelled))
    log_batch = np.log(np.asarray(batch, dtype=np.float64))
    return np.asarray(np.exp(np.interp(log_batch, np.log(np.asarray(at)), log_ratio)))
