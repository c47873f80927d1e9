"""What is fitted, and which of it a policy reads."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hybridserve_llm.calibration.fitted import FittedModels, fit_models, states_of
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import (
    NEVER,
    NO_TIER,
    Band,
    StateRule,
    WholePolicy,
    escalate_all,
)

Make = Callable[..., Outcomes]


def world(make_world: Make, seed: int) -> Outcomes:
    """Three tiers, and prompts that tell the difficulty."""
    outcomes = make_world(200, seed=seed, skills=(0.4, 0.7, 0.95), costs=(1.0, 8.0, 60.0))
    return replace(outcomes, prompt_features=np.random.default_rng(seed).random((200, 1)))


@pytest.fixture(scope="module")
def fitted(make_world: Make) -> FittedModels:
    return fit_models(world(make_world, 1), np.random.default_rng(0))


def test_the_states_of_a_chain_are_the_sets_of_its_tiers_below_the_last() -> None:
    assert states_of((0, 2, 3)) == [(0,), (2,), (0, 2)]
    assert states_of((1, 2)) == [(1,)]
    assert states_of((2,)) == []


def test_every_state_has_its_models_and_its_risks_out_of_fold(fitted: FittedModels) -> None:
    assert set(fitted.states) == {(0,), (1,), (0, 1)}
    assert set(fitted.out_of_fold) == set(fitted.states)
    assert {risk.shape for risk in fitted.out_of_fold.values()} == {(200,)}
    assert set(fitted.gates_out_of_fold) == set(fitted.gates) == {0, 1}


def test_a_policy_reads_the_states_of_its_chain_and_its_gate_alone(
    fitted: FittedModels, make_world: Make
) -> None:
    fresh = world(make_world, 2)
    rule = StateRule(accept_at_most=0.1, bands=(Band(risk_above=0.1, to_tier=2),))
    plain = WholePolicy(chain=(1, 2), rules={(1,): rule})
    assert set(fitted.risks(plain, fresh)) == {(1,)}
    assert fitted.risks(escalate_all(2), fresh) == {}
    gate = StateRule(accept_at_most=NEVER, bands=(Band(risk_above=NEVER, to_tier=1),))
    gated = fitted.risks(WholePolicy(chain=(1, 2), rules={(1,): rule, NO_TIER: gate}), fresh)
    assert set(gated) == {(1,), NO_TIER}
    # The gate is that of the chain's first tier, not of the first of all.
    assert gated[NO_TIER].tolist() == fitted.gates[1].judge(fresh).tolist()
    assert gated[1,].tolist() == fitted.judge((1,), fresh).risk.tolist()


def test_the_same_seed_fits_the_same_models(fitted: FittedModels, make_world: Make) -> None:
    again = fit_models(world(make_world, 1), np.random.default_rng(0))
    for state, risk in fitted.out_of_fold.items():
        assert again.out_of_fold[state].tolist() == risk.tolist()
