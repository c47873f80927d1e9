"""The path of policies: thresholds worked out by hand, and how it runs from strict to lax."""

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.path import policy_at_price, price_path
from hybridserve_llm.calibration.policies import NEVER, Band, replay

Make = Callable[..., Outcomes]
NAN = math.nan


@pytest.mark.parametrize(
    ("price", "threshold"),
    [
        # Accepting costs price * risk, going on costs 10: accepted is risk <= 10 / price, and the
        # threshold lies halfway to the next risk that was seen.
        (1000.0, NEVER),  # 0.01 is below every risk
        (500.0, 0.035),  # 0.02 itself: between 0.02 and 0.05
        (125.0, 0.075),  # 0.08: between 0.05 and 0.1
        (100.0, 0.25),  # 0.1 itself: between 0.1 and 0.4
        (10.0, 0.7),  # 1: everything, up to halfway between 0.4 and 1
    ],
)
def test_two_tiers_accept_up_to_the_cost_of_the_last_over_the_price(
    price: float, threshold: float
) -> None:
    risks = {(0,): np.array([0.4, 0.05, NAN, 0.02, 0.1])}
    policy = policy_at_price((0, 1), risks, np.array([1.0, 10.0]), price)
    assert policy.chain == (0, 1)
    assert policy.rules[0,].accept_at_most == pytest.approx(threshold)
    assert policy.rules[0,].bands == (Band(risk_above=policy.rules[0,].accept_at_most, to_tier=1),)


def test_what_the_first_tier_costs_does_not_move_its_threshold() -> None:
    risks = {(0,): np.array([0.02, 0.05, 0.1, 0.4])}
    rules = [
        policy_at_price((0, 1), risks, np.array([cost, 10.0]), 125.0).rules for cost in (0.1, 9.0)
    ]
    assert rules[0] == rules[1]


def test_a_middle_tier_that_is_never_wrong_lowers_the_price_of_going_on() -> None:
    # Tier 1's answer has no risk: going on costs 10, not 100. At a price of 100 tier 0 is accepted
    # up to a risk of 0.1, where it would be 1 with tier 2 alone above it.
    risks = {
        (0,): np.array([0.05, 0.09, 0.3, 0.8]),
        (1,): np.zeros(4),
        (0, 1): np.zeros(4),
    }
    policy = policy_at_price((0, 1, 2), risks, np.array([1.0, 10.0, 100.0]), 100.0)
    assert policy.rules[0,].accept_at_most == pytest.approx(0.195)
    assert [band.to_tier for band in policy.rules[0,].bands] == [1]
    direct = policy_at_price((0, 2), risks, np.array([1.0, 10.0, 100.0]), 100.0)
    assert direct.rules[0,].accept_at_most == pytest.approx(0.9)


def test_a_middle_tier_that_never_helps_is_skipped_by_all() -> None:
    # Its answers are surely harmful: asking it costs 10 and then the 100 of tier 2.
    risks = {(0,): np.array([0.3, 0.6, 0.9]), (1,): np.ones(3), (0, 1): np.ones(3)}
    policy = policy_at_price((0, 1, 2), risks, np.array([1.0, 10.0, 100.0]), 1000.0)
    assert [band.to_tier for band in policy.rules[0,].bands] == [2]


def test_a_band_skips_the_middle_tier_where_it_never_helps(make_table: Make) -> None:
    # Tier 1 is safe on the 100 questions where tier 0's risk is 0.2 and useless on the 100 where it
    # is 0.9. At a price of 1000 tier 0 is accepted at 0.005 (5 < 10). Going on by tier 1 costs 10
    # at 0.2 and 110 at 0.9, where tier 2 costs 100. The bounds lie halfway between the risks.
    risks = {
        (0,): np.array([0.005] + [0.2] * 100 + [0.9] * 100),
        (1,): np.zeros(201),
        (0, 1): np.array([0.0] * 101 + [1.0] * 100),
    }
    outcomes = make_table([[1, 1, 1]] * 201)
    policy = policy_at_price((0, 1, 2), risks, outcomes.costs, 1000.0)
    rule = policy.rules[0,]
    assert rule.accept_at_most == pytest.approx((0.005 + 0.2) / 2)
    assert [band.to_tier for band in rule.bands] == [1, 2]
    assert [band.risk_above for band in rule.bands] == pytest.approx([0.1025, 0.55])
    done = replay(policy, risks, outcomes)
    assert done.answering.tolist() == [0] + [1] * 100 + [2] * 100
    assert done.costs(outcomes).tolist() == [1] + [11] * 100 + [101] * 100


def test_scores_that_are_all_missing_accept_nothing() -> None:
    nothing = np.full(4, NAN)
    risks = {(0,): nothing, (1,): nothing, (0, 1): nothing}
    policy = policy_at_price((0, 1, 2), risks, np.array([1.0, 10.0, 100.0]), 100.0)
    assert all(rule.accept_at_most == NEVER for rule in policy.rules.values())


def test_the_path_of_the_last_tier_alone_is_one_policy(make_table: Make) -> None:
    (policy,) = price_path((1,), {}, make_table([[1, 1]]), 30)
    assert policy.chain == (1,)
    assert policy.rules == {}


def test_the_path_runs_from_next_to_nothing_to_all(make_table: Make) -> None:
    # Prices are 300 ... 0.75 in costs of the last tier: risks up to 1/300 ... 4/3 are accepted.
    risks = {(0,): np.array([0.001, 0.003, 0.004, 0.5, 0.999])}
    outcomes = make_table([[1, 1]] * 5)
    path = price_path((0, 1), risks, outcomes, 150)
    accepted = [int((replay(policy, risks, outcomes).answering == 0).sum()) for policy in path]
    assert accepted == [2, 3, 4, 5]  # each policy once


RISKS = st.lists(st.one_of(st.floats(0.0, 1.0), st.just(NAN)), min_size=1, max_size=30)


@settings(deadline=None)
@given(RISKS, st.integers(2, 40))
def test_with_two_tiers_a_lower_price_never_accepts_less(
    make_table: Make, values: list[float], n_prices: int
) -> None:
    outcomes, risks = make_table([[1, 1]] * len(values)), {(0,): np.array(values)}
    path = price_path((0, 1), risks, outcomes, n_prices)
    accepted = [replay(policy, risks, outcomes).answering == 0 for policy in path]
    for stricter, laxer in pairwise(accepted):
        assert (laxer >= stricter).all()
    assert (accepted[-1] == ~np.isnan(values)).all()
    assert len({policy.shape() for policy in path}) == len(path)


@settings(deadline=None)
@given(st.lists(st.tuples(*[st.floats(0.0, 1.0)] * 3), min_size=1, max_size=25), st.floats(1, 3e4))
def test_thresholds_and_bands_rise(rows: list[tuple[float, float, float]], price: float) -> None:
    columns = np.array(rows).T
    risks = dict(zip([(0,), (1,), (0, 1)], columns, strict=True))
    policy = policy_at_price((0, 1, 2), risks, np.array([1.0, 10.0, 100.0]), price)
    assert set(policy.rules) == set(risks)
    for state, rule in policy.rules.items():
        assert rule.bands[0].risk_above == rule.accept_at_most
        for low, high in pairwise(rule.bands):
            assert low.risk_above <= high.risk_above
            assert low.to_tier < high.to_tier
        assert all(band.to_tier > state[-1] for band in rule.bands)
