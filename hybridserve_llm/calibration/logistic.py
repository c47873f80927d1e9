"""Fit logistic regressions with a penalty, which read absent features as average ones."""

from dataclasses import dataclass

import numpy as np
from sklearn.linear_model import LogisticRegression

from hybridserve_llm.calibration.outcomes import Bools, Floats

_SMALLEST_SCALE = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Logistic:
    """Compute `sigmoid(intercept + sum_i weights_i (x_i - means_i) / scales_i)`.

    An absent x_i adds 0.
    """

    means: Floats
    scales: Floats
    weights: Floats
    intercept: float

    def predict(self, features: Floats) -> Floats:
        """Return probabilities, shape [n], of rows [n, n_features]; NaN marks an absent feature."""
        standardised = np.nan_to_num((features - self.means) / self.scales, nan=0.0)
        logits = np.clip(self.intercept + standardised @ self.weights, -30.0, 30.0)
        return np.asarray(1 / (1 + np.exp(-logits)), dtype=np.float64)


def fit_logistic(features: Floats, is_positive: Bools, ridge: float) -> Logistic:
    """Fit by L2-penalised maximum likelihood; `ridge` weighs standardised features.

    Where only one class is seen, or no feature varies, the probability of every row is that of the
    rule of succession, (positives + 1) / (rows + 2).
    """
    is_known = ~np.isnan(features)
    n_known = np.maximum(is_known.sum(axis=0), 1)
    means = np.where(is_known, features, 0.0).sum(axis=0) / n_known
    centred = np.where(is_known, features - means, 0.0)
    scales = np.sqrt((centred**2).sum(axis=0) / n_known) + _SMALLEST_SCALE / 2
    n_positive, n = int(is_positive.sum()), len(is_positive)
    varies = scales > _SMALLEST_SCALE
    if n_positive in (0, n) or not varies.any():
        weights = np.zeros(features.shape[1])
        intercept = float(np.log((n_positive + 1) / (n - n_positive + 1)))
    else:
        model = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=1e-6)
        model.fit(centred / scales, is_positive)
        # A feature that never varied has no weight; rounding may have left a small one.
        weights = np.where(varies, model.coef_[0], 0.0)
        intercept = float(model.intercept_[0])
    return Logistic(means=means, scales=scales, weights=weights, intercept=intercept)


def log_losses(predicted: Floats, is_positive: Bools) -> Floats:
    """Return the negative log-likelihood of each row, shape [n]."""
    right = np.where(is_positive, predicted, 1 - predicted)
    return np.asarray(-np.log(np.clip(right, 1e-12, 1.0)), dtype=np.float64)
