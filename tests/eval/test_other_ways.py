"""Other ways to answer the same questions, at a policy's cost."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.recorded.calibration_data import read_calibration_data
from eval.rivals.other_ways import other_ways
from hybridserve_llm.calibration.outcomes import Outcomes


@pytest.fixture(scope="module")
def outcomes(cascade_csv: Any) -> Outcomes:
    return read_calibration_data(cascade_csv, None, {}).outcomes


def even(outcomes: Outcomes) -> Any:
    return np.tile(outcomes.costs, (outcomes.n_questions, 1))


def test_fitted_ways_cost_about_what_the_policy_does(outcomes: Outcomes) -> None:
    policy_cost = 0.4 * float(outcomes.costs[-1])
    ways = other_ways(
        outcomes, even(outcomes), policy_cost=policy_cost, seed=0, answer_lengths=None
    )
    found = {way.name: way for way in ways}
    raw = found["raw score: recorded"]
    assert raw.is_fitted
    # Fitted on the other half of 1,000 questions: a share of 40 % is good to some 3 points.
    assert raw.cost == pytest.approx(policy_cost, rel=0.15)
    assert raw.accuracy > found["random escalation"].accuracy
    assert found["perfect chain"].accuracy >= raw.accuracy
    assert found["perfect chain"].accuracy == found["oracle"].accuracy
    assert found["oracle"].cost < found["perfect chain"].cost


def test_random_escalation_costs_what_the_policy_costs(outcomes: Outcomes) -> None:
    policy_cost = 0.5 * float(outcomes.costs[-1])
    ways = other_ways(
        outcomes, even(outcomes), policy_cost=policy_cost, seed=0, answer_lengths=None
    )
    random = next(way for way in ways if way.name == "random escalation")
    assert random.cost == pytest.approx(policy_cost)


def test_what_was_measured_to_cost_nothing_has_no_ratio(outcomes: Outcomes) -> None:
    """A counter of CPU time may stand still while a tier answers a few questions."""
    few = outcomes.take(range(30))
    ways = other_ways(few, 0 * even(few), policy_cost=0.0, seed=0, answer_lengths=None)
    assert {way.ratio for way in ways} == {None}


def test_nothing_is_fitted_on_few_questions(outcomes: Outcomes) -> None:
    few = outcomes.take(range(30))
    ways = other_ways(few, even(few), policy_cost=1.0, seed=0, answer_lengths=None)
    assert not any(way.is_fitted for way in ways)


def test_questions_of_one_group_are_never_fitted_and_counted_on(
    record: Callable[..., Any], write_csv: Callable[..., Any]
) -> None:
    """The score tells nothing but the group; a threshold fitted within it would seem to help."""
    rows = []
    for i in range(120):
        for model in ("s-1b", "b-10b"):
            is_right = model == "b-10b" or i < 60
            score = -0.1 if i < 60 else -0.2
            rows.append(
                record(i, model, correct=int(is_right), raw_confidence=score, group=f"g{i // 60}")
            )
    outcomes = read_calibration_data(write_csv(rows), None, {}).outcomes
    ways = other_ways(outcomes, even(outcomes), policy_cost=550.0, seed=0, answer_lengths=None)
    raw = next(way for way in ways if way.name == "raw score: recorded")
    # Two groups, so two halves of one score each. Fitted on the group that is all right, the other
    # one's scores are too low to take; on the one that is all wrong, no threshold is worth taking
    # but cost forces some: the group of higher scores is then taken whole, and is right.
    assert raw.accuracy == 1.0


@given(st.floats(0.01, 1.2), st.integers(0, 3))
def test_a_policy_that_may_cost_more_has_no_worse_random_rival(share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    right = np.column_stack([rng.random(50) < 0.5, rng.random(50) < 0.9])
    outcomes = Outcomes(
        tiers=("small", "big"),
        is_right=right,
        scores=rng.random((50, 2)) - 1,
        answers=np.zeros((50, 2), dtype=np.int64),
        costs=np.array([1.0, 10.0]),
        prompt_features=np.empty((50, 0)),
        prompt_feature_names=(),
        answer_features=np.empty((50, 2, 0)),
        answer_feature_names=(),
        questions=tuple(range(50)),
        draws=np.zeros(50),
        groups=(None,) * 50,
    )

    def random_accuracy(cost: float) -> float:
        ways = other_ways(
            outcomes.take(range(39)),
            np.tile(outcomes.costs, (39, 1)),
            policy_cost=cost,
            seed=0,
            answer_lengths=None,
        )
        found = [way.accuracy for way in ways if way.name == "random escalation"]
        return found[0] if found else 0.0

    rates = right[:39].mean(axis=0)
    if rates[1] >= rates[0]:
        assert random_accuracy(10 * share) <= random_accuracy(11 * share) + 1e-9
