"""Corrects a modelled curve by a few measured points of it."""

import numpy as np
from numpy.typing import ArrayLike

from hybridserve_llm.profiles.step_work import Floats


def correction_factor(
    batch: ArrayLike, *, at: ArrayLike, measured: ArrayLike, modelled: ArrayLike
) -> Floats:
    """By what to multiply the model at `batch`, [n], so that it meets what was measured.

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
