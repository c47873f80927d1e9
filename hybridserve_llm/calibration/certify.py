"""Run the whole procedure from a fit split and a certify split to a certified policy."""

from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.choice import ChainEstimate, estimate_chains, pivot_of
from hybridserve_llm.calibration.fitted import FittedModels, fit_models
from hybridserve_llm.calibration.knee import knee_policy
from hybridserve_llm.calibration.loss_tests import Loss, smallest_epsilon
from hybridserve_llm.calibration.outcomes import Floats, Outcomes, State
from hybridserve_llm.calibration.path import (
    N_PRICES_TO_WALK,
    N_STEPS_TO_CHOOSE,
    N_STEPS_TO_WALK,
    finely_stepped,
    price_path,
)
from hybridserve_llm.calibration.policies import NO_TIER, WholePolicy, escalate_all
from hybridserve_llm.calibration.sharing import growing_shares
from hybridserve_llm.calibration.walk import WalkStep, tested, walk


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Promise a loss of at most `epsilon` with probability 1 - `delta` over the certify split."""

    loss: Loss
    epsilon: float
    delta: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Hold a fitted cascade and the policies of it that were certified.

    Attributes:
        estimates: An estimate of every chain on the fit split, the best first.
        certified: The certified policies of the chosen chain, strict to lax.
        path: The policies that might be walked, strict to lax. They were fixed before any certify
            row was seen. A knee alone is its own path.
        chosen: The certified step that is to be served, or None where nothing pays and is
            certifiable.
        last: Index of the last tier.
    """

    promise: Promise
    fitted: FittedModels
    estimates: tuple[ChainEstimate, ...]
    certified: tuple[WalkStep, ...]
    path: tuple[WholePolicy, ...]
    chosen: WalkStep | None
    last: int

    @property
    def policy(self) -> WholePolicy:
        """Return the policy to serve: the chosen one, else the last tier alone."""
        return self.chosen.policy if self.chosen else escalate_all(self.last)

    def risks(self, outcomes: Outcomes) -> dict[State, Floats]:
        """Return the risks of `outcomes` by the policy's states, each [n_questions]."""
        return self.fitted.risks(self.policy, outcomes)


def calibrate(
    fit: Outcomes,
    certify: Outcomes,
    promise: Promise,
    *,
    seed: int = 0,
    keeps_all_tiers: bool = False,
) -> Calibration:
    """Find the policy of least cost whose loss is certified to keep `promise` (preset `accuracy`).

    The risk models are fitted on `fit`, and a chain and its path are chosen on it. The path is
    walked once on `certify`. With `keeps_all_tiers` the chain is given, and only a gate is chosen.
    """
    fitted = fit_models(fit, np.random.default_rng(seed))
    return certify_fitted(fitted, fit, certify, promise, keeps_all_tiers=keeps_all_tiers)


def certify_fitted(
    fitted: FittedModels,
    fit: Outcomes,
    certify: Outcomes,
    promise: Promise,
    *,
    keeps_all_tiers: bool = False,
) -> Calibration:
    """Calibrate as `calibrate` does, with models that are already fitted on `fit`.

    So one fit serves several promises.
    """
    risks, gates = fitted.out_of_fold, fitted.gates_out_of_fold
    estimates = estimate_chains(fit, risks, gates, loss=promise.loss, epsilon=promise.epsilon)
    if keeps_all_tiers:
        estimates.sort(
            key=lambda estimate: -len(estimate.chain)
        )  # stable: the choice of a gate stays
    path = path_to_walk(estimates[0], fitted, fit, promise)
    certified = walk(
        path,
        fitted.risks(path[0], certify),
        certify,
        loss=promise.loss,
        epsilon=promise.epsilon,
        delta=promise.delta,
    )
    return Calibration(
        promise=promise,
        fitted=fitted,
        estimates=tuple(estimates),
        certified=certified,
        path=tuple(path),
        chosen=_cheapest(certified, float(fit.costs[fit.last])),
        last=fit.last,
    )


def path_to_walk(
    best: ChainEstimate, fitted: FittedModels, fit: Outcomes, promise: Promise
) -> list[WholePolicy]:
    """Return the path of the chain `best`, strict to lax, that is walked on the certify split.

    It begins with shares of the prompts where these are worth it both by the models that serve and
    out of fold. The models that serve alone would trust the strict thresholds that they were fitted
    to.
    """
    risks = fitted.out_of_fold
    if best.has_gate:
        risks[NO_TIER] = fitted.gates_out_of_fold[best.chain[0]]
    prices = price_path(best.chain, risks, fit, N_PRICES_TO_WALK)
    served = fitted.risks(prices[0], fit)
    path = finely_stepped(prices, risks, served, N_STEPS_TO_WALK)
    pivot = pivot_of(path, served, fit, promise.loss, promise.epsilon)
    unseen = finely_stepped(prices, risks, risks, N_STEPS_TO_CHOOSE)
    pivot_unseen = pivot_of(unseen, risks, fit, promise.loss, promise.epsilon)
    if pivot.index is None or not (pivot.is_worth_it and pivot_unseen.is_worth_it):
        return path
    return [*growing_shares(path[pivot.index], N_STEPS_TO_WALK), *path[pivot.index + 1 :]]


def calibrate_knee(
    fit: Outcomes, certify: Outcomes, *, loss: Loss, delta: float, seed: int = 0
) -> Calibration:
    """Calibrate at the knee of cost against loss (preset `energy`).

    The policy is fixed on `fit` before any certify row is seen, so its bound is a plain confidence
    bound. Epsilon is a result here, the least that holds, and not a wish.
    """
    fitted = fit_models(fit, np.random.default_rng(seed))
    policy, estimates = knee_policy(fit, fitted.out_of_fold, fitted.gates_out_of_fold, loss=loss)
    epsilon, chosen = 0.0, None
    if len(policy.chain) > 1:
        risks = fitted.risks(policy, certify)
        step = tested(policy, risks, certify, loss, epsilon=1.0)
        epsilon = smallest_epsilon(step.n_lost, step.n_rescued, step.n, loss=loss, delta=delta)
        chosen = tested(policy, risks, certify, loss, epsilon=epsilon)
        chosen = _cheapest((chosen,), float(fit.costs[fit.last]))
    return Calibration(
        promise=Promise(loss=loss, epsilon=epsilon, delta=delta),
        fitted=fitted,
        estimates=estimates,
        certified=(chosen,) if chosen else (),
        path=(policy,),
        chosen=chosen,
        last=fit.last,
    )


def _cheapest(certified: tuple[WalkStep, ...], last_cost: float) -> WalkStep | None:
    """Return the certified step of least cost on the certify split, if it beats the last tier.

    All certified policies hold at once, so the choice among them needs no further correction.
    """
    paying = [
        step for step in certified if len(step.policy.chain) > 1 and step.mean_cost < last_cost
    ]
    return min(paying, key=lambda step: step.mean_cost, default=None)
