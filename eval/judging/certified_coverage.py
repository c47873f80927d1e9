"""How many answers of a tier may be taken so that few of them are wrong, with a bound that holds.

Fixed-sequence testing, as certificates are made (`calibration/walk.py`), of another loss: there the
harm among all questions, here the share of wrong answers among those that are taken. Thresholds on
confidence are tested from strict to lax, each at level delta, and the walk ends at the first that
is not shown to keep the share of wrong answers below its target. So the chance that any threshold
which passed has a larger one is at most delta.
"""

import math
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.loss_tests import harm_p_value
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints

CERTIFIED_DELTA = 0.1
"""As a certificate's, by default."""
N_STEPS, FIRST_STEP = 100, 10
"""Of the path: hundredths of the answers, from a tenth on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedCoverage:
    """The most answers, surest first, of which at most `risk` are wrong.

    Attributes:
        risk: The target: wrong answers of questions like these among those that are taken.
        share: Of all questions, those whose answer is taken; 0 where not even the strictest
            threshold passes, None where the questions are too few to test one.
        confidence_at_least: The threshold; None where nothing is taken.
        n_taken: Answers here that it takes.
        n_wrong: Wrong ones among them.
        p_value: Of the hypothesis that more than `risk` are wrong; None where nothing is taken.
    """

    risk: float
    share: float | None
    confidence_at_least: float | None
    n_taken: int
    n_wrong: int
    p_value: float | None


def certified_coverage(
    confidence: Floats, is_right: Bools, risk: float, *, delta: float = CERTIFIED_DELTA
) -> CertifiedCoverage:
    """The laxest threshold that a walk from strict to lax certifies.

    Args:
        confidence: Of independent questions, [n]; NaN where there is none, which is never taken.
        is_right: Whether the answer is right, [n].
        risk: Greatest share of wrong answers among those that are taken.
        delta: Chance that the share is larger all the same.
    """
    path = thresholds(confidence, risk, delta)
    best = CertifiedCoverage(
        risk=risk,
        share=0.0 if len(path) else None,
        confidence_at_least=None,
        n_taken=0,
        n_wrong=0,
        p_value=None,
    )
    for threshold in path:
        is_taken = confidence >= threshold
        n_taken, n_wrong = int(is_taken.sum()), int((is_taken & ~is_right).sum())
        p_value = harm_p_value(n_wrong, n_taken, risk)
        if p_value > delta:
            break
        best = CertifiedCoverage(
            risk=risk,
            share=n_taken / len(confidence),
            confidence_at_least=float(threshold),
            n_taken=n_taken,
            n_wrong=n_wrong,
            p_value=p_value,
        )
    return best


def thresholds(confidence: Floats, risk: float, delta: float) -> Floats:
    """The path, strict to lax: where a hundredth more of the answers is taken, ties whole.

    It looks at confidence alone and at no answer, so the test may be made on the same questions. It
    begins with FIRST_STEP of them, and not before a threshold could pass: few answers show little,
    and the walk would end there.
    """
    falling = np.sort(confidence[~np.isnan(confidence)])[::-1]
    steps = np.arange(FIRST_STEP, N_STEPS + 1)
    counts = np.ceil(steps * len(falling) / N_STEPS).astype(np.int64)
    path = np.unique(falling[counts[counts >= fewest_taken(risk, delta)] - 1])
    return np.asarray(path[::-1], dtype=np.float64)


def fewest_taken(risk: float, delta: float) -> int:
    """How many answers, all of them right, show that at most `risk` are wrong."""
    return math.ceil(math.log(delta) / math.log1p(-risk))


def one_of_each(groups: list[Ints], *, seed: int) -> Ints:
    """A random row of each group: the test needs independent questions."""
    rng = np.random.default_rng(seed)
    return np.array([rng.choice(rows) for rows in groups], dtype=np.int64)
