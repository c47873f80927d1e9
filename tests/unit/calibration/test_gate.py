"""The gate: only where the prompt tells something, and what it saves."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hybridserve_llm.calibration.gate import fit_gates
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.path import policy_at_price
from hybridserve_llm.calibration.policies import (
    NEVER,
    NO_TIER,
    Band,
    StateRule,
    WholePolicy,
    replay,
)

Make = Callable[..., Outcomes]
THREE = {"skills": (0.35, 0.65, 0.97), "costs": (1.0, 8.0, 60.0)}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def difficulty(n: int, seed: int) -> Floats:
    """That of the questions that `make_world` draws with this seed."""
    return np.random.default_rng(seed).random((n, 1))


def telling(make_world: Make, n: int = 300, seed: int = 1) -> Outcomes:
    """A world in which the prompt tells how difficult the question is."""
    world = make_world(n, seed=seed, **THREE)
    return replace(world, prompt_features=difficulty(n, seed))


def test_there_is_a_gate_where_the_prompt_tells_something(make_world: Make) -> None:
    outcomes = telling(make_world)
    gates = fit_gates(outcomes, rng())
    assert set(gates) == {0, 1}  # by the first tier of a chain; the last tier needs none
    for first, gate in gates.items():
        risk = gate.judge(outcomes)
        is_hard = difficulty(300, 1)[:, 0] > 0.8
        assert gate.first == first
        assert risk[is_hard].min() > risk[~is_hard].max()
        assert gate.out_of_fold.shape == (300,)


def test_a_gate_judges_questions_that_it_was_not_fitted_on(make_world: Make) -> None:
    gate = fit_gates(telling(make_world), rng())[0]
    fresh = telling(make_world, n=1000, seed=2)
    risk, is_wrong = gate.judge(fresh), ~fresh.is_right[:, 0]
    assert risk.mean() == pytest.approx(is_wrong.mean(), abs=0.05)
    # What it calls risky is wrong more often.
    quarters = np.array_split(is_wrong[np.argsort(risk)], 4)
    shares = [float(quarter.mean()) for quarter in quarters]
    assert shares == sorted(shares)
    assert shares[3] > shares[0] + 0.5


def test_there_is_none_where_the_prompt_tells_nothing(make_world: Make) -> None:
    world = make_world(300, seed=1, **THREE)  # every prompt is alike
    assert fit_gates(world, rng()) == {}
    for seed in range(5):
        noise = np.random.default_rng(seed).normal(size=(300, 3))
        assert fit_gates(replace(world, prompt_features=noise), rng()) == {}


def test_there_is_none_where_a_tier_is_always_right(make_table: Make) -> None:
    outcomes = make_table([[1, 1]] * 100)
    assert fit_gates(replace(outcomes, prompt_features=difficulty(100, 1)), rng()) == {}


# Four questions: small is right and sure of the first two, wrong and unsure at the others, whose
# prompts look hard. Costs are 1 and 10.
RIGHT = [[1, 1], [1, 1], [0, 1], [0, 1]]
OWN_RISK = {(0,): np.array([0.01, 0.02, 0.9, 0.9])}
PROMPT_RISK = {NO_TIER: np.array([0.1, 0.2, 0.8, 0.9])}


def test_a_gate_lets_hard_prompts_enter_further_up_and_saves_what_they_would_waste(
    make_table: Make,
) -> None:
    outcomes = make_table(RIGHT)
    rule = StateRule(accept_at_most=0.1, bands=(Band(risk_above=0.1, to_tier=1),))
    gate = StateRule(
        accept_at_most=NEVER,
        bands=(Band(risk_above=NEVER, to_tier=0), Band(risk_above=0.5, to_tier=1)),
    )
    plain = WholePolicy(chain=(0, 1), rules={(0,): rule})
    gated = WholePolicy(chain=(0, 1), rules={(0,): rule, NO_TIER: gate})
    assert (plain.has_gate, gated.has_gate) == (False, True)

    risks = OWN_RISK | PROMPT_RISK
    without, done = replay(plain, risks, outcomes), replay(gated, risks, outcomes)
    assert without.costs(outcomes).tolist() == [1, 1, 11, 11]
    assert done.costs(outcomes).tolist() == [1, 1, 10, 10]
    assert done.answering.tolist() == without.answering.tolist() == [0, 0, 1, 1]
    assert done.was_asked.tolist() == [[True, False], [True, False], [False, True], [False, True]]


def test_the_path_finds_such_a_gate_by_itself(make_table: Make) -> None:
    # A harm costs 100, so risks of 0.01 and 0.02 cost 1 and 2 where giant costs 10, and 0.9 more.
    # Small then costs 1 + 1 or 1 + 2 for the prompts that look easy, 1 + 10 for the others, which
    # cost 10 at giant. Between prompt risks of 0.1 and 0.9 the bound lies halfway.
    outcomes = make_table(RIGHT)
    risks = OWN_RISK | {NO_TIER: np.array([0.1, 0.1, 0.9, 0.9])}
    policy = policy_at_price((0, 1), risks, outcomes.costs, 100.0)
    assert policy.has_gate
    gate = policy.rules[NO_TIER]
    assert gate.accept_at_most == -math.inf  # before any answer there is none to take
    assert [band.to_tier for band in gate.bands] == [0, 1]
    assert gate.bands[1].risk_above == pytest.approx(0.5)
    assert replay(policy, risks, outcomes).costs(outcomes).tolist() == [1, 1, 10, 10]
    assert not policy_at_price((0, 1), OWN_RISK, outcomes.costs, 100.0).has_gate
