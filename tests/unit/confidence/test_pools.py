"""The pools: hand-worked values, and what holds of every answer."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.confidence.pools import (
    first_logprob,
    first_margin,
    log_length,
    lowest_window_mean,
    mean_logprob,
    mean_margin,
    min_logprob,
    min_margin,
    quantile_logprob,
    quantile_of_sorted,
    sum_logprob,
    tail_mean,
    unsure_share_of_sorted,
)

LOGPROBS = st.lists(st.floats(-100.0, 0.0), min_size=1, max_size=80)
MARGINS = st.lists(st.floats(0.0, 1.0), min_size=1, max_size=80)
WIDTH = st.integers(1, 20)
ROUNDING = 1e-9


def test_sum_mean_and_minimum() -> None:
    # -0.5 - 0.25 - 0.25 - 3 = -4, over 4 tokens -1, the least -3; all exact in binary.
    logprobs = (-0.5, -0.25, -0.25, -3.0)
    assert sum_logprob(logprobs) == -4.0
    assert mean_logprob(logprobs) == -1.0
    assert min_logprob(logprobs) == -3.0


@pytest.mark.parametrize(
    ("quantile", "expected"),
    [
        (0.0, -4.0),  # rank max(1, ceil(0)) = 1: the least
        (0.05, -4.0),  # ceil(0.05 * 4) = 1
        (0.5, -3.0),  # ceil(0.5 * 4) = 2: second smallest
        (0.51, -2.0),  # ceil(2.04) = 3
        (1.0, -1.0),  # rank 4: the greatest
    ],
)
def test_quantile_is_the_inverse_distribution_function(quantile: float, expected: float) -> None:
    assert quantile_logprob([-1.0, -2.0, -3.0, -4.0], quantile) == expected
    assert quantile_of_sorted([-4.0, -3.0, -2.0, -1.0], quantile) == expected


def test_quantile_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        quantile_logprob([], 0.05)


def test_unsure_tokens_are_those_below_even_odds() -> None:
    # e^-1 = 0.37 and e^-0.7 = 0.497 are below 1/2; e^-0.69 = 0.502 and 1 are not; nor is 1/2.
    assert unsure_share_of_sorted((-1.0, -0.7, math.log(0.5), -0.69, 0.0)) == 2 / 5


def test_the_lowest_window() -> None:
    # Windows of 2: -0.5, -2.5, -3.0, -1.5, -0.5 (sums -1, -5, -6, -3, -1); the lowest is -3.
    logprobs = (0.0, -1.0, -4.0, -2.0, -1.0, 0.0)
    assert lowest_window_mean(logprobs, 2) == -3.0
    # Windows of 3: sums -5, -7, -7, -3; -7 / 3.
    assert lowest_window_mean(logprobs, 3) == pytest.approx(-7 / 3)


@pytest.mark.parametrize("width", [3, 4, 16])
def test_a_window_as_wide_as_the_answer_is_its_mean(width: int) -> None:
    assert lowest_window_mean((-1.0, -2.0, -6.0), width) == -3.0
    assert tail_mean((-1.0, -2.0, -6.0), width) == -3.0


def test_the_tail_is_the_last_tokens() -> None:
    assert tail_mean((-9.0, -1.0, -2.0), 2) == -1.5


def test_the_first_token() -> None:
    assert first_logprob((-0.5, -9.0)) == -0.5
    assert first_margin((0.75, 0.0)) == 0.75


def test_log_length() -> None:
    assert log_length(0) == 0.0
    assert log_length(1) == pytest.approx(0.693147, abs=1e-6)  # log 2


def test_margins() -> None:
    assert mean_margin((0.5, 0.25, 0.75)) == 0.5
    assert min_margin((0.5, 0.25, 0.75)) == 0.25


@pytest.mark.parametrize(
    "pool", [mean_logprob, min_logprob, first_logprob, mean_margin, min_margin, first_margin]
)
def test_a_pool_of_no_tokens_is_an_error(pool) -> None:
    with pytest.raises((ValueError, ZeroDivisionError, IndexError)):
        pool(())


@given(LOGPROBS)
def test_minimum_quantiles_and_zero_are_in_order(logprobs: list[float]) -> None:
    ordered = sorted(logprobs)
    quantiles = [quantile_of_sorted(ordered, q / 20) for q in range(21)]
    assert quantiles == sorted(quantiles)
    assert quantiles[0] == min_logprob(logprobs)
    assert quantiles[-1] == max(logprobs) <= 0
    assert quantiles[7] == quantile_logprob(logprobs, 7 / 20)


@given(LOGPROBS, WIDTH)
def test_means_lie_between_the_least_and_the_greatest(logprobs: list[float], width: int) -> None:
    low, high = min(logprobs) - ROUNDING, max(logprobs) + ROUNDING
    mean, lowest = mean_logprob(logprobs), lowest_window_mean(logprobs, width)
    tail = tail_mean(logprobs, width)
    assert low <= mean <= high
    assert low <= lowest <= tail + ROUNDING
    assert tail <= high
    assert lowest <= 0


@given(LOGPROBS, WIDTH)
def test_the_lowest_window_is_the_least_of_all_windows(logprobs: list[float], width: int) -> None:
    width = min(width, len(logprobs))
    windows = [logprobs[i : i + width] for i in range(len(logprobs) - width + 1)]
    expected = min(math.fsum(window) / width for window in windows)
    assert lowest_window_mean(logprobs, width) == pytest.approx(expected, abs=ROUNDING)


@given(st.data(), LOGPROBS)
def test_order_does_not_matter_where_it_should_not(data: st.DataObject, logprobs) -> None:
    shuffled = data.draw(st.permutations(logprobs))
    assert sum_logprob(shuffled) == sum_logprob(logprobs)
    assert mean_logprob(shuffled) == mean_logprob(logprobs)
    assert min_logprob(shuffled) == min_logprob(logprobs)
    assert quantile_logprob(shuffled, 0.1) == quantile_logprob(logprobs, 0.1)


@given(LOGPROBS)
def test_the_unsure_share_counts_what_it_says(logprobs: list[float]) -> None:
    expected = sum(value < math.log(0.5) for value in logprobs) / len(logprobs)
    assert unsure_share_of_sorted(sorted(logprobs)) == expected


@given(MARGINS)
def test_margins_are_in_bounds(margins: list[float]) -> None:
    assert 0 <= min_margin(margins) <= mean_margin(margins) + ROUNDING <= 1 + 2 * ROUNDING
    assert min_margin(margins) <= first_margin(margins) <= 1
