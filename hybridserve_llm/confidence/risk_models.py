"""Fitted models of confidence and risk on the hot path: plain Python, no numpy.

The same as `calibration/risk_models.py`, one request at a time; a test holds both to each other.
A model is a logistic regression over the features of one state, the set of tiers asked so far.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from operator import mul, sub

from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import prompt_features
from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.requests import GenerateRequest

State = tuple[int, ...]
"""Indices of the tiers that answered so far, rising; the last one's answer is on the table."""

SCORE_PAIR_NAMES = ("logprob", "neg_log_complement")
KNOTS = (-2.0, 0.0, 2.0, 4.0)
"""Log-odds of a score at which what it tells may change: e^lp of 12, 50, 88 and 98 %."""
KNOT_NAMES = tuple(f"log_odds_above_{knot:g}" for knot in KNOTS)
SURE = -1e-9
"""A score nearer to 0 than this is taken as this: its complement has a logarithm."""
LOWEST_SCORE = -8.0
"""Below it a score only says "very unsure"."""
_LARGEST_LOGIT = 30.0


def state_feature_names(
    tiers: Sequence[str], state: State, answer_feature_names: Sequence[str] = FEATURE_NAMES
) -> tuple[str, ...]:
    """Names of a state's features, in order.

    Scores of all tiers, agreements, then the answer's own score above knots, and its features.
    """
    scores = [f"{tiers[t]}.{name}" for t in state for name in SCORE_PAIR_NAMES]
    agree = [f"agree.{tiers[a]}.{tiers[b]}" for a, b in itertools.combinations(state, 2)]
    beyond = [f"{tiers[state[-1]]}.{name}" for name in (*KNOT_NAMES, *answer_feature_names)]
    return (*scores, *agree, *beyond)


def state_features(seen: Sequence[Seen]) -> list[float | None]:
    """The features of a request's state in the order of `state_feature_names`; None is absent."""
    assessments = [one.assessment for one in seen]
    vector: list[float | None] = []
    for assessment in assessments:
        vector += score_pair(assessment.score)
    keys = [assessment.answer_key for assessment in assessments]
    vector += [float(a is not None and a == b) for a, b in itertools.combinations(keys, 2)]
    vector += _above_knots(*vector[2 * len(seen) - 2 : 2 * len(seen)])
    own = assessments[-1].features
    if own is not None:
        vector += map(own.__getitem__, FEATURE_NAMES)
    else:
        vector += [None] * len(FEATURE_NAMES)
    return vector


def score_pair(score: float | None) -> tuple[float | None, float | None]:
    """`(lp, -log(1 - exp lp))` of a log-probability score; see `calibration/risk_models.py`."""
    if score is None:
        return (None, None)
    lp = min(score, SURE)
    return (max(lp, LOWEST_SCORE), -math.log(-math.expm1(lp)))


def _above_knots(lp: float | None, neg_log_complement: float | None) -> list[float | None]:
    """How far the score's log-odds are above each knot, 0 below it."""
    if lp is None or neg_log_complement is None:
        return [None] * len(KNOTS)
    log_odds = lp + neg_log_complement
    return [max(log_odds - knot, 0.0) for knot in KNOTS]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearModel:
    """`sigmoid(intercept + sum_i slopes_i (x_i - means_i))`; an absent x_i adds 0.

    `columns` are the positions of the x_i in the vector of all features.
    """

    intercept: float
    columns: tuple[int, ...]
    slopes: tuple[float, ...]
    means: tuple[float, ...]

    def probability(self, features: Sequence[float | None]) -> float:
        """The probability for one vector of features."""
        values = [features[column] for column in self.columns]
        # An absent value does not subtract. Trying first takes a third of the time of asking each.
        try:
            logit = self.intercept + sum(map(mul, self.slopes, map(sub, values, self.means)))
        except TypeError:
            terms = zip(self.slopes, values, self.means, strict=True)
            logit = self.intercept + sum(a * (x - mean) for a, x, mean in terms if x is not None)
        bounded = max(-_LARGEST_LOGIT, min(_LARGEST_LOGIT, logit))
        return 1.0 / (1.0 + math.exp(-bounded))


@dataclass(frozen=True, slots=True, kw_only=True)
class StateModel:
    """P(wrong | features) and P(last tier right | wrong, features) in one state."""

    wrong: LinearModel
    last_right: LinearModel


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskModels:
    """A Judge over the fitted models of all states; `gate` reads the prompt alone."""

    states: Mapping[State, StateModel]
    gate: LinearModel | None = None

    def judge(self, seen: Sequence[Seen]) -> Assessment:
        """The last of `seen` with confidence and risk; as it is where it has no score or model."""
        own = seen[-1].assessment
        model = self.states.get(tuple(one.tier for one in seen))
        if model is None or own.score is None:
            return own
        features = state_features(seen)
        wrong = model.wrong.probability(features)
        risk = wrong * model.last_right.probability(features)
        return Assessment(
            score=own.score,
            confidence=1.0 - wrong,
            reason=own.reason,
            risk=risk,
            answer_key=own.answer_key,
            features=own.features,
            output_type=own.output_type,
        )

    def entry_risk(self, request: GenerateRequest) -> float | None:
        """P(the chain's first tier is wrong | prompt); None without a gate."""
        return (
            None if self.gate is None else self.gate.probability(prompt_features(request.payload))
        )
