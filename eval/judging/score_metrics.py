"""How good a score or a confidence is, beyond one threshold: ranking, rejection, probability.

Arrays are by question, [n]. Answers of equal score are taken in random order, in expectation. NaN,
which is no score, ranks below all others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score

from eval.judging.intervals import Interval, percentiles, resampled
from eval.judging.reliability import N_ECE_BINS, calibration_error
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints

TARGET_RISKS = (0.01, 0.02, 0.05, 0.1)
N_METRIC_RESAMPLES = 300
_SURE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One figure with its 95 % interval; None where it cannot be told."""

    name: str
    value: float | None
    interval: Interval | None


def by_falling_score(score: Floats, values: Floats) -> Floats:
    """`values` from the highest score to the lowest; means of ties stand in their places, [n]."""
    known = np.where(np.isnan(score), -np.inf, score)
    distinct, place = np.unique(-known, return_inverse=True)
    sums = np.bincount(place, weights=values, minlength=len(distinct))
    sizes = np.bincount(place, minlength=len(distinct))
    return np.repeat(sums / sizes, sizes)


def risk_coverage_area(score: Floats, is_right: Bools) -> float:
    """AURC: mean over all coverages k/n of the share of errors among the k surest answers.

    Source: Geifman et al., ICLR 2019 (arXiv 1805.08206), section 3.
    """
    errors = by_falling_score(score, (~is_right).astype(np.float64))
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())


def excess_risk_coverage_area(score: Floats, is_right: Bools) -> float:
    """E-AURC: AURC above that of a score that ranks every right answer first. Source: as AURC."""
    return risk_coverage_area(score, is_right) - _best_area(is_right)


def rejection_ratio(score: Floats, is_right: Bools) -> float | None:
    """PRR, over rejection of 0 to 100 %; 1 is the best ranking, 0 a random one.

    (area of accuracy under rejection - random) / (best - random), as LM-Polygraph 0.7 computes it
    with its default `max_rejection=1.0`. None where all answers are right, or none is.
    """
    best, chance = 1 - _best_area(is_right), float(is_right.mean())
    if best - chance < _SURE:
        return None
    return (1 - risk_coverage_area(score, is_right) - chance) / (best - chance)


def _best_area(is_right: Bools) -> float:
    return risk_coverage_area(is_right.astype(np.float64), is_right)


def deferral_curve(score: Floats, is_right: Bools, last_is_right: Bools) -> Floats:
    """Accuracy where the lowest-scored k questions go to the last tier, k = 0 to n, [n + 1].

    Source: Gupta et al., ICLR 2024 (arXiv 2404.10136), section 3.
    """
    gain = last_is_right.astype(np.float64) - is_right
    rising = by_falling_score(score, gain)[::-1]
    return np.asarray(np.append(0.0, np.cumsum(rising)) / len(gain) + is_right.mean())


def deferral_area(score: Floats, is_right: Bools, last_is_right: Bools) -> float:
    """AUDC: the area under the deferral curve over the share that is forwarded, 0 to 1."""
    curve = deferral_curve(score, is_right, last_is_right)
    return float(np.trapezoid(curve, dx=1 / (len(curve) - 1)))


def normalised_deferral_area(score: Floats, is_right: Bools, last_is_right: Bools) -> float | None:
    """(AUDC - random) / (best - random); random forwarding is 0, forwarding what gains first is 1.

    None where forwarding gains and loses nothing.
    """
    gain = last_is_right.astype(np.float64) - is_right
    best = deferral_area(-gain, is_right, last_is_right)
    chance = float(is_right.mean() + last_is_right.mean()) / 2
    if best - chance < _SURE:
        return None
    return (deferral_area(score, is_right, last_is_right) - chance) / (best - chance)


def coverage_at(score: Floats, is_right: Bools, risk: float) -> float:
    """The largest share of surest answers of which at most `risk` are wrong, ties whole."""
    known = np.where(np.isnan(score), -np.inf, score)
    order = np.argsort(-known, kind="stable")
    errors = np.cumsum(~is_right[order])
    n_taken = np.arange(1, len(order) + 1)
    is_end = np.append(known[order][1:] != known[order][:-1], True)
    allowed = is_end & (errors <= risk * n_taken)
    return float(n_taken[allowed].max(initial=0) / len(order))


def auroc(score: Floats, is_hit: Bools) -> float | None:
    """Probability that a hit has the higher score; None where all or none are hits."""
    if not 0 < is_hit.sum() < len(is_hit):
        return None
    return float(roc_auc_score(is_hit, _filled(score)))


def error_precision(score: Floats, is_right: Bools) -> float | None:
    """Average precision of low scores at finding errors (AUPRC-error); None without errors."""
    if is_right.all():
        return None
    return float(average_precision_score(~is_right, -_filled(score)))


