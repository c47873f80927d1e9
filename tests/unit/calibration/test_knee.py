"""The knee of cost against loss, on tables by hand, and the bound that comes with it."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridserve_llm.calibration.certify import calibrate_knee
from hybridserve_llm.calibration.knee import knee_policy
from hybridserve_llm.calibration.loss_tests import harm_p_value, smallest_epsilon
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import escalate_all, replay

Make = Callable[..., Outcomes]
THREE: dict[str, Any] = {"skills": (0.4, 0.7, 0.95), "costs": (1.0, 8.0, 60.0)}

# Ten questions; small is right at the first six, giant at all. Costs are 1 and 10. Small is sure of
# six, unsure of one of the others, and lost at three.
RIGHT = [[1, 1]] * 6 + [[0, 1]] * 4
RISK = np.array([0.01] * 6 + [0.3] + [0.9] * 3)


def test_the_knee_is_where_the_saved_cost_less_the_taken_loss_is_greatest(make_table: Make) -> None:
    # Of the 9 that can be saved and the loss of 0.4 that small alone would make:
    #   accepting  0: costs 10, saves 0/9,              0
    #   accepting  6: costs 1 + 4 = 5, saves 5/9,       0.556
    #   accepting  7: costs 4, saves 6/9, loses 1/4,    0.417
    #   accepting 10: costs 1, saves 9/9, loses 4/4,    0
    outcomes = make_table(RIGHT)
    policy, estimates = knee_policy(outcomes, {(0,): RISK}, {}, loss="harm")
    assert policy.chain == (0, 1)
    assert replay(policy, {(0,): RISK}, outcomes).answering.tolist() == [0] * 6 + [1] * 4
    assert [(e.chain, e.mean_cost) for e in estimates] == [
        ((0, 1), pytest.approx(5.0)),
        ((1,), pytest.approx(10.0)),
    ]


def test_a_rescue_counts_half_of_a_loss_where_the_net_loss_counts(make_table: Make) -> None:
    # Of the two middle answers one is lost and one rescued; small alone would lose four, 0.4.
    #   accepting 5: saves 5/9 and loses nothing,                  0.556
    #   accepting 7: saves 7/9; by harm it loses 1/4,              0.528
    #                by net loss half of that is made up for, 1/8, 0.653
    outcomes = make_table([[1, 1]] * 5 + [[0, 1], [1, 0]] + [[0, 1]] * 3)
    risks = {(0,): np.array([0.01] * 5 + [0.3] * 2 + [0.9] * 3)}
    by_harm, _ = knee_policy(outcomes, risks, {}, loss="harm")
    by_net, _ = knee_policy(outcomes, risks, {}, loss="net")
    assert replay(by_harm, risks, outcomes).answering.tolist() == [0] * 5 + [1] * 5
    assert replay(by_net, risks, outcomes).answering.tolist() == [0] * 7 + [1] * 3


def test_where_the_small_tier_only_loses_the_last_one_alone_is_the_knee(make_table: Make) -> None:
    # Accepting everything saves all and loses all: 1 - 1 = 0, and a tier more must bring 0.02.
    outcomes = make_table([[0, 1]] * 10)
    policy, estimates = knee_policy(outcomes, {(0,): np.full(10, 0.9)}, {}, loss="harm")
    assert policy == escalate_all(1)
    assert estimates[0].chain == (1,)


def test_a_tier_that_brings_nothing_is_left_out(make_table: Make) -> None:
    # The middle tier is right where small is, and dearer: chains with it can only do worse.
    outcomes = make_table([[1, 1, 1]] * 6 + [[0, 0, 1]] * 4, costs=(1.0, 8.0, 10.0))
    risks = {(0,): RISK, (1,): RISK, (0, 1): RISK}
    policy, estimates = knee_policy(outcomes, risks, {}, loss="harm")
    assert policy.chain == (0, 2)
    assert {estimate.chain for estimate in estimates} == {(2,), (0, 2), (1, 2), (0, 1, 2)}


def test_a_gate_is_taken_where_it_saves_enough(make_table: Make) -> None:
    # With a gate the four hard ones cost 10 and not 11: 4.6 instead of 5, of 9 that can be saved.
    outcomes = make_table(RIGHT)
    gate = np.array([0.1] * 6 + [0.9] * 4)
    policy, estimates = knee_policy(outcomes, {(0,): RISK}, {0: gate}, loss="harm")
    assert policy.has_gate
    assert (estimates[0].has_gate, estimates[0].mean_cost) == (True, pytest.approx(4.6))


def test_the_bound_of_the_knee_is_the_least_that_its_counts_show(make_world: Make) -> None:
    fit, certify = make_world(250, seed=1, **THREE), make_world(400, seed=2, **THREE)
    calibration = calibrate_knee(fit, certify, loss="harm", delta=0.1)
    step = calibration.chosen
    assert step is not None
    assert calibration.certified == (step,)
    assert step.mean_cost < 60.0
    epsilon = smallest_epsilon(step.n_lost, step.n_rescued, 400, loss="harm", delta=0.1)
    assert calibration.promise.epsilon == epsilon
    assert step.p_value == pytest.approx(harm_p_value(step.n_lost, 400, epsilon))
    assert step.p_value <= 0.1
    assert step.n_lost / 400 < epsilon  # an upper bound lies above what was seen


def test_the_knee_does_not_look_at_the_certify_split(make_world: Make) -> None:
    fit, certify = make_world(250, seed=1, **THREE), make_world(400, seed=2, **THREE)
    perfect = replace(certify, is_right=np.ones_like(certify.is_right))
    found, best = (
        calibrate_knee(fit, split, loss="harm", delta=0.1) for split in (certify, perfect)
    )
    assert found.policy.shape() == best.policy.shape()
    # Where nothing is lost: 1 - 0.1^(1/400) = 0.005740.
    assert best.promise.epsilon == 0.0058 < found.promise.epsilon


def test_where_only_the_last_tier_is_left_nothing_is_chosen(make_table: Make) -> None:
    useless = make_table([[0, 1]] * 300, scores=[[-0.01, -0.01]] * 300)
    calibration = calibrate_knee(useless, useless, loss="net", delta=0.1)
    assert (calibration.chosen, calibration.certified) == (None, ())
    assert calibration.policy == escalate_all(1)
