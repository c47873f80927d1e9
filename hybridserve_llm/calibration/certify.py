"""From a fit split and a certify split to a certified policy: the whole procedure in one place."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.choice import (
    ChainEstimate,
    Loss,
    estimate_chains,
    out_of_fold_risks,
)
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.path import N_PRICES_TO_WALK, policy_path
from hybridserve_llm.calibration.policies import WholePolicy, escalate_all
from hybridserve_llm.calibration.risk_models import State, StateModel, fit_state_models
from hybridserve_llm.calibration.walk import Step, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """With probability 1 - `delta` over the certify split, the loss is at most `epsilon`."""

    loss: Loss
    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """A fitted cascade and what was certified of it.

    Attributes:
        estimates: Every chain as judged on the fit split, the best first.
        certified: The certified policies of the chosen chain, strict to lax.
        chosen: The certified step of least cost, or None where nothing that pays is certifiable.
    """

    promise: Promise
    models: Mapping[State, StateModel]
    estimates: tuple[ChainEstimate, ...]
    certified: tuple[Step, ...]
    chosen: Step | None
    last: int

    @property
    def policy(self) -> WholePolicy:
        """What is to be served: the chosen policy, else everything goes to the last tier."""
        return self.chosen.policy if self.chosen else escalate_all(self.last)

    def risks(self, outcomes: Outcomes) -> dict[State, Floats]:
        """Risks of `outcomes` by state, each [n_questions], for replaying the policy."""
        return {state: model.judge(outcomes).risk for state, model in self.models.items()}


def calibrate(fit: Outcomes, certify: Outcomes, promise: Promise, *, seed: int = 0) -> Calibration:
    """Fits risk models, chooses a chain and its path on `fit`, and walks it once on `certify`."""
    models = fit_state_models(fit, np.random.default_rng(seed))
    risks = out_of_fold_risks(models)
    estimates = estimate_chains(fit, risks, loss=promise.loss, epsilon=promise.epsilon)
    chain = estimates[0].chain
    states = [state for state in models if set(state) < set(chain)]
    certified = walk(
        policy_path(chain, risks, fit, N_PRICES_TO_WALK),
        {state: models[state].judge(certify).risk for state in states},
        certify,
        loss=promise.loss,
        epsilon=promise.epsilon,
        delta=promise.delta,
    )
    return Calibration(
        promise=promise,
        models=models,
        estimates=tuple(estimates),
        certified=certified,
        chosen=_cheapest(certified, float(fit.costs[fit.last])),
        last=fit.last,
    )


def _cheapest(certified: tuple[Step, ...], last_cost: float) -> Step | None:
    """The certified step that costs least on the certify split, if that is less than the last tier.

    All certified policies hold at once, so choosing among them costs nothing.
    """
    paying = [
        step for step in certified if len(step.policy.chain) > 1 and step.mean_cost < last_cost
    ]
    return min(paying, key=lambda step: step.mean_cost, default=None)
