"""Ways of answering, on a handful of questions whose figures are worked out by hand."""

import numpy as np
import pytest

from eval.judging.accuracy_and_cost import (
    accuracy_and_cost,
    oracle_and_perfect_chain,
    policy_point,
    served_policy,
    tier_alone,
)
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import (
    Band,
    Risks,
    StateRule,
    WholePolicy,
    escalate_all,
    replay,
)


def outcomes(is_right: list[list[int]], costs: list[float]) -> Outcomes:
    right = np.array(is_right, dtype=bool)
    n, n_tiers = right.shape
    return Outcomes(
        tiers=tuple(f"t{i}" for i in range(n_tiers)),
        is_right=right,
        scores=np.full((n, n_tiers), -1.0),
        answers=np.where(right, 0, 1),
        costs=np.array(costs),
        prompt_features=np.zeros((n, 1)),
        prompt_feature_names=("length",),
        answer_features=np.empty((n, n_tiers, 0)),
        answer_feature_names=(),
        questions=tuple(range(n)),
        draws=np.zeros(n),
        groups=(None,) * n,
    )


TWO_TIERS = outcomes([[1, 1], [0, 1], [1, 1], [0, 1]], [1.0, 10.0])
ACCEPT_TENTH = WholePolicy(
    chain=(0, 1),
    rules={(0,): StateRule(accept_at_most=0.1, bands=(Band(risk_above=0.1, to_tier=1),))},
)
RISKS: Risks = {(0,): np.array([0.05, 0.05, 0.2, np.nan])}


def test_mean_accuracy_and_cost() -> None:
    way = accuracy_and_cost(
        "x", np.array([True, True, False, True]), np.array([1.0, 2.0, 3.0, 4.0])
    )
    assert (way.name, way.accuracy, way.mean_cost) == ("x", 0.75, 2.5)
    assert way.accuracy_interval is not None
    assert way.accuracy_interval[0] < 0.75 < way.accuracy_interval[1]


def test_a_tier_alone_costs_the_same_for_every_question() -> None:
    way = tier_alone(TWO_TIERS, 0)
    assert (way.name, way.accuracy, way.mean_cost) == ("t0", 0.5, 1.0)


def test_oracle_and_perfect_chain() -> None:
    table = outcomes(
        [
            [1, 1, 1],  # t0
            [0, 1, 1],  # t1: t0 would do harm
            [0, 0, 1],  # t2
            [0, 0, 0],  # t0, wrong: nothing does harm where the last tier is wrong
            [1, 0, 0],  # t0, right
            [0, 1, 0],  # t0, wrong
        ],
        [1.0, 10.0, 100.0],
    )
    oracle, perfect_chain = oracle_and_perfect_chain(table)
    assert (oracle.name, perfect_chain.name) == ("oracle", "perfect chain")
    assert oracle.accuracy == perfect_chain.accuracy == pytest.approx(4 / 6)
    assert oracle.mean_cost == pytest.approx((1 + 10 + 100 + 1 + 1 + 1) / 6)
    assert perfect_chain.mean_cost == pytest.approx((1 + 11 + 111 + 1 + 1 + 1) / 6)


def test_a_cascade_beside_the_last_tier() -> None:
    found = served_policy(ACCEPT_TENTH, RISKS, TWO_TIERS, seed=0)
    # the first two are accepted, right and wrong; the other two go on to t1, which is right
    assert found.total.accuracy == 0.75
    assert found.total.mean_cost == (1 + 1 + 11 + 11) / 4
    assert found.difference == -0.25
    assert found.difference_interval is None  # four questions
    assert found.harm_rate == 0.25
    assert found.wasted_cost == (0 + 0 + 1 + 1) / 4
    assert found.answered == (0.5, 0.5)
    assert found.asked == (1.0, 0.5)
    assert found.chain == found.tiers == ("t0", "t1")
    assert not found.is_last_alone
    assert not found.has_gate


def test_the_last_tier_alone_wastes_nothing() -> None:
    found = served_policy(escalate_all(1), {}, TWO_TIERS, seed=0)
    assert found.is_last_alone
    assert (found.difference, found.harm_rate, found.wasted_cost) == (0.0, 0.0, 0.0)
    assert (found.answered, found.asked) == ((0.0, 1.0), (0.0, 1.0))


def test_rescues_and_harms_cancel_in_the_difference_alone() -> None:
    table = outcomes([[1, 0], [0, 1]] * 50, [1.0, 10.0])  # t0 accepted: one rescue, one harm each
    found = served_policy(ACCEPT_TENTH, {(0,): np.zeros(100)}, table, seed=0)
    assert found.difference == 0.0
    assert found.harm_rate == 0.5
    # differences of +1 and -1: standard error 1 / sqrt(100)
    assert found.difference_interval == pytest.approx((-0.196, 0.196), abs=0.03)


def test_where_a_policy_lies() -> None:
    point = policy_point(replay(ACCEPT_TENTH, RISKS, TWO_TIERS), TWO_TIERS, is_certified=True)
    assert (point.share_kept, point.accuracy, point.mean_cost) == (0.5, 0.75, 6.0)
    assert point.is_certified