def brier(confidence: Floats, is_right: Bools) -> float:
    """Mean squared difference of confidence and 1 (right) or 0 (wrong)."""
    return float(((confidence - is_right) ** 2).mean())


def brier_skill(confidence: Floats, is_right: Bools) -> float | None:
    """1 - Brier / that of saying the accuracy every time; None where that is 0."""
    plain = brier(np.full(len(is_right), is_right.mean()), is_right)
    return 1 - brier(confidence, is_right) / plain if plain > _SURE else None


def log_loss(confidence: Floats, is_right: Bools) -> float:
    """Mean negative log-likelihood, in nats."""
    said = np.clip(confidence, _SURE, 1 - _SURE)
    return float(-np.where(is_right, np.log(said), np.log1p(-said)).mean())


def spiegelhalter_p(confidence: Floats, is_right: Bools) -> float | None:
    """Two-sided p-value of Spiegelhalter's test that confidence is calibrated.

    Z = sum (y - p)(1 - 2p) / sqrt(sum (1 - 2p)^2 p (1 - p)). Source: Spiegelhalter, Statistics in
    Medicine 5 (1986). None where every p is 0, 1/2 or 1.
    """
    weight = 1 - 2 * confidence
    spread = float(np.sqrt((weight**2 * confidence * (1 - confidence)).sum()))
    if spread < _SURE:
        return None
    z = float(((is_right - confidence) * weight).sum()) / spread
    return float(2 * stats.norm.sf(abs(z)))


def metrics_of(
    confidence: Floats, is_right: Bools, last_is_right: Bools, groups: list[Ints], *, seed: int
) -> tuple[Metric, ...]:
    """Every figure of one tier's confidence; intervals draw whole `groups` of rows.

    They are percentiles of the bootstrap; those of the calibration error are shifted by its bias.
    Figures of probability are of the answers that have a confidence, figures of ranking of all.
    """
    found = []
    for name, of in _FIGURES.items():
        value = of(confidence, is_right, last_is_right)
        drawn = resampled(
            lambda rows, of=of: of(confidence[rows], is_right[rows], last_is_right[rows]),  # type: ignore[misc]  # a figure bound early
            [] if value is None or name in _NO_INTERVAL else groups,
            seed=seed,
            n_resamples=N_METRIC_RESAMPLES,
        )
        if drawn is not None and name in _RAISED_BY_NOISE:
            drawn = np.maximum(0.0, drawn - (drawn.mean() - value))
        interval = None if drawn is None else percentiles(drawn)
        found.append(Metric(name=name, value=value, interval=interval))
    return tuple(found)


_Figure = Callable[[Floats, Bools, Bools], float | None]


def _of_known(figure: Callable[[Floats, Bools], float | None]) -> _Figure:
    """A figure of the answers that have a confidence; None where they are too few for bins."""

    def of(confidence: Floats, is_right: Bools, _: Bools) -> float | None:
        known = ~np.isnan(confidence)
        if known.sum() < 2 * N_ECE_BINS:
            return None
        return figure(confidence[known], is_right[known])

    return of


def _coverage(risk: float) -> _Figure:
    return lambda said, right, _: coverage_at(said, right, risk)


_FIGURES: dict[str, _Figure] = {
    "AUROC (right)": lambda said, right, _: auroc(said, right),
    "AUROC (no harm)": lambda said, right, last: auroc(said, right | ~last),
    "AUPRC (errors)": lambda said, right, _: error_precision(said, right),
    "PRR (rejection 0 to 100 %)": lambda said, right, _: rejection_ratio(said, right),
    "AURC": lambda said, right, _: risk_coverage_area(said, right),
    "E-AURC": lambda said, right, _: excess_risk_coverage_area(said, right),
    "AUDC": deferral_area,
    "AUDC, normalised": normalised_deferral_area,
    "ECE (15 equal-mass bins)": _of_known(calibration_error),
    "Brier": _of_known(brier),
    "Brier skill": _of_known(brier_skill),
    "log loss": _of_known(log_loss),
    "Spiegelhalter p": _of_known(spiegelhalter_p),
    **{f"coverage at {100 * risk:g} % wrong": _coverage(risk) for risk in TARGET_RISKS},
}
_NO_INTERVAL = frozenset({"Spiegelhalter p"})
# A resample has noise of its own beside that of the data, and noise alone makes a calibration
# error: resamples lie above the figure, by as much as the figure is too high itself.
_RAISED_BY_NOISE = frozenset({"ECE (15 equal-mass bins)"})


def _filled(score: Floats) -> Floats:
    """Scores with the least float where there is none: libraries refuse infinities."""
    return np.where(np.isnan(score), np.finfo(np.float64).min / 4, score)
