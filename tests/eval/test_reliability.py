"""Reliability: bins and errors worked out by hand, and the floor of perfect confidence."""

import math

import numpy as np
import pytest

from eval.judging.reliability import (
    calibration_error,
    equal_mass_bins,
    perfect_errors,
    reliability_of,
)

CONFIDENCE = np.array([0.9, 0.1, 0.8, 0.2])
IS_RIGHT = np.array([True, False, True, True])


def test_bins_of_equal_mass() -> None:
    low, high = equal_mass_bins(CONFIDENCE, IS_RIGHT, 2)
    assert (low.n, high.n) == (2, 2)
    assert low.mean_confidence == pytest.approx(0.15)
    assert low.accuracy == 0.5
    assert high.mean_confidence == pytest.approx(0.85)
    assert high.accuracy == 1.0
    # Wilson for 1 of 2: 0.5 -+ z sqrt(1/8 + z^2/16) / (1 + z^2/2), z = 1.95996
    assert low.accuracy_interval == pytest.approx((0.0945, 0.9055), abs=1e-4)


def test_sizes_of_bins_differ_by_at_most_one() -> None:
    bins = equal_mass_bins(np.linspace(0, 1, 10), np.ones(10, dtype=bool), 3)
    assert [b.n for b in bins] == [4, 3, 3]
    assert equal_mass_bins(CONFIDENCE, IS_RIGHT, 0) == ()


def test_calibration_error() -> None:
    # bins {0.1 wrong, 0.2 right} and {0.8 right, 0.9 right}: |0.5 - 0.15|, |1 - 0.85|, half each
    assert calibration_error(CONFIDENCE, IS_RIGHT, 2) == pytest.approx((0.35 + 0.15) / 2)
    # one bin: |3/4 - 0.5|
    assert calibration_error(CONFIDENCE, IS_RIGHT, 1) == pytest.approx(0.25)


def test_perfect_confidence_has_an_error_too() -> None:
    errors = perfect_errors(np.full(100, 0.5), np.random.default_rng(0), 1, 4000)
    # mean |K/100 - 1/2| of K ~ Binomial(100, 1/2) is C(100, 50) / 2^101
    assert errors.mean() == pytest.approx(math.comb(100, 50) / 2**101, abs=0.002)


def test_certain_and_right_has_no_error() -> None:
    assert perfect_errors(np.ones(30), np.random.default_rng(0), 15, 3).tolist() == [0.0] * 3


def test_reliability_of_a_tier() -> None:
    rng = np.random.default_rng(0)
    confidence = rng.random(600)
    is_right = rng.random(600) < confidence
    confidence[:100] = np.nan
    found = reliability_of("small", confidence, is_right, seed=0)
    assert (found.tier, found.n, found.n_unscored, found.n_all) == ("small", 500, 100, 600)
    assert [b.n for b in found.bins] == [50] * 10
    assert found.ece is not None
    assert found.perfect_ece is not None
    assert found.perfect_ece_high is not None
    assert found.perfect_ece < found.perfect_ece_high
    assert found.ece < 1.5 * found.perfect_ece  # the confidence is perfect
    # c ~ U(0, 1), right with probability c: Brier = E c(1 - c) = 1/6; AUROC = 5/6, as two answers
    # are ordered right with density c1 (1 - c2) on c1 > c2, 5/24, of all pairs' 1/4
    assert found.brier == pytest.approx(1 / 6, abs=0.02)
    assert found.auroc == pytest.approx(5 / 6, abs=0.04)


def test_brier_and_auroc_by_hand() -> None:
    found = reliability_of("small", np.tile(CONFIDENCE, 8), np.tile(IS_RIGHT, 8), seed=0)
    assert found.brier == pytest.approx((0.01 + 0.01 + 0.04 + 0.64) / 4)
    assert found.auroc == 1.0  # the wrong one has the least confidence


def test_too_few_answers_tell_nothing() -> None:
    few = reliability_of("small", np.full(29, 0.5), np.ones(29, dtype=bool), seed=0)
    assert (few.ece, few.perfect_ece, few.perfect_ece_high) == (None, None, None)
    assert (few.brier, few.auroc) == (None, None)
    assert [b.n for b in few.bins] == [15, 14]
    fewer = reliability_of("small", np.full(9, 0.5), np.ones(9, dtype=bool), seed=0)
    assert fewer.bins == ()


def test_a_tier_that_is_always_right_orders_nothing() -> None:
    found = reliability_of("small", np.linspace(0.5, 1, 30), np.ones(30, dtype=bool), seed=0)
    assert found.auroc is None
    assert found.ece is not None


def test_a_tier_without_scores_tells_nothing() -> None:
    found = reliability_of("small", np.full(50, np.nan), np.ones(50, dtype=bool), seed=0)
    assert (found.n, found.n_unscored, found.bins) == (0, 50, ())
    assert (found.ece, found.brier, found.auroc) == (None, None, None)
