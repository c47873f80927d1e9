"""Models of confidence and risk, one pair per set of tiers visited.

The state of a request is the set of tiers that were asked so far; the answer on the table is that
of the last of them. Its features are the scores of all of them and which of their answers agree.
Harm is rare, wrong answers are not, so the risk is learnt in two parts that each have more to learn
from: P(wrong | features) * P(last tier right | wrong, features). The first is 1 - confidence.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.logistic import Logistic, fit_logistic, log_losses
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints, Outcomes

State = tuple[int, ...]
"""Indices of the tiers asked so far, rising; the last one's answer is on the table."""

N_FOLDS = 5
RIDGES = (5.0, 20.0, 80.0)
"""Penalties tried; one is taken for all states, by the sum of their log-losses out of fold."""
_SURE = -1e-6
_LOWEST_SCORE = -8.0


def score_pair(scores: Floats) -> Floats:
    """`[lp, -log(1 - exp lp)]` of log-probability scores, shape [n] -> [n, 2].

    Source: Zellinger and Thomson, arXiv 2410.02173 (the second); both together have the shape of
    beta calibration. `lp` is cut off at -8, below which a score only says "very unsure".
    """
    lp = np.minimum(scores, _SURE)
    return np.stack([np.maximum(lp, _LOWEST_SCORE), -np.log(-np.expm1(lp))], axis=1)


def state_features(outcomes: Outcomes, state: State) -> Floats:
    """Features in the order of `state_feature_names`, shape [n_questions, n_features].

    NaN where a tier gave no score.
    """
    columns = [score_pair(outcomes.scores[:, tier]) for tier in state]
    columns += [
        (outcomes.answers[:, a] == outcomes.answers[:, b]).astype(np.float64)[:, None]
        for a, b in itertools.combinations(state, 2)
    ]
    return np.concatenate(columns, axis=1)


def state_feature_names(tiers: tuple[str, ...], state: State) -> tuple[str, ...]:
    """Names of the columns of `state_features`."""
    own = [f"{tiers[t]}.{name}" for t in state for name in ("logprob", "neg_log_complement")]
    pairs = itertools.combinations(state, 2)
    return (*own, *(f"agree.{tiers[a]}.{tiers[b]}" for a, b in pairs))


@dataclass(frozen=True, slots=True, kw_only=True)
class StateModel:
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
        features = state_features(outcomes, self.state)[:, self.columns]
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


def fit_state_models(outcomes: Outcomes, rng: np.random.Generator) -> dict[State, StateModel]:
    """The model of every state below the last tier, fitted on `outcomes`.

    Scores and agreement of all tiers visited are read where they tell wrong answers better than the
    answering tier's own score does, out of fold and by more than one standard error; else its own.
    """
    folds = fold_of_groups(outcomes, rng)
    states = list(states_below(outcomes.last))
    ridge = _best_ridge(outcomes, states, folds)
    return {state: _fit_state(outcomes, state, folds, ridge) for state in states}


def _best_ridge(outcomes: Outcomes, states: Sequence[State], folds: Ints) -> float:
    """The penalty of least log-loss out of fold over all states, their full features read."""
    cases = [(state_features(outcomes, s), ~outcomes.is_right[:, s[-1]]) for s in states]

    def total_loss(ridge: float) -> float:
        return sum(
            float(log_losses(cross_fitted(features, wrong, folds, ridge), wrong).sum())
            for features, wrong in cases
        )

    return min(RIDGES, key=total_loss)


def _fit_state(outcomes: Outcomes, state: State, folds: Ints, ridge: float) -> StateModel:
    features, is_wrong = state_features(outcomes, state), ~outcomes.is_right[:, state[-1]]
    columns = np.arange(2 * len(state) - 2, 2 * len(state))
    wrong = cross_fitted(features[:, columns], is_wrong, folds, ridge)
    if len(state) > 1:
        richer = cross_fitted(features, is_wrong, folds, ridge)
        if beats(richer, wrong, is_wrong):
            columns, wrong = np.arange(features.shape[1]), richer
    read, last_right = features[:, columns], outcomes.is_right[:, outcomes.last]
    right_if_wrong = cross_fitted(read, last_right, folds, ridge, among=is_wrong)
    return StateModel(
        state=state,
        columns=columns,
        wrong=fit_logistic(read, is_wrong, ridge),
        last_right=fit_logistic(read[is_wrong], last_right[is_wrong], ridge),
        out_of_fold=_judgement(outcomes, state, wrong, right_if_wrong),
    )


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
