"""How far confidence can be believed: reliability bins, calibration error and ranking.

Bins hold equal numbers of answers. The calibration error of a finite sample is above zero even for
confidence that is perfectly calibrated, so that floor is simulated and stands beside it.
"""

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_auc_score

from eval.judging.intervals import Interval, wilson_interval
from hybridserve_llm.calibration.outcomes import Bools, Floats

N_ECE_BINS = 15
N_SHOWN_BINS = 10
FEWEST_PER_SHOWN_BIN = 10
FEWEST_PER_ECE_BIN = 2
N_SIMULATIONS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ReliabilityBin:
    """Answers of like confidence: how many, their mean confidence, the share that is right."""

    n: int
    mean_confidence: float
    accuracy: float
    accuracy_interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How one tier's confidence compares with its accuracy; None where there is not enough.

    Attributes:
        n: Answers with a confidence.
        n_unscored: Answers without one; they always escalate.
        bins: Of rising confidence, for the diagram; empty below FEWEST_PER_SHOWN_BIN answers.
        ece: Expected calibration error over N_ECE_BINS bins of equal mass.
        perfect_ece: What perfectly calibrated confidence of these values would show on average.
        perfect_ece_high: What it would exceed once in twenty times.
        brier: Mean squared difference of confidence and 1 (right) or 0 (wrong).
        auroc: Probability that a right answer has more confidence than a wrong one.
    """

    tier: str
    n: int
    n_unscored: int
    bins: tuple[ReliabilityBin, ...]
    ece: float | None
    perfect_ece: float | None
    perfect_ece_high: float | None
    brier: float | None
    auroc: float | None

    @property
    def n_all(self) -> int:
        """Answers with a confidence and without."""
        return self.n + self.n_unscored


def reliability_of(tier: str, confidence: Floats, is_right: Bools, *, seed: int) -> Reliability:
    """Reliability of `confidence`, shape [n], NaN where there is none; `seed` for simulating."""
    known = ~np.isnan(confidence)
    said, right = confidence[known], is_right[known]
    n = len(said)
    is_enough = n >= N_ECE_BINS * FEWEST_PER_ECE_BIN
    floor = perfect_errors(said, np.random.default_rng(seed)) if is_enough else None
    return Reliability(
        tier=tier,
        n=n,
        n_unscored=int((~known).sum()),
        bins=equal_mass_bins(said, right, min(N_SHOWN_BINS, n // FEWEST_PER_SHOWN_BIN)),
        ece=calibration_error(said, right) if is_enough else None,
        perfect_ece=None if floor is None else float(floor.mean()),
        perfect_ece_high=None if floor is None else float(np.quantile(floor, 0.95)),
        brier=float(((said - right) ** 2).mean()) if is_enough else None,
        auroc=float(roc_auc_score(right, said)) if is_enough and 0 < right.sum() < n else None,
    )


def equal_mass_bins(confidence: Floats, is_right: Bools, n_bins: int) -> tuple[ReliabilityBin, ...]:
    """Bins of rising confidence whose sizes differ by at most one; the larger ones come first."""
    if n_bins == 0:
        return ()
    order = np.argsort(confidence, kind="stable")
    return tuple(
        ReliabilityBin(
            n=len(rows),
            mean_confidence=float(confidence[rows].mean()),
            accuracy=float(is_right[rows].mean()),
            accuracy_interval=wilson_interval(int(is_right[rows].sum()), len(rows)),
        )
        for rows in np.array_split(order, n_bins)
    )


def calibration_error(confidence: Floats, is_right: Bools, n_bins: int = N_ECE_BINS) -> float:
    """Expected calibration error: mean over answers of |accuracy - mean confidence| of their bin.

    Source: Naeini et al., AAAI 2015, with bins of equal mass. Needs at least `n_bins` answers.
    """
    return float(_errors(confidence, is_right[None, :], n_bins)[0])


def perfect_errors(
    confidence: Floats,
    rng: np.random.Generator,
    n_bins: int = N_ECE_BINS,
    n_simulations: int = N_SIMULATIONS,
) -> Floats:
    """Calibration errors where each answer is right with just its confidence, [n_simulations]."""
    draws = [rng.random(len(confidence)) < confidence for _ in range(n_simulations)]
    return _errors(confidence, np.array(draws), n_bins)


def _errors(confidence: Floats, is_right: Bools, n_bins: int) -> Floats:
    """Calibration errors of `is_right`, shape [n_sets, n], one for each set."""
    order = np.argsort(confidence, kind="stable")
    sizes = [len(part) for part in np.array_split(order, n_bins)]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    excess = is_right[:, order] - confidence[order]
    by_bin = np.add.reduceat(excess, starts, axis=1)
    return np.asarray(np.abs(by_bin).sum(axis=1) / len(confidence), dtype=np.float64)
