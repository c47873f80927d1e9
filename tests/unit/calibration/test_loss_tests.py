"""The p-values: against hand-worked tails, brute force, exact sizes and MAPIE."""

import math
from collections.abc import Iterable
from functools import cache
from itertools import pairwise, product

import numpy as np
import pytest
from mapie.risk_control import BinaryClassificationController, BinaryRisk
from scipy import optimize, stats

from hybridserve_llm.calibration.loss_tests import harm_p_value, net_p_value
from hybridserve_llm.calibration.outcomes import Bools, Floats

DELTAS = (0.05, 0.1, 0.2)
NUISANCE_RISK = 0.002  # what bounding the rescue rate costs, by the docstring of net_p_value
ROUNDING = 1e-9

p_of_table = cache(net_p_value)


def tables(n: int) -> Iterable[tuple[int, int]]:
    """(lost, rescued) of every outcome of n questions."""
    return ((a, b) for a in range(n + 1) for b in range(n + 1 - a))


# ---------------------------------------------------------------------------------------- harm


@pytest.mark.parametrize(
    ("n_harmed", "n", "epsilon", "expected"),
    [
        (0, 114, 0.02, 0.98**114),  # none of 114
        (0, 1, 0.25, 0.75),
        (1, 2, 0.5, 0.75),  # 1/4 + 2/4
        (1, 3, 0.1, 0.972),  # 0.9^3 + 3 * 0.1 * 0.9^2 = 0.729 + 0.243
        (2, 4, 0.5, 11 / 16),  # (1 + 4 + 6) / 16
        (3, 3, 0.02, 1.0),
    ],
)
def test_harm_p_value_is_the_lower_binomial_tail(
    n_harmed: int, n: int, epsilon: float, expected: float
) -> None:
    assert harm_p_value(n_harmed, n, epsilon) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("epsilon", "delta", "n"),
    # notes/confidence.md section 5: n >= ln(delta) / ln(1 - epsilon), e.g. 2.303 / 0.0202 = 113.97.
    [
        (0.05, 0.1, 45),
        (0.02, 0.1, 114),
        (0.02, 0.05, 149),
        (0.01, 0.1, 230),
        (0.01, 0.05, 299),
        (0.005, 0.1, 460),
    ],
)
def test_labels_that_are_needed_when_no_harm_is_seen(epsilon: float, delta: float, n: int) -> None:
    assert harm_p_value(0, n, epsilon) <= delta < harm_p_value(0, n - 1, epsilon)


@pytest.mark.parametrize(("n", "allowed"), [(300, 2), (500, 5), (1000, 13), (3000, 49)])
def test_harms_that_are_allowed(n: int, allowed: int) -> None:
    # The table of notes/confidence.md section 5, for epsilon 0.02 and delta 0.1.
    assert harm_p_value(allowed, n, 0.02) <= 0.1 < harm_p_value(allowed + 1, n, 0.02)


def everywhere(_harms: Bools, accepted: Bools) -> Bools:
    return np.ones(len(accepted), dtype=bool)


def threshold_of_mapie(confidence: Floats, harms: Bools, grid: Floats) -> float | None:
    """Fixed-sequence testing by MAPIE 1.6, called as in notes/confidence.md section 14."""
    controller = BinaryClassificationController(
        predict_function=lambda x: np.c_[1 - x, x],
        risk=BinaryRisk(
            lambda harms, accepted: (accepted == 1) & (harms == 1),
            everywhere,
            higher_is_better=False,
        ),
        target_level=0.02,
        confidence_level=0.9,
        fwer_method="fixed_sequence",
        list_predict_params=grid,
        best_predict_param_choice=BinaryRisk(
            lambda _harms, accepted: accepted == 1, everywhere, higher_is_better=True
        ),
    )
    controller.calibrate(confidence, harms.astype(int))
    return controller.best_predict_param


def threshold_of_harm_p_value(confidence: Floats, harms: Bools, grid: Floats) -> float | None:
    certified = None
    for threshold in grid:
        n_harmed = int((harms & (confidence >= threshold)).sum())
        if harm_p_value(n_harmed, len(harms), 0.02) > 0.1:
            break
        certified = float(threshold)
    return certified


