"""Fit the gate, which decides before generation at which tier a prompt enters the chain.

It reads cheap features of the prompt alone and predicts if the chain's first tier would be wrong.
Like every other rule of a policy it is made of bands of one risk (`path.py`), so a prompt that
looks hard may enter further up. There is no gate where prompts do not help to predict: its model
must beat the base rate out of fold by more than one standard error.
"""

from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.logistic import Logistic, fit_logistic
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.risk_models import beats, cross_fitted, fold_of_groups

_RIDGE = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class GateModel:
    """Predict P(tier `first` is wrong | prompt).

    `out_of_fold` holds its cross-fitted values on the fit split, [n].
    """

    first: int
    wrong: Logistic
    out_of_fold: Floats

    def judge(self, outcomes: Outcomes) -> Floats:
        """Return P(tier `first` is wrong) of each question, shape [n_questions]."""
        return self.wrong.predict(outcomes.prompt_features)


def fit_gates(outcomes: Outcomes, rng: np.random.Generator) -> dict[int, GateModel]:
    """Return a gate, by tier index, for each tier below the last whose errors a prompt predicts."""
    folds = fold_of_groups(outcomes, rng)
    nothing = np.zeros((outcomes.n_questions, 0))
    gates: dict[int, GateModel] = {}
    for first in range(outcomes.last):
        is_wrong = ~outcomes.is_right[:, first]
        predicted = cross_fitted(outcomes.prompt_features, is_wrong, folds, _RIDGE)
        if beats(predicted, cross_fitted(nothing, is_wrong, folds, _RIDGE), is_wrong):
            model = fit_logistic(outcomes.prompt_features, is_wrong, _RIDGE)
            gates[first] = GateModel(first=first, wrong=model, out_of_fold=predicted)
    return gates
