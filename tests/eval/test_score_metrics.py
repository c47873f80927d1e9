"""Figures of scores and confidence, each worked out by hand on a few answers."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.judging.score_metrics import (
    auroc,
    brier_skill,
    by_falling_score,
    coverage_at,
    deferral_area,
    deferral_curve,
    excess_risk_coverage_area,
    log_loss,
    metrics_of,
    normalised_deferral_area,
    rejection_ratio,
    risk_coverage_area,
    spiegelhalter_p,
)

SCORE = np.array([0.9, 0.8, 0.7, 0.6])
RIGHT = np.array([True, False, True, False])


def test_risk_coverage_area() -> None:
    # Errors among the k surest: 0/1, 1/2, 1/3, 2/4; the best order has 0, 0, 1/3, 1/2.
    assert risk_coverage_area(SCORE, RIGHT) == pytest.approx((0 + 1 / 2 + 1 / 3 + 1 / 2) / 4)
    best = (1 / 3 + 1 / 2) / 4
    assert excess_risk_coverage_area(SCORE, RIGHT) == pytest.approx((1 / 2) / 4)
    # Accuracy under rejection 1 - 1/3; best 1 - 5/24; random 1/2.
    assert rejection_ratio(SCORE, RIGHT) == pytest.approx((2 / 3 - 1 / 2) / (1 - best - 1 / 2))


def test_no_order_can_be_judged_where_all_answers_are_right() -> None:
    everything = np.ones(4, dtype=bool)
    assert rejection_ratio(SCORE, everything) is None
    assert auroc(SCORE, everything) is None


def test_ties_count_as_their_mean_and_no_score_ranks_last() -> None:
    score = np.array([0.5, np.nan, 0.5, 0.9])
    assert by_falling_score(score, np.array([1.0, 7.0, 0.0, 4.0])).tolist() == [4.0, 0.5, 0.5, 7.0]


def test_deferral_curve_and_its_area() -> None:
    last = np.array([True, True, True, True])
    # Forwarded from the lowest score: gains 1, 0, 1, 0 from an accuracy of 1/2.
    assert deferral_curve(SCORE, RIGHT, last).tolist() == [0.5, 0.75, 0.75, 1.0, 1.0]
    # Trapezoids of width 1/4: (0.625 + 0.75 + 0.875 + 1) / 4.
    assert deferral_area(SCORE, RIGHT, last) == pytest.approx(0.8125)
    # Best: 0.5, 0.75, 1, 1, 1 = 0.875; random: (0.5 + 1) / 2.
    assert normalised_deferral_area(SCORE, RIGHT, last) == pytest.approx(0.5)


def test_coverage_at_a_risk() -> None:
    assert coverage_at(SCORE, RIGHT, 0.1) == 0.25
    assert coverage_at(SCORE, RIGHT, 0.35) == 0.75  # one of three
    assert coverage_at(np.zeros(4), RIGHT, 0.1) == 0.0  # ties are taken whole or not at all
    unscored, right = np.array([0.9, np.nan, np.nan]), np.array([True, True, False])
    assert coverage_at(unscored, right, 0.1) == pytest.approx(1 / 3)  # so are those without a score


def test_probabilities() -> None:
    said, right = np.array([0.8, 0.4]), np.array([True, False])
    # Brier (0.04 + 0.16) / 2 = 0.1; saying 1/2 every time 0.25.
    assert brier_skill(said, right) == pytest.approx(1 - 0.1 / 0.25)
    assert log_loss(said, right) == pytest.approx(-(math.log(0.8) + math.log(0.6)) / 2)
    # Z = (0.2 * -0.6 + -0.4 * 0.2) / sqrt(0.36 * 0.16 + 0.04 * 0.24) = -0.2 / 0.2592.
    assert spiegelhalter_p(said, right) == pytest.approx(
        math.erfc(0.2 / 0.259229628 / math.sqrt(2))
    )
    assert spiegelhalter_p(np.array([0.5, 0.5]), right) is None


@pytest.mark.slow
def test_intervals_hold_their_figure_and_a_p_value_has_none() -> None:
    rng = np.random.default_rng(5)
    said = rng.uniform(0, 1, 400)
    right = rng.uniform(0, 1, 400) < said  # calibrated, so that its ECE is noise alone
    groups = [np.array([i]) for i in range(400)]
    for metric in metrics_of(said, right, np.ones(400, dtype=bool), groups, seed=0):
        assert metric.value is not None
        if metric.name == "Spiegelhalter p":
            assert metric.interval is None
            continue
        assert metric.interval is not None, metric.name
        low, high = metric.interval
        assert 0 <= low <= metric.value <= high, metric.name


@given(st.lists(st.tuples(st.floats(-5, 0), st.booleans(), st.booleans()), min_size=3, max_size=30))
def test_the_best_order_is_never_beaten(rows: list[tuple[float, bool, bool]]) -> None:
    score, right, last = (np.array(column) for column in zip(*rows, strict=True))
    assert excess_risk_coverage_area(score, right) >= -1e-9
    found = normalised_deferral_area(score, right, last)
    assert found is None or found <= 1 + 1e-9