@pytest.mark.parametrize("seed", range(6))
def test_mapie_stops_at_the_same_threshold(seed: int) -> None:
    # Harm grows rarer with the confidence.
    rng = np.random.default_rng(seed)
    confidence = rng.random(700)
    harms = rng.random(700) < 0.25 * (1 - confidence) ** (1 + seed % 3)
    grid = np.linspace(0.98, 0.02, 25)
    ours = threshold_of_harm_p_value(confidence, harms, grid)
    assert threshold_of_mapie(confidence, harms, grid) == ours
    assert ours is not None
    assert grid[-1] < ours < grid[0]


def test_mapie_certifies_nothing_either_where_every_answer_does_harm() -> None:
    confidence = np.random.default_rng(0).random(700)
    harms, grid = np.ones(700, dtype=bool), np.linspace(0.9, 0.1, 9)
    assert threshold_of_harm_p_value(confidence, harms, grid) is None
    with pytest.warns(UserWarning, match="No predict parameters were found"):
        assert threshold_of_mapie(confidence, harms, grid) is None


# ----------------------------------------------------------------------------------------- net


@pytest.mark.parametrize(("n_lost", "n_rescued"), [(2, 0), (20, 8), (200, 0), (5, 3)])
def test_net_p_value_is_1_where_the_loss_seen_is_not_below_epsilon(
    n_lost: int, n_rescued: int
) -> None:
    # At n = 100 and epsilon = 0.02 the bound is a net loss of 2 questions.
    assert net_p_value(n_lost, n_rescued, max(100, n_lost), 0.02) == 1.0


@pytest.mark.parametrize(
    ("n", "epsilon"), [(20, 0.1), (114, 0.02), (300, 0.02), (600, 0.02), (600, 0.01)]
)
def test_without_rescues_net_is_never_surer_than_harm(n: int, epsilon: float) -> None:
    # A rescue rate of 0 is never excluded then, and gives the binomial tail; the surcharge is on
    # top. So net <= delta with no rescue implies harm <= delta - 0.002.
    for n_lost in range(math.ceil(n * epsilon)):
        tail = harm_p_value(n_lost, n, epsilon)
        assert net_p_value(n_lost, 0, n, epsilon) >= min(1.0, tail + NUISANCE_RISK)


def test_rescues_allow_losses_that_harm_does_not() -> None:
    # 10 lost of 600 is far from a harm of 2 % being excluded (9 to 13 are expected: p = 0.35), ...
    assert harm_p_value(10, 600, 0.02) > 0.3
    # ... 8 rescues against them make the net loss 2 of 600, which is.
    assert net_p_value(10, 8, 600, 0.02) < 0.05
    # The example of the module docstring: ten rescues, a net loss of 5, at delta = 0.1.
    assert net_p_value(15, 10, 600, 0.02) <= 0.1 < net_p_value(16, 10, 600, 0.02)


@pytest.mark.parametrize(("n", "epsilon"), [(16, 0.2), (30, 0.05)])
def test_net_p_value_rises_with_the_lost_and_falls_with_the_rescued(n: int, epsilon: float) -> None:
    for lost, rescued in tables(n - 1):
        p_value = p_of_table(lost, rescued, n, epsilon)
        assert p_of_table(lost + 1, rescued, n, epsilon) >= p_value - ROUNDING
        assert p_of_table(lost, rescued + 1, n, epsilon) <= p_value + ROUNDING


def restricted_log_likelihood(q: float, lost: int, rescued: int, n: int, epsilon: float) -> float:
    parts = ((lost, q + epsilon), (rescued, q), (n - lost - rescued, 1 - 2 * q - epsilon))
    return sum(count * math.log(max(p, 1e-300)) for count, p in parts if count)


@cache
def brute_force_statistic(lost: int, rescued: int, n: int, epsilon: float) -> float:
    """Tango's score statistic, the rescue rate found by a numerical search."""
    found = optimize.minimize_scalar(
        lambda q: -restricted_log_likelihood(q, lost, rescued, n, epsilon),
        bounds=(0.0, (1 - epsilon) / 2),
        method="bounded",
        options={"xatol": 1e-12},
    )
    ends = (float(found.x), 0.0, (1 - epsilon) / 2)
    q = max(ends, key=lambda q: restricted_log_likelihood(q, lost, rescued, n, epsilon))
    return (lost - rescued - n * epsilon) / math.sqrt(n * (2 * q + epsilon - epsilon**2))


