"""Shares of the prompts, by hand: the last tier costs 10."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.calibration.outcomes import Outcomes, draws_of
from hybridserve_llm.calibration.policies import (
    NEVER,
    NO_TIER,
    Band,
    StateRule,
    WholePolicy,
    replay,
)
from hybridserve_llm.calibration.sharing import PathFigures, best_pivot, growing_shares

Make = Callable[..., Outcomes]
LAST_COST = 10.0
ACCEPTS_ALL = WholePolicy(
    chain=(0, 1),
    rules={(0,): StateRule(accept_at_most=1.0, bands=(Band(risk_above=1.0, to_tier=1),))},
)


def figures(
    costs: list[float], losses: list[float], harm_of_accepted: list[float] | None = None
) -> PathFigures:
    harm = [0.1] * len(costs) if harm_of_accepted is None else harm_of_accepted
    return PathFigures(
        costs=np.array(costs), losses=np.array(losses), harm_of_accepted=np.array(harm)
    )


def test_a_share_of_a_lax_policy_beats_a_strict_one_above_the_line() -> None:
    # At a loss of 0.02 the strict policy costs 9; half of the prompts by the lax one cost
    # (2 + 10) / 2 = 6, at the same loss. It saves 4 in place of 1.
    found = best_pivot(figures([9.0, 2.0], [0.02, 0.04]), np.array([0.02]), LAST_COST)
    assert (found.index, found.mean_cost, found.mean_cost_without) == (1, pytest.approx(6.0), 9.0)
    assert found.is_worth_it


def test_strict_policies_below_the_line_are_walked_as_they_are() -> None:
    # The strict policy costs 4 at 0.02, and a share of the lax one 6.
    found = best_pivot(figures([4.0, 2.0], [0.02, 0.04]), np.array([0.02]), LAST_COST)
    assert found.mean_cost == found.mean_cost_without == 4.0
    assert not found.is_worth_it


@pytest.mark.parametrize(("strict_cost", "is_worth_it"), [(6.35, False), (6.37, True)])
def test_a_share_must_save_a_tenth_more_than_thresholds_do(
    strict_cost: float, is_worth_it: bool
) -> None:
    # The share costs 6 and saves 4; thresholds may save 4 / 1.1 = 3.636 at the most.
    found = best_pivot(figures([strict_cost, 2.0], [0.02, 0.04]), np.array([0.02]), LAST_COST)
    assert found.is_worth_it == is_worth_it


def test_after_the_pivot_the_path_goes_on_to_laxer_policies() -> None:
    # Pivot 0 at level 0.01: a half of it, (4 + 10) / 2 = 7; at 0.04 the laxer one, 2. As it is, the
    # path costs 10 and 2.
    path = figures([4.0, 2.0], [0.02, 0.04])
    found = best_pivot(path, np.array([0.01, 0.04]), LAST_COST)
    assert (found.index, found.mean_cost) == (0, pytest.approx((7.0 + 2.0) / 2))
    assert found.mean_cost_without == pytest.approx((10.0 + 2.0) / 2)


def test_where_half_of_what_is_accepted_does_harm_nothing_is_shared() -> None:
    harmful = best_pivot(figures([1.0], [0.5], [0.5]), np.array([0.02]), LAST_COST)
    assert harmful.index is None
    assert not harmful.is_worth_it
    tolerable = best_pivot(figures([1.0], [0.5], [0.49]), np.array([0.02]), LAST_COST)
    assert tolerable.index == 0
    assert tolerable.is_worth_it


def test_what_costs_more_than_the_last_tier_is_not_worth_it() -> None:
    found = best_pivot(figures([10.5], [0.01]), np.array([0.02]), LAST_COST)
    assert found.mean_cost == LAST_COST
    assert not found.is_worth_it


@given(
    st.lists(
        st.tuples(st.floats(0.5, 12.0), st.floats(-0.1, 0.5), st.floats(0.0, 1.0)),
        min_size=1,
        max_size=8,
    )
)
def test_a_pivot_never_costs_more_than_the_path_or_the_last_tier(
    steps: list[tuple[float, float, float]],
) -> None:
    costs, losses, harm = map(list, zip(*steps, strict=True))
    path, levels = figures(costs, losses, harm), np.array([0.01, 0.02, 0.04])
    found = best_pivot(path, levels, LAST_COST)
    without = best_pivot(figures(costs, losses, [1.0] * len(costs)), levels, LAST_COST)
    assert without.index is None
    assert found.mean_cost <= without.mean_cost <= LAST_COST
    assert found.mean_cost >= 0


def test_shares_grow_to_the_whole() -> None:
    path = growing_shares(ACCEPTS_ALL, 4)
    assert [policy.share for policy in path] == [0.25, 0.5, 0.75, 1.0]
    assert path[-1] == ACCEPTS_ALL
    assert len({policy.shape() for policy in path}) == 4


def test_the_questions_beyond_the_share_ask_only_the_last_tier(make_table: Make) -> None:
    outcomes = replace(make_table([[1, 1]] * 4), draws=np.array([0.0, 0.49, 0.5, 0.99]))
    done = replay(replace(ACCEPTS_ALL, share=0.5), {(0,): np.zeros(4)}, outcomes)
    assert done.answering.tolist() == [0, 0, 1, 1]
    assert done.was_asked.tolist() == [[True, False], [True, False], [False, True], [False, True]]


def test_a_gate_sees_only_the_share(make_table: Make) -> None:
    # The gate sends risks above 0.5 to tier 1, the others to tier 0.
    gate = StateRule(
        accept_at_most=NEVER,
        bands=(Band(risk_above=NEVER, to_tier=0), Band(risk_above=0.5, to_tier=1)),
    )
    policy = replace(ACCEPTS_ALL, rules={**ACCEPTS_ALL.rules, NO_TIER: gate}, share=0.5)
    outcomes = replace(make_table([[1, 1]] * 4), draws=np.array([0.1, 0.2, 0.8, 0.9]))
    risks = {NO_TIER: np.array([0.1, 0.9, 0.1, 0.9]), (0,): np.zeros(4)}
    assert replay(policy, risks, outcomes).answering.tolist() == [0, 1, 1, 1]


def test_draws_are_the_same_for_the_same_question_and_spread_evenly() -> None:
    questions = [("test", str(i)) for i in range(2000)]
    draws = draws_of(questions)
    assert draws.tolist() == draws_of(questions).tolist()
    assert draws_of(questions[:1] * 2).tolist() == [draws[0]] * 2
    # Each tenth holds 200 of 2,000; three standard deviations are 3 * sqrt(180) = 40.
    counts, _ = np.histogram(draws, np.linspace(0, 1, 11))
    assert (abs(counts - 200) <= 40).all()
