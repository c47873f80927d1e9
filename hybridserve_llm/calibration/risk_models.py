"""Models of confidence and risk, one pair per set of tiers visited.

The state of a request is the set of tiers that were asked so far; the answer on the table is that
of the last of them. Its features are the scores of all of them, which of their answers agree, and
what is known of the answer on the table beyond its score.
Harm is rare, wrong answers are not, so the risk is learnt in two parts that each have more to learn
from: P(wrong | features) * P(last tier right | wrong, features). The first is 1 - confidence.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.logistic import Logistic, fit_logistic, log_losses
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints, Outcomes, State
from hybridserve_llm.confidence.risk_models import KNOTS, LOWEST_SCORE, SURE

N_FOLDS = 5
RIDGES = (5.0, 20.0, 80.0)
"""Penalties tried; one is taken for all states, by the sum of their log-losses out of fold."""


def score_pairs(scores: Floats) -> Floats:
    """`[lp, -log(1 - exp lp)]` of log-probability scores, shape [n] -> [n, 2].

    Source: Zellinger and Thomson, arXiv 2410.02173 (the second); both together have the shape of
    beta calibration. `lp` is cut off at -8, below which a score only says "very unsure".
    """
    lp = np.minimum(scores, SURE)
    return np.stack([np.maximum(lp, LOWEST_SCORE), -np.log(-np.expm1(lp))], axis=1)


def above_knots(pair: Floats) -> Floats:
    """How far the log-odds of a score are above each knot, 0 below; shape [n, 2] -> [n, n_knots].

    `lp - log(1 - exp lp)` are the log-odds. Together with the pair this is a linear spline: a tier
    whose scores tell nothing over a stretch, and much beyond it, is calibrated as well.
    """
    log_odds = pair.sum(axis=1, keepdims=True)
    return np.asarray(np.maximum(log_odds - np.array(KNOTS), 0.0), dtype=np.float64)


def feature_matrix(outcomes: Outcomes, state: State) -> Floats:
    """The features of a state, shape [n_questions, n_features]; NaN where a tier gave no score.

    In the order of `confidence.risk_models.state_feature_names`.
    """
    pairs = [score_pairs(outcomes.scores[:, tier]) for tier in state]
    agreements = [
        (outcomes.answers[:, a] == outcomes.answers[:, b]).astype(np.float64)[:, None]
        for a, b in itertools.combinations(state, 2)
    ]
    own = [above_knots(pairs[-1]), outcomes.answer_features[:, state[-1]]]
    return np.concatenate([*pairs, *agreements, *own], axis=1)


def feature_sets(outcomes: Outcomes, state: State) -> list[Ints]:
    """Which columns of `feature_matrix` may be read, from the own score alone to all of them."""
    n_scores, n_pairs = 2 * len(state), len(state) * (len(state) - 1) // 2
    n_of_scores = n_scores + n_pairs + len(KNOTS)
    sizes = dict.fromkeys((n_of_scores, n_of_scores + outcomes.answer_features.shape[2]))
    own = np.r_[n_scores - 2 : n_scores, n_scores + n_pairs : n_of_scores]
    return [own, *(np.arange(size) for size in sizes if size > len(own))]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedStateModel:
    """Confidence and risk of the answer on the table in one state.

    Attributes:
        columns: Which of the state's features are read, shape [n_read].
        wrong: P(wrong | features).
        last_right: P(last tier right | wrong, features).
        out_of_fold: Cross-fitted predictions for the fit split.
    """

    state: State
    columns: Ints
    wrong: Logistic
    last_right: Logistic
    out_of_fold: "Judgement"

    def judge(self, outcomes: Outcomes) -> "Judgement":
        """Confidence and risk of accepting in this state, each [n_questions]."""
        features = feature_matrix(outcomes, self.state)[:, self.columns]
        wrong, last_right = self.wrong.predict(features), self.last_right.predict(features)
        return _judgement(outcomes, self.state, wrong, last_right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """P(right) and P(accepting does harm), each [n_questions]; NaN where there is no score."""

    confidence: Floats
    risk: Floats


def _judgement(outcomes: Outcomes, state: State, wrong: Floats, last_right: Floats) -> Judgement:
    unknown = np.isnan(outcomes.scores[:, state[-1]])
    return Judgement(
        confidence=np.where(unknown, np.nan, 1 - wrong),
        risk=np.where(unknown, np.nan, wrong * last_right),
    )


def states_below(last: int) -> Iterator[State]:
    """Every non-empty set of the tiers below `last`."""
    for size in range(1, last + 1):
        yield from itertools.combinations(range(last), size)


def fold_of_groups(outcomes: Outcomes, rng: np.random.Generator) -> Ints:
    """A fold 0..N_FOLDS-1 for each question; a group, or a question drawn twice, is in one fold."""
    keys = list(zip(outcomes.groups, outcomes.questions, strict=True))
    by_group = [group if group is not None else ("question", question) for group, question in keys]
    distinct = {key: i for i, key in enumerate(dict.fromkeys(by_group))}
    fold_of_key = rng.permutation(len(distinct)) % N_FOLDS
    return np.asarray([fold_of_key[distinct[key]] for key in by_group], dtype=np.int64)


def fit_state_models(outcomes: Outcomes, rng: np.random.Generator) -> dict[State, FittedStateModel]:
    """The model of every state below the last tier, fitted on `outcomes`.

    The answering tier's own score is always read. Scores and agreement of all tiers visited, and
    then the features of the answer on the table, are read where that tells wrong answers better
    out of fold, by more than one standard error. Whether the last tier is right on the wrong ones
    is read from the same features, where they tell more of it than its rate does.
    """
    folds = fold_of_groups(outcomes, rng)
    states = list(states_below(outcomes.last))
    ridge = _best_ridge(outcomes, states, folds)
    return {state: _fit_state(outcomes, state, folds, ridge) for state in states}


def _best_ridge(outcomes: Outcomes, states: Sequence[State], folds: Ints) -> float:
    """The penalty of least log-loss out of fold over all states, their full features read."""
    cases = [(feature_matrix(outcomes, s), ~outcomes.is_right[:, s[-1]]) for s in states]

    def total_loss(ridge: float) -> float:
        return sum(
            float(log_losses(cross_fitted(features, wrong, folds, ridge), wrong).sum())
            for features, wrong in cases
        )

    return min(RIDGES, key=total_loss)


def _fit_state(outcomes: Outcomes, state: State, folds: Ints, ridge: float) -> FittedStateModel:
    features, is_wrong = feature_matrix(outcomes, state), ~outcomes.is_right[:, state[-1]]
    columns, *richer_sets = feature_sets(outcomes, state)
    wrong = cross_fitted(features[:, columns], is_wrong, folds, ridge)
    for richer in richer_sets:
        predicted = cross_fitted(features[:, richer], is_wrong, folds, ridge)
        if beats(predicted, wrong, is_wrong):
            columns, wrong = richer, predicted
    read, last_right = features[:, columns], outcomes.is_right[:, outcomes.last]
    nothing = np.zeros_like(read)
    right_if_wrong = cross_fitted(read, last_right, folds, ridge, among=is_wrong)
    base_rate = cross_fitted(nothing, last_right, folds, ridge, among=is_wrong)
    if not beats(right_if_wrong[is_wrong], base_rate[is_wrong], last_right[is_wrong]):
        read_if_wrong, right_if_wrong = nothing, np.full(len(read), _share(last_right[is_wrong]))
    else:
        read_if_wrong = read
    return FittedStateModel(
        state=state,
        columns=columns,
        wrong=fit_logistic(read, is_wrong, ridge),
        last_right=fit_logistic(read_if_wrong[is_wrong], last_right[is_wrong], ridge),
        out_of_fold=_judgement(outcomes, state, wrong, right_if_wrong),
    )


def _share(is_positive: Bools) -> float:
    """The rule of succession, as `fit_logistic` gives it without features.

    Not cross-fitted: five slightly different rates would only shuffle the order of the risks.
    """
    return float((is_positive.sum() + 1) / (len(is_positive) + 2))


def cross_fitted(
    features: Floats,
    is_positive: Bools,
    folds: Ints,
    ridge: float,
    *,
    among: Bools | None = None,
) -> Floats:
    """Predictions for each row by a model fitted without the row's fold, shape [n].

    `among` restricts the rows that are learnt from, not those that are predicted.
    """
    learnt = np.ones(len(folds), dtype=bool) if among is None else among
    predicted = np.empty(len(folds))
    for fold in np.unique(folds):
        inside = folds == fold
        rows = ~inside & learnt
        model = fit_logistic(features[rows], is_positive[rows], ridge)
        predicted[inside] = model.predict(features[inside])
    return predicted


def beats(challenger: Floats, incumbent: Floats, is_positive: Bools) -> bool:
    """Whether the challenger's mean log-loss is lower by more than one standard error (paired)."""
    gain = log_losses(incumbent, is_positive) - log_losses(challenger, is_positive)
    return len(gain) > 1 and bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))