@pytest.mark.parametrize(("n", "epsilon"), [(12, 0.1), (16, 0.2), (20, 0.05)])
def test_net_p_value_covers_a_fine_search_over_the_rescue_rate(n: int, epsilon: float) -> None:
    every = list(tables(n))
    lost, rescued = np.array(every).T
    statistics = np.array([brute_force_statistic(a, b, n, epsilon) for a, b in every])
    coefficients = np.array([math.comb(n, a) * math.comb(n - a, b) for a, b in every])
    for a, b in every[:: n // 4]:
        interval = stats.binomtest(b, n).proportion_ci(1 - NUISANCE_RISK, method="exact")
        greatest = (1 - epsilon) / 2
        rates = np.linspace(min(interval.low, greatest), min(interval.high, greatest), 1000)
        as_good = statistics <= brute_force_statistic(a, b, n, epsilon) + 1e-6
        q = rates[:, None]
        masses = (
            coefficients[as_good]
            * (q + epsilon) ** lost[as_good]
            * q ** rescued[as_good]
            * np.maximum(1 - 2 * q - epsilon, 0.0) ** (n - lost - rescued)[as_good]
        )
        worst = float(masses.sum(axis=1).max())
        p_value = net_p_value(a, b, n, epsilon)
        assert p_value >= min(worst, 1.0) - ROUNDING
        if p_value < 1:  # nor is it more careful than it says
            assert p_value <= worst + NUISANCE_RISK + 1e-6


@pytest.mark.parametrize(("n", "epsilon"), [(16, 0.2), (30, 0.05)])
def test_net_errs_at_most_delta_of_the_time_by_enumeration(n: int, epsilon: float) -> None:
    every = np.array(list(tables(n)))
    p_values = np.array([p_of_table(int(a), int(b), n, epsilon) for a, b in every])
    counts = np.column_stack([every, n - every.sum(axis=1)])
    null = [
        (lost, rescued)
        for rescued, further in product(np.linspace(0, (1 - epsilon) / 2, 80), (0, 0.01, 0.1))
        if (lost := rescued + epsilon + further) + rescued <= 1
    ]
    sizes = []
    for lost, rescued in null:
        rates = [lost, rescued, max(0.0, 1 - lost - rescued)]
        masses = stats.multinomial.pmf(counts, n, rates)
        sizes.append([masses[p_values <= delta].sum() for delta in DELTAS])
    worst = np.max(sizes, axis=0)
    assert (worst <= DELTAS).all()
    assert (worst >= 0.5 * np.array(DELTAS)).all()  # and most of delta is used


def test_net_errs_at_most_delta_of_the_time_at_600_questions() -> None:
    # Exact in place of a simulation: a table is rejected where its lost ones are at most a number
    # that depends on its rescued ones (the test of monotony above), so the size is a sum of tails.
    n, epsilon, delta, most_rescued = 600, 0.02, 0.1, 36
    most_lost: list[int] = []
    for rescued in range(most_rescued + 1):
        lost = most_lost[-1] if most_lost else -1
        while net_p_value(lost + 1, rescued, n, epsilon) <= delta:
            lost += 1
        most_lost.append(lost)
    assert all(one <= other for one, other in pairwise(most_lost))
    rescued = np.arange(most_rescued + 1)
    for rate in np.linspace(0.0, 0.03, 61):
        beyond = stats.binom.sf(most_rescued, n, rate)
        good = stats.binom.cdf(most_lost, n - rescued, (rate + epsilon) / (1 - rate))
        size = float((stats.binom.pmf(rescued, n, rate) * good).sum() + beyond)
        assert size <= delta
        assert size >= 0.5 * delta


# ------------------------------------------------------------------------------------- betting


def test_exact_allows_more_than_betting_for_answers_right_or_wrong() -> None:
    # Why the exact test is used for them. With 10 rescued of 600 the best bet in hindsight (0.43,
    # 0.38) turns 1 into e^2.576 = 13.1 at 11 lost and into e^2.062 = 7.9 at 12; 10 is needed. The
    # exact test allows 15 (above).
    differences = np.array([1.0] * 12 + [-1.0] * 10 + [0.0] * 578)
    bets = np.linspace(0.01, 0.99, 99)
    best_wealth = max(float(np.log1p(bet * (0.02 - differences)).sum()) for bet in bets)
    assert best_wealth == pytest.approx(2.062, abs=1e-3)  # the logarithm
    assert net_p_value(12, 10, 600, 0.02) <= 0.1 < np.exp(-best_wealth)
