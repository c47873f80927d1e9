"""The whole procedure: what is chosen, what it must not look at, and how often it errs."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from hybridserve_llm.calibration.certify import Calibration, Promise, calibrate, path_to_walk
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import escalate_all, replay

Make = Callable[..., Outcomes]
HARM = Promise(loss="harm", epsilon=0.05, delta=0.1)
NET = Promise(loss="net", epsilon=0.05, delta=0.1)
THREE: dict[str, Any] = {"skills": (0.4, 0.7, 0.95), "costs": (1.0, 8.0, 60.0)}


@pytest.fixture(scope="module")
def three(make_world: Make) -> Calibration:
    return calibrate(make_world(250, seed=1, **THREE), make_world(400, seed=2, **THREE), HARM)


def shapes(calibration: Calibration) -> list[tuple[object, ...]]:
    return [step.policy.shape() for step in calibration.certified]


def test_the_chosen_step_is_the_cheapest_certified(three: Calibration) -> None:
    assert len(three.certified) > 3
    assert three.chosen in three.certified
    assert three.chosen.mean_cost == min(step.mean_cost for step in three.certified)
    assert three.chosen.mean_cost < 60.0
    assert three.policy is three.chosen.policy
    assert all(step.p_value <= HARM.delta for step in three.certified)


def test_the_certified_policies_begin_the_path_of_the_best_chain(
    three: Calibration, make_world: Make
) -> None:
    fit = make_world(250, seed=1, **THREE)
    path = path_to_walk(three.estimates[0], three.fitted, fit, HARM)
    assert shapes(three) == [policy.shape() for policy in path[: len(three.certified)]]
    assert len(three.certified) < len(path)  # it stopped somewhere


def test_risks_are_those_of_the_models(three: Calibration, make_world: Make) -> None:
    fresh = make_world(30, seed=9, **THREE)
    risks = three.risks(fresh)
    assert three.policy.chain == (1, 2)
    assert set(risks) == {(1,)}
    for state, risk in risks.items():
        assert risk.tolist() == three.fitted.states[state].judge(fresh).risk.tolist()


@pytest.mark.parametrize("promise", [HARM, NET], ids=["harm", "net"])
def test_where_nothing_is_certifiable_everything_goes_to_the_last_tier(
    make_world: Make, promise: Promise
) -> None:
    # 44 questions are too few for epsilon = 0.05 (notes/confidence.md section 5: 45).
    calibration = calibrate(make_world(200, seed=1), make_world(44, seed=2), promise)
    assert calibration.certified == ()
    assert calibration.chosen is None
    assert calibration.policy == escalate_all(1)


def test_a_first_tier_that_is_always_wrong_is_never_accepted(make_table: Make) -> None:
    useless = make_table([[0, 1]] * 300, scores=[[-0.01, -0.01]] * 300, costs=(1.0, 10.0))
    calibration = calibrate(useless, useless, HARM)
    assert calibration.estimates[0].chain == (1,)
    assert calibration.chosen is None


@pytest.mark.parametrize("last_cost", [0.012, 0.032, 0.3, 2.06, 68018.1923076923])
def test_the_last_tier_alone_never_counts_as_a_saving(make_table: Make, last_cost: float) -> None:
    # The mean of 600 costs of 0.012 is a rounding error below 0.012.
    useless = make_table([[0, 1]] * 600, costs=(last_cost / 2, last_cost))
    assert calibrate(useless, useless, HARM).chosen is None


def test_answers_without_scores_are_never_accepted(make_world: Make) -> None:
    silent = replace(make_world(300, seed=1), scores=np.full((300, 2), np.nan))
    calibration = calibrate(silent, silent, HARM)
    assert calibration.chosen is None
    done = replay(calibration.policy, calibration.risks(silent), silent)
    assert (done.answering == 1).all()


def test_the_same_data_and_seed_give_the_same_certificate(
    three: Calibration, make_world: Make
) -> None:
    again = calibrate(make_world(250, seed=1, **THREE), make_world(400, seed=2, **THREE), HARM)
    assert again.estimates == three.estimates
    assert again.certified == three.certified
    assert again.chosen == three.chosen


def test_chain_and_path_do_not_look_at_the_certify_split(
    three: Calibration, make_world: Make
) -> None:
    certify = make_world(400, seed=2, **THREE)
    flipped = replace(certify, is_right=np.random.default_rng(0).permuted(certify.is_right, axis=0))
    perfect = replace(certify, is_right=np.ones_like(certify.is_right))
    fit = make_world(250, seed=1, **THREE)
    for other in (flipped, perfect):
        calibration = calibrate(fit, other, HARM)
        assert calibration.estimates == three.estimates
        for state, model in three.fitted.states.items():
            assert (
                calibration.fitted.states[state].wrong.weights.tolist()
                == model.wrong.weights.tolist()
            )
        both = zip(shapes(calibration), shapes(three), strict=False)
        assert all(one == other for one, other in both)
    # Where nothing is ever wrong, the whole path is certified.
    assert len(calibration.certified) > len(three.certified)
    # Where a tier's rightness has nothing to do with its score, less of it.
    assert len(calibrate(fit, flipped, HARM).certified) < len(three.certified)


@pytest.mark.slow
def test_a_simulated_world_errs_at_most_delta_of_the_time(make_world: Make) -> None:
    """Fit, choose and certify 60 times on draws from 10,000 questions; the truth is all of them.

    As a control, the laxest policy whose loss was below epsilon on the certify split, without a
    test, violates in 20-55 % of the draws (notes/confidence.md section 6).
    """
    n_runs = 60
    everything = make_world(10_000, seed=3)
    is_violated, is_violated_plain, costs = [], [], []
    for seed in range(n_runs):
        rng = np.random.default_rng(seed)
        fit = everything.take(rng.integers(0, everything.n_questions, 200))
        certify = everything.take(rng.integers(0, everything.n_questions, 300))
        calibration = calibrate(fit, certify, HARM, seed=seed)
        risks = calibration.risks(everything)
        done = replay(calibration.policy, risks, everything)
        is_violated.append(done.is_lost(everything).mean() > HARM.epsilon)
        costs.append(done.costs(everything).mean())
        plain = _laxest_without_a_test(calibration, fit, certify)
        risks = calibration.fitted.risks(plain, everything)
        is_violated_plain.append(
            replay(plain, risks, everything).is_lost(everything).mean() > HARM.epsilon
        )
    allowed = HARM.delta + 3 * np.sqrt(HARM.delta * (1 - HARM.delta) / n_runs)
    assert np.mean(is_violated) <= allowed
    assert np.mean(is_violated_plain) > allowed  # so this test can fail
    assert np.mean(costs) < 0.8 * 10.0  # and something is saved


def _laxest_without_a_test(calibration: Calibration, fit: Outcomes, certify: Outcomes) -> Any:
    path = path_to_walk(calibration.estimates[0], calibration.fitted, fit, HARM)
    risks = calibration.fitted.risks(path[0], certify)
    losses = [replay(policy, risks, certify).is_lost(certify).mean() for policy in path]
    within = [policy for policy, loss in zip(path, losses, strict=True) if loss <= HARM.epsilon]
    return within[-1] if within else escalate_all(calibration.last)
