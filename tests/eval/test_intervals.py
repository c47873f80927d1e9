"""Intervals: known values, whole groups drawn, nothing claimed from too little."""

from statistics import NormalDist

import numpy as np
import pytest

from eval.judging.intervals import paired_interval, share_interval, wilson_interval


def test_wilson_interval_of_eight_in_ten() -> None:
    # z = 1.95996; centre (0.8 + z^2/20) / (1 + z^2/10) = 0.71674,
    # half width z sqrt(0.8 * 0.2 / 10 + z^2/400) / (1 + z^2/10) = 0.22659
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)


@pytest.mark.parametrize("n", [1, 5, 7, 1000])
def test_wilson_interval_holds_its_share_at_both_ends(n: int) -> None:
    z2 = NormalDist().inv_cdf(0.975) ** 2
    none, all_of_them = wilson_interval(0, n), wilson_interval(n, n)
    assert none == pytest.approx((0.0, z2 / (n + z2)))
    assert all_of_them == pytest.approx((n / (n + z2), 1.0))
    assert none is not None
    assert none[0] <= 0.0
    assert all_of_them is not None
    assert all_of_them[1] >= 1.0


def test_no_questions_have_no_interval() -> None:
    assert wilson_interval(0, 0) is None


def test_paired_interval_is_as_wide_as_the_standard_error_says() -> None:
    differences = np.array([1.0, -1.0] * 200)  # mean 0, standard error 1 / sqrt(400) = 0.05
    interval = paired_interval(differences, [None] * 400, seed=0)
    assert interval == pytest.approx((-0.098, 0.098), abs=0.012)
    assert interval == paired_interval(differences, [None] * 400, seed=0)


def test_questions_of_a_group_are_drawn_together() -> None:
    differences = np.repeat([1.0, -1.0] * 50, 4)  # 100 groups of four equal ones: 1 / sqrt(100)
    groups = [f"user {i // 4}" for i in range(400)]
    assert paired_interval(differences, groups, seed=0) == pytest.approx((-0.196, 0.196), abs=0.024)


def test_a_group_weighs_by_its_questions() -> None:
    differences = np.array([1.0] * 30 + [0.0] * 30)
    groups = ["one"] * 30 + [None] * 30  # "one" is drawn Binomial(31, 1/31) times, 97.5 %: 3
    interval = paired_interval(differences, groups, seed=0)
    assert interval is not None
    assert interval[0] == 0.0
    assert interval[1] == pytest.approx(3 * 30 / (3 * 30 + 28))


@pytest.mark.parametrize(
    ("differences", "groups"),
    [
        (np.array([1.0] + [0.0] * 18), [None] * 19),  # 19 questions
        (np.array([1.0] + [0.0] * 99), ["a", "b"] * 50),  # two groups
        (np.zeros(100), [None] * 100),  # no difference at all
    ],
)
def test_too_little_gives_no_interval(differences: np.ndarray, groups: list[str | None]) -> None:
    assert paired_interval(differences, groups, seed=0) is None


def test_a_share_without_groups_is_wilson_s_and_with_groups_draws_them_whole() -> None:
    is_hit = np.repeat([True, False] * 50, 4)  # 100 groups of four alike, half of them hits
    alone = share_interval(is_hit, [None] * 400, seed=0)
    assert alone == wilson_interval(200, 400)
    # Standard error of 100 independent groups: sqrt(0.25 / 100) = 0.05.
    groups = [f"user {i // 4}" for i in range(400)]
    assert share_interval(is_hit, groups, seed=0) == pytest.approx((0.402, 0.598), abs=0.012)
    assert share_interval(is_hit, ["one", *[None] * 399], seed=0) != alone
    assert share_interval(is_hit, ["a", "b"] * 200, seed=0) is None  # two groups tell nothing
