"""The rival with one calibrated score per tier: ours without agreement and without a gate.

The risk of accepting a tier's answer is fitted to the tier's own score alone, whatever tiers were
asked before it. Path, choice of the chain and skip bands are those of ours.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import JudgedPath, judged, measured
from hybridserve_llm.calibration.logistic import Logistic, fit_logistic
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Floats, Outcomes, State
from hybridserve_llm.calibration.path import (
    N_PRICES_TO_CHOOSE,
    N_PRICES_TO_WALK,
    N_STEPS_TO_CHOOSE,
    N_STEPS_TO_WALK,
    finely_stepped,
    policy_path,
)
from hybridserve_llm.calibration.policies import Replay, Risks, WholePolicy, replay
from hybridserve_llm.calibration.risk_models import (
    cross_fitted,
    fold_of_groups,
    score_pair,
    states_below,
)

RIDGE = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreModel:
    """P(wrong | score) and P(last tier right | wrong, score) of one tier."""

    tier: int
    wrong: Logistic
    last_right: Logistic

    def risk(self, outcomes: Outcomes) -> Floats:
        """P(accepting does harm), [n_questions]; NaN where there is no score."""
        scores = outcomes.scores[:, self.tier]
        pair = score_pair(scores)
        risk = self.wrong.predict(pair) * self.last_right.predict(pair)
        return np.where(np.isnan(scores), np.nan, risk)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedChain:
    """A policy on risks that each read one score."""

    policy: WholePolicy
    models: tuple[ScoreModel, ...]

    def replay(self, outcomes: Outcomes) -> Replay:
        """What it does on the questions of `outcomes`."""
        own = {tier: self.models[tier].risk(outcomes) for tier in self.policy.chain[:-1]}
        return replay(self.policy, {state: own[state[-1]] for state in self.policy.rules}, outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibratedScores:
    """The models of all tiers below the last, and their risks on the fit split out of fold."""

    fit: Outcomes
    models: tuple[ScoreModel, ...]
    out_of_fold: Mapping[State, Floats]

    def paths(self, loss: Loss) -> list[JudgedPath[CalibratedChain]]:
        """The path of every chain of two tiers or more, in as few steps as a choice needs."""
        paths = []
        for state in states_below(self.fit.last):
            prices = policy_path(
                (*state, self.fit.last), self.out_of_fold, self.fit, N_PRICES_TO_CHOOSE
            )
            ways = self._ways(prices, self.out_of_fold, N_STEPS_TO_CHOOSE)
            done = [replay(way.policy, self.out_of_fold, self.fit) for way in ways]
            figures = [measured(each, self.fit) for each in done]
            paths.append(judged(ways, figures, n_tiers=len(state) + 1, loss=loss))
        return paths

    def to_walk(self, path: JudgedPath[CalibratedChain]) -> tuple[CalibratedChain, ...]:
        """The same path in as many steps as a walk needs."""
        chain = path.ways[0].policy.chain
        own = {model.tier: model.risk(self.fit) for model in self.models}
        served = {state: own[state[-1]] for state in self.out_of_fold}
        prices = policy_path(chain, self.out_of_fold, self.fit, N_PRICES_TO_WALK)
        return self._ways(prices, served, N_STEPS_TO_WALK)

    def _ways(
        self, prices: Sequence[WholePolicy], served: Risks, n_steps: int
    ) -> tuple[CalibratedChain, ...]:
        policies = finely_stepped(prices, self.out_of_fold, served, n_steps)
        return tuple(CalibratedChain(policy=policy, models=self.models) for policy in policies)


def fit_calibrated_scores(fit: Outcomes, *, seed: int) -> CalibratedScores:
    """One pair of models for each tier below the last, fitted on `fit`."""
    folds = fold_of_groups(fit, np.random.default_rng(seed))
    models, out_of_fold = [], []
    last_right = fit.is_right[:, fit.last]
    for tier in range(fit.last):
        scores, is_wrong = fit.scores[:, tier], ~fit.is_right[:, tier]
        pair = score_pair(scores)
        models.append(
            ScoreModel(
                tier=tier,
                wrong=fit_logistic(pair, is_wrong, RIDGE),
                last_right=fit_logistic(pair[is_wrong], last_right[is_wrong], RIDGE),
            )
        )
        wrong = cross_fitted(pair, is_wrong, folds, RIDGE)
        right_if_wrong = cross_fitted(pair, last_right, folds, RIDGE, among=is_wrong)
        out_of_fold.append(np.where(np.isnan(scores), np.nan, wrong * right_if_wrong))
    risks = {state: out_of_fold[state[-1]] for state in states_below(fit.last)}
    return CalibratedScores(fit=fit, models=tuple(models), out_of_fold=risks)
