"""Hold all that is fitted on the fit split: the models of all states, and the gates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.gate import GateModel, fit_gates
from hybridserve_llm.calibration.outcomes import Floats, Outcomes, State
from hybridserve_llm.calibration.policies import NO_TIER, WholePolicy
from hybridserve_llm.calibration.risk_models import (
    FittedStateModel,
    Judgement,
    fit_state_models,
    states_below,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedModels:
    """Hold the models of all states below the last tier, and gates by a chain's first tier."""

    states: Mapping[State, FittedStateModel]
    gates: Mapping[int, GateModel]

    @property
    def out_of_fold(self) -> dict[State, Floats]:
        """Return the cross-fitted risks of the fit split by state, each [n_questions]."""
        return {state: model.out_of_fold.risk for state, model in self.states.items()}

    @property
    def gates_out_of_fold(self) -> dict[int, Floats]:
        """Return the gates' cross-fitted risks by first tier, each [n_questions]."""
        return {first: gate.out_of_fold for first, gate in self.gates.items()}

    def risks(self, policy: WholePolicy, outcomes: Outcomes) -> dict[State, Floats]:
        """Return the risks of `outcomes` by the states of `policy`, each [n_questions]."""
        risks = {state: self.judge(state, outcomes).risk for state in states_of(policy.chain)}
        gate = {NO_TIER: self.gates[policy.chain[0]].judge(outcomes)} if policy.has_gate else {}
        return risks | gate

    def judge(self, state: State, outcomes: Outcomes) -> Judgement:
        """Return confidence and risk in one state, each [n_questions]."""
        return self.states[state].judge(outcomes)


def states_of(chain: Sequence[int]) -> list[State]:
    """Return every non-empty set of the tiers of `chain` below its last."""
    return [tuple(chain[i] for i in picked) for picked in states_below(len(chain) - 1)]


def fit_models(outcomes: Outcomes, rng: np.random.Generator) -> FittedModels:
    """Fit all models on `outcomes`."""
    return FittedModels(states=fit_state_models(outcomes, rng), gates=fit_gates(outcomes, rng))
