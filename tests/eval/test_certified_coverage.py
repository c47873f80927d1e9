"""Certified coverage: a walk down thresholds on confidence, worked out by hand at 10 % wrong.

The least numbers of answers that show at most 10 % wrong at level 0.1 are those of every table of
sampling plans (LTPD 10 %): 22 without a wrong one, 38 with one, 52 with two, 65 with three.
"""

import numpy as np
import pytest

from eval.judging.certified_coverage import (
    CertifiedCoverage,
    certified_coverage,
    fewest_taken,
    one_of_each,
    thresholds,
)
from hybridserve_llm.calibration.outcomes import Bools

FALLING = np.linspace(1.0, 0.01, 100)
"""Confidence of 100 answers, the surest first."""


def all_but(*wrong: int) -> Bools:
    """Who is right of 100 answers; those at the places `wrong`, from 1, are not."""
    return ~np.isin(np.arange(1, 101), wrong)


@pytest.mark.parametrize(("risk", "n"), [(0.1, 22), (0.05, 45), (0.02, 114), (0.01, 230)])
def test_so_many_right_answers_are_the_fewest_that_show_anything(risk: float, n: int) -> None:
    # 0.9^22 = 0.098, 0.95^45 = 0.099, 0.98^114 = 0.0999, 0.99^230 = 0.099.
    assert fewest_taken(risk, 0.1) == n


def test_the_path_begins_with_a_tenth_of_the_answers() -> None:
    falling = np.linspace(1.0, 0.001, 1000)
    path = thresholds(falling, 0.1, 0.1)
    assert len(path) == 91
    assert (path[0], path[1], path[-1]) == (falling[99], falling[109], falling[999])


def test_the_walk_goes_on_while_the_exact_tail_is_below_delta() -> None:
    # Right up to the 50th, wrong from then on: 52 with two wrong ones pass, 53 with three do not.
    found = certified_coverage(FALLING, all_but(*range(51, 101)), 0.1)
    assert (found.share, found.n_taken, found.n_wrong) == (0.52, 52, 2)
    assert found.confidence_at_least == pytest.approx(FALLING[51])
    # P(Binomial(52, 0.1) <= 2) = 0.9^52 (1 + 52 / 9 + 1326 / 81).
    assert found.p_value == pytest.approx(0.9**52 * (1 + 52 / 9 + 1326 / 81))


def test_the_walk_ends_at_the_first_failure_though_a_laxer_threshold_would_pass() -> None:
    # One wrong one of 22 fails; from 38 on it would not.
    found = certified_coverage(FALLING, all_but(20), 0.1)
    assert (found.share, found.n_taken, found.confidence_at_least) == (0.0, 0, None)
    assert found.p_value is None


def test_answers_of_equal_confidence_are_taken_together_and_none_without_one() -> None:
    confidence = np.concatenate([np.full(60, 0.7), np.full(40, np.nan)])
    found = certified_coverage(confidence, all_but(60, *range(61, 101)), 0.1)
    assert (found.share, found.n_taken, found.n_wrong) == (0.6, 60, 1)


def test_too_few_questions_are_told_apart_from_a_walk_that_failed() -> None:
    found = certified_coverage(FALLING[:21], np.ones(21, dtype=bool), 0.1)
    assert found == CertifiedCoverage(
        risk=0.1, share=None, confidence_at_least=None, n_taken=0, n_wrong=0, p_value=None
    )


def test_one_question_of_each_group_is_tested() -> None:
    groups = [np.array([0, 3, 4]), np.array([1]), np.array([2, 5])]
    rows = one_of_each(groups, seed=1)
    assert [row in group for row, group in zip(rows, groups, strict=True)] == [True] * 3


def test_the_target_is_missed_no_more_often_than_delta_says() -> None:
    """Confidence that is true: of answers above t, (1 - t) / 2 are wrong, 10 % from t = 0.8 on."""
    rng = np.random.default_rng(3)
    n_missed = n_certified = 0
    for _ in range(100):
        confidence = rng.random(400)
        found = certified_coverage(confidence, rng.random(400) < confidence, 0.1)
        n_certified += found.n_taken > 0
        n_missed += found.confidence_at_least is not None and found.confidence_at_least < 0.8
    # At most 10 of 100 on average; 18 or more come once in a hundred times.
    assert n_missed < 18
    assert n_certified > 25  # the first step, of 40 with 5 % wrong, passes in 4 of 10 runs
