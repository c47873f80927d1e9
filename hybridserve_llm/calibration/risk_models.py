"""Fit models of confidence and risk, one pair for each set of visited tiers.

The state of a request is the set of tiers that were asked so far; the answer on the table is that
of the last of them. Its features are the scores of all of them, the agreements among their answers,
and the features of the answer on the table beyond its score.

Harm is rare, wrong answers are not. So the risk is learnt in two parts that each have more data:
P(wrong | features) * P(last tier right | wrong, features). The first is 1 - confidence.
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
    """Return `[lp, -log(1 - exp lp)]` of log-probability scores, shape [n] -> [n, 2].

    Source: Zellinger and Thomson, arXiv 2410.02173 (the second); both together have the shape of
    beta calibration. `lp` is cut off at -8, below which a score only says "very unsure".
    """
    lp = np.minimum(scores, SURE)
    return np.stack([np.maximum(lp, LOWEST_SCORE), -np.log(-np.expm1(lp))], axis=1)


def above_knots(pair: Floats) -> Floats:
    """Return how far the log-odds of a score lie above each knot, else 0; [n, 2] -> [n, n_knots].

    `lp - log(1 - exp lp)` are the log-odds. Together with the pair this is a linear spline. It also
    calibrates a tier whose scores say nothing over one stretch and much beyond it.
    """
    log_odds = pair.sum(axis=1, keepdims=True)
    return np.asarray(np.maximum(log_odds - np.array(KNOTS), 0.0), dtype=np.float64)


def feature_matrix(outcomes: Outcomes, state: State) -> Floats:
    """Return the features of a state, [n_questions, n_features]; NaN where a tier gave no score.

    Their order is that of `confidence.risk_models.state_feature_names`.
    """
    pairs = [score_pairs(outcomes.scores[:, tier]) for tier in state]
    agreements = [
        (outcomes.answers[:, a] == outcomes.answers[:, b]).astype(np.float64)[:, None]
        for a, b in itertools.combinations(state, 2)
    ]
    own = [above_knots(pairs[-1]), outcomes.answer_features[:, state[-1]]]
    return np.concatenate([*pairs, *agreements, *own], axis=1)


def feature_sets(outcomes: Outcomes, state: State) -> list[Ints]:
    """Return the sets of columns of `feature_matrix` to try, from the own score alone to all."""
    n_scores, n_pairs = 2 * len(state), len(state) * (len(state) - 1) // 2
    n_of_scores = n_scores + n_pairs + len(KNOTS)
    sizes = dict.fromkeys((n_of_scores, n_of_scores + outcomes.answer_features.shape[2]))
    own = np.r_[n_scores - 2 : n_scores, n_scores + n_pairs : n_of_scores]
    return [own, *(np.arange(size) for size in sizes if size > len(own))]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedStateModel:
    """Predict confidence and risk of the answer on the table in one state.

    Attributes:
        columns: Indices of the state's features that are read, shape [n_read].
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
        """Return confidence and risk of accepting in this state, each [n_questions]."""
        features = feature_matrix(outcomes, self.state)[:, self.columns]
        wrong, last_right = self.wrong.predict(features), self.last_right.predict(features)
        return _judgement(outcomes, self.state, wrong, last_right)


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Hold P(right) and P(accepting does harm), each [n_questions]; NaN where there is no score."""

    confidence: Floats
    risk: Floats


def _judgement(outcomes: Outcomes, state: State, wrong: Floats, last_right: Floats) -> Judgement:
    unknown = np.isnan(outcomes.scores[:, state[-1]])
    return Judgement(
        confidence=np.where(unknown, np.nan, 1 - wrong),
        risk=np.where(unknown, np.nan, wrong * last_right),
    )


def states_below(last: int) -> Iterator[State]:
    """Yield every non-empty set of the tiers below `last`."""
    for size in range(1, last + 1):
        yield from itertools.combinations(range(last), size)


def fold_of_groups(outcomes: Outcomes, rng: np.random.Generator) -> Ints:
    """Return a fold 0..N_FOLDS-1 for each question.

    All questions of a group are in one fold, and so are all draws of one question.
    """
    keys = list(zip(outcomes.groups, outcomes.questions, strict=True))
    by_group = [group if group is not None else ("question", question) for group, question in keys]
    distinct = {key: i for i, key in enumerate(dict.fromkeys(by_group))}
    fold_of_key = rng.permutation(len(distinct)) % N_FOLDS
    return np.asarray([fold_of_key[distinct[key]] for key in by_group], dtype=np.int64)


def fit_state_models(outcomes: Outcomes, rng: np.random.Generator) -> dict[State, FittedStateModel]:
    """Fit the model of every state below the last tier on `outcomes`.

    The answering tier's own score is always read. Scores and agreement of all visited tiers, and
    then the features of the answer on the table, are read where they predict wrong answers better
    out of fold, by more than one standard error. The same features predict if the last tier is
    right where this answer is wrong, if they do so better than the plain rate does.
    """
    folds = fold_of_groups(outcomes, rng)
    states = list(states_below(outcomes.last))
    ridge = _best_ridge(outcomes, states, folds)
    return {state: _fit_state(outcomes, state, folds, ridge) for state in states}


def _best_ridge(outcomes: Outcomes, states: Sequence[State], folds: Ints) -> float:
    """Return the penalty of least log-loss out of fold over all states, full features read."""
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
    """Return the rate by the rule of succession, as `fit_logistic` gives it without features.

    It is not cross-fitted: five slightly different rates would only shuffle the order of the risks.
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
    """Return predictions for each row by a model fitted without the row's fold, shape [n].

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
    """Return True where the challenger's mean log-loss is clearly lower.

    Clearly means by more than one standard error of the paired differences.
    """
    gain = log_losses(incumbent, is_positive) - log_losses(challenger, is_positive)
    return len(gain) > 1 and bool(gain.mean() > gain.std(ddof=1) / np.sqrt(len(gain)))
