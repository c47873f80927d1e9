"""Compute exact p-values of "the loss of this policy exceeds epsilon", for answers right or wrong.

Both losses test one hypothesis about one policy, from counts over `n` independent questions;
`walk.py` tests many policies in a fixed order.

`harm`: the share of questions that are answered wrongly below the last tier while the last tier was
right. Its count is binomial, so the test is the exact binomial tail (Learn then Test, arXiv
2110.01052, section 4).

`net`: accuracy of the last tier minus that of the policy. A question counts +1 where the policy
loses it, -1 where it rescues it, 0 elsewhere. The design names a betting test (Waudby-Smith and
Ramdas, arXiv 2010.09686). For these three-valued differences we use an exact one instead, since a
wealth must reach 1/delta at the given bets while an exact tail uses all of delta. At n = 600,
epsilon = 0.02 and ten rescues it allows a net loss of 5 where the best bet in hindsight allows 1
(decision 005).
"""

from typing import Literal

import numpy as np
from scipy import stats

from hybridserve_llm.calibration.outcomes import Floats, Ints

Loss = Literal["net", "harm"]

_NUISANCE_RISK = 0.002
"""Share of delta's scale spent on bounding the rescue rate (Berger and Boos, JASA 1994)."""
_NUISANCE_POINTS = 60
_TAIL_CUT = 1e-7
_EPSILON_STEP = 1e-4


def p_value(n_lost: int, n_rescued: int, n: int, epsilon: float, *, loss: Loss) -> float:
    """Return the p-value of "the loss exceeds `epsilon`" from the counts of `n` questions."""
    if loss == "harm":
        return harm_p_value(n_lost, n, epsilon)
    return net_p_value(n_lost, n_rescued, n, epsilon)


def smallest_epsilon(n_lost: int, n_rescued: int, n: int, *, loss: Loss, delta: float) -> float:
    """Return the least multiple of 0.0001 that bounds the loss at level `delta`.

    It is found by bisection. It is at least 0.0001, and 1 where nothing less is shown.
    """
    low, high = 0, round(1 / _EPSILON_STEP)
    while high - low > 1:
        middle = (low + high) // 2
        epsilon = middle * _EPSILON_STEP
        is_shown = p_value(n_lost, n_rescued, n, epsilon, loss=loss) <= delta
        low, high = (low, middle) if is_shown else (middle, high)
    return round(high * _EPSILON_STEP, 4)


def harm_p_value(n_harmed: int, n: int, epsilon: float) -> float:
    """Return P(at most `n_harmed` of `n` are harmed | the harm rate is `epsilon`)."""
    return float(stats.binom.cdf(n_harmed, n, epsilon))


def net_p_value(n_lost: int, n_rescued: int, n: int, epsilon: float) -> float:
    """Return the exact p-value of the hypothesis that P(lost) - P(rescued) >= `epsilon`.

    Tables of `n` questions are ordered by the score statistic of the difference of two paired
    proportions (Tango, Statistics in Medicine 1998, eq. 8). The p-value is the greatest probability
    of a table at least as good, over the rescue rates that the data do not exclude. Excluding rates
    costs their error probability, which is added (Berger and Boos, 1994). Deviation: the greatest
    is taken over a grid of 60 rates, not over the continuum.
    """
    if epsilon >= 1:  # only a policy that loses every question has such a loss
        return float(n_lost == n)
    observed = float(_score_statistic(np.array([n_lost]), np.array([n_rescued]), n, epsilon)[0])
    if observed >= 0:
        return 1.0
    low, high = _rescue_rate_bounds(n_rescued, n, epsilon)
    most = int(stats.binom.ppf(1 - _TAIL_CUT, n, min(2 * high + epsilon, 1.0)))
    n_changed = np.arange(most + 1)
    n_lost_at_most = _most_lost_as_good(n_changed, observed, n, epsilon)
    rescue_rates = np.linspace(low, high, _NUISANCE_POINTS)[:, np.newaxis]
    changed_rates = 2 * rescue_rates + epsilon
    lost_shares = (rescue_rates + epsilon) / changed_rates
    good = stats.binom.pmf(n_changed, n, changed_rates) * stats.binom.cdf(
        n_lost_at_most, n_changed, lost_shares
    )
    worst = float(good.sum(axis=1).max())
    return min(1.0, worst + _NUISANCE_RISK + _TAIL_CUT)


def _rescue_rate_bounds(n_rescued: int, n: int, epsilon: float) -> tuple[float, float]:
    """Return the Clopper-Pearson interval of the rescue rate at risk _NUISANCE_RISK.

    It is cut to the rates that the hypothesis allows.
    """
    half = _NUISANCE_RISK / 2
    low = float(stats.beta.ppf(half, n_rescued, n - n_rescued + 1)) if n_rescued else 0.0
    high = float(stats.beta.ppf(1 - half, n_rescued + 1, n - n_rescued)) if n_rescued < n else 1.0
    greatest = (1 - epsilon) / 2
    return min(low, greatest), min(high, greatest)


def _score_statistic(n_lost: Ints, n_rescued: Ints, n: int, epsilon: float) -> Floats:
    """Return (lost - rescued - n epsilon) over its standard deviation at the restricted optimum.

    The rescue rate q maximises a log(q + eps) + b log q + (n - a - b) log(1 - 2q - eps), whose
    derivative is zero at the root of a quadratic.
    """
    a, b = n_lost.astype(np.float64), n_rescued.astype(np.float64)
    linear = (a + b) * (1 - epsilon) - 2 * b * epsilon - 2 * (n - a - b) * epsilon
    constant = b * epsilon * (1 - epsilon)
    root = np.sqrt(np.maximum(linear * linear + 8 * n * constant, 0.0))
    rescue_rate = np.clip((linear + root) / (4 * n), 0.0, (1 - epsilon) / 2)
    variance = n * (2 * rescue_rate + epsilon - epsilon * epsilon)
    return np.asarray((a - b - n * epsilon) / np.sqrt(variance), dtype=np.float64)


def _most_lost_as_good(n_changed: Ints, observed: float, n: int, epsilon: float) -> Ints:
    """Return, for each count of changed answers, the most lost ones that are as good.

    As good means a statistic <= `observed`. Bisection finds it, since the statistic rises with the
    share that is lost; -1 where none is as good.
    """
    low, high = np.full(len(n_changed), -1), n_changed.copy()
    while (low < high).any():
        middle = (low + high + 1) // 2
        statistic = _score_statistic(middle, n_changed - middle, n, epsilon)
        is_as_good = statistic <= observed + 1e-12
        low, high = np.where(is_as_good, middle, low), np.where(is_as_good, high, middle - 1)
    return np.asarray(low, dtype=np.int64)
