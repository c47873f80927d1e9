"""95 % intervals of what was counted on a set of questions."""

from collections.abc import Callable, Hashable, Sequence

import numpy as np
from scipy import stats

from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints

Interval = tuple[float, float]

LEVEL = 0.95
N_RESAMPLES = 2000
FEWEST_TO_RESAMPLE = 20
"""Resampling fewer independent questions than this gives intervals that are too narrow."""
FEWEST_DRAWS = 5


def wilson_interval(n_hits: int, n: int) -> Interval | None:
    """Wilson's score interval of a share; None without questions.

    Source: Wilson, JASA 22 (1927); it takes the questions as independent.
    """
    if n == 0:
        return None
    found = stats.binomtest(n_hits, n).proportion_ci(LEVEL, method="wilson")
    return min(float(found.low), n_hits / n), max(float(found.high), n_hits / n)


def share_interval(is_hit: Bools, groups: Sequence[Hashable], *, seed: int) -> Interval | None:
    """Interval of the share of hits, shape [n]: Wilson's, or where any group is set a bootstrap.

    The bootstrap draws whole groups (`paired_interval`, None as there): Wilson's takes questions as
    independent, and is too narrow where those of one group depend on each other.
    """
    if has_groups(groups):
        return paired_interval(is_hit.astype(np.float64), groups, seed=seed)
    return wilson_interval(int(is_hit.sum()), len(is_hit))


def has_groups(groups: Sequence[Hashable]) -> bool:
    """Whether any question is of a group."""
    return any(group is not None for group in groups)


def mean_interval(values: Floats) -> Interval | None:
    """Student's t interval of the mean of independent draws, shape [n].

    None of fewer than FEWEST_DRAWS: it would be wider than anything that was drawn.
    Source: Student, Biometrika 6 (1908).
    """
    if len(values) < FEWEST_DRAWS:
        return None
    mean, error = float(values.mean()), float(stats.sem(values))
    if error == 0:
        return mean, mean
    low, high = stats.t.interval(LEVEL, len(values) - 1, loc=mean, scale=error)
    return float(low), float(high)


def paired_interval(
    differences: Floats, groups: Sequence[Hashable], *, seed: int
) -> Interval | None:
    """Percentile bootstrap interval of the mean of paired differences, shape [n].

    Whole groups are drawn, as the questions of one depend on each other; a question whose group is
    None is one of its own. None where there are fewer than FEWEST_TO_RESAMPLE groups, or where no
    question differs: both would give an interval that claims more than was seen.
    """
    sums, sizes = _by_group(differences, groups)
    if len(sums) < FEWEST_TO_RESAMPLE or not differences.any():
        return None
    rng = np.random.default_rng(seed)
    means = np.empty(N_RESAMPLES)
    for i in range(N_RESAMPLES):
        drawn = rng.integers(0, len(sums), len(sums))
        means[i] = sums[drawn].sum() / sizes[drawn].sum()
    return percentiles(means)


def resampled(
    figure: Callable[[Ints], float | None],
    groups: Sequence[Ints],
    *,
    seed: int,
    n_resamples: int = N_RESAMPLES,
) -> Floats | None:
    """A figure of rows drawn anew, whole `groups` of them together, [n_resamples].

    None where there are fewer than FEWEST_TO_RESAMPLE groups, or where a draw does not tell it.
    """
    if len(groups) < FEWEST_TO_RESAMPLE:
        return None
    rng, drawn = np.random.default_rng(seed), np.empty(n_resamples)
    rows = np.concatenate(groups)
    is_of_single_rows = len(rows) == len(groups)  # then joining them, which is slow, is no need
    for i in range(n_resamples):
        picked = rng.integers(0, len(groups), len(groups))
        value = figure(
            rows[picked] if is_of_single_rows else np.concatenate([groups[g] for g in picked])
        )
        if value is None:
            return None
        drawn[i] = value
    return drawn


def percentiles(drawn: Floats) -> Interval:
    """The middle LEVEL of what was drawn."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _by_group(differences: Floats, groups: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sum of differences and number of questions of each group, both [n_groups]."""
    keys = [("row", i) if group is None else ("group", group) for i, group in enumerate(groups)]
    index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    rows = np.array([index[key] for key in keys], dtype=np.int64)
    sums = np.bincount(rows, weights=differences, minlength=len(index)).astype(np.float64)
    return sums, np.bincount(rows, minlength=len(index)).astype(np.float64)
