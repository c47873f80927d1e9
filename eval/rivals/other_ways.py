"""Other ways to answer the same questions, beside a policy and at its cost: one table code for all.

    each tier alone, perfect chain, oracle   promise nothing and look at no fit question
    random escalation                        one tier is asked, a random share goes on (expectation)
    raw scores, length, router on the prompt thresholds fitted on the other half of the questions

A fitted way is the most accurate one on its fit half that costs no more than the policy there, and
is counted on the other half; both halves together are all questions, each decided by what was
fitted without it. So a way can come out a little cheaper or dearer than the policy.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.judging.baselines import Way, done_without_risk, oracle, perfect_chain
from eval.judging.intervals import Interval, share_interval
from eval.recorded.splits import question_groups
from eval.rivals.prompt_router import router_paths
from eval.rivals.raw_score import raw_score_paths
from hybridserve_llm.calibration.outcomes import Floats, Ints, Outcomes
from hybridserve_llm.calibration.policies import Replay

RANDOM, LENGTH, ROUTER = "random escalation", "length only", "router on the prompt"
PERFECT, ORACLE = "perfect chain", "oracle"
FEWEST_TO_FIT = 40
"""Questions; with fewer no way is fitted."""
_RAW_FEATURES = (
    ("min_logprob", "raw score: lowest token"),
    ("mean_logprob", "raw score: mean of tokens"),
    ("mean_margin", "raw score: mean margin"),
)
"""Single raw scores beside the recorded one, where features of answers are recorded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherWay:
    """A way of answering all questions; costs are means of a request.

    Attributes:
        accuracy_interval: Of 95 % (`share_interval`); None of an expectation.
        ratio: Cost of the last tier alone over its own; None where its own is 0.
        is_fitted: Whether thresholds were fitted on the other half.
    """

    name: str
    accuracy: float
    accuracy_interval: Interval | None
    cost: float
    ratio: float | None
    is_fitted: bool


def other_ways(
    outcomes: Outcomes,
    costs: Floats,
    *,
    policy_cost: float,
    seed: int,
    answer_lengths: Floats | None,
) -> tuple[OtherWay, ...]:
    """All ways beside a policy of mean cost `policy_cost`.

    Args:
        outcomes: The questions; their mean costs are what thresholds are fitted by.
        costs: Cost of each tier at each question, [n_questions, n_tiers].
        policy_cost: In the unit of `costs`.
        seed: Of the halves and of the intervals.
        answer_lengths: Output tokens, [n_questions, n_tiers]; None where they are not recorded.
    """
    table = _Table(outcomes=outcomes, costs=costs, seed=seed)
    fixed = [
        *(
            table.counted(f"{name} alone", _alone(outcomes, i))
            for i, name in enumerate(outcomes.tiers)
        ),
        *_random(table, policy_cost),
    ]
    fitted: list[OtherWay] = []
    if outcomes.n_questions >= FEWEST_TO_FIT and outcomes.last > 0:
        halves = _halves(outcomes, seed)
        for name, seen, paths in _families(outcomes, answer_lengths):
            done = _cross_fitted(seen, halves, paths, policy_cost)
            fitted.append(table.counted(name, done, is_fitted=True))
    ideal = [
        table.counted(PERFECT, perfect_chain(outcomes)),
        table.counted(ORACLE, oracle(outcomes)),
    ]
    return (*fixed, *fitted, *ideal)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    outcomes: Outcomes
    costs: Floats
    seed: int

    @property
    def last_cost(self) -> float:
        return float(self.costs[:, self.outcomes.last].mean())

    def ratio(self, cost: float) -> float | None:
        return self.last_cost / cost if cost else None

    def counted(self, name: str, done: Replay, *, is_fitted: bool = False) -> OtherWay:
        is_right = done.is_right(self.outcomes)
        cost = float((done.was_asked * self.costs).sum(axis=1).mean())
        return OtherWay(
            name=name,
            accuracy=float(is_right.mean()),
            accuracy_interval=share_interval(is_right, self.outcomes.groups, seed=self.seed),
            cost=cost,
            ratio=self.ratio(cost),
            is_fitted=is_fitted,
        )


def _alone(outcomes: Outcomes, tier: int) -> Replay:
    return _only(outcomes, np.full(outcomes.n_questions, tier))


def _only(outcomes: Outcomes, answering: Ints) -> Replay:
    return done_without_risk(answering, np.arange(len(outcomes.tiers)) == answering[:, None])


def _random(table: _Table, policy_cost: float) -> Iterator[OtherWay]:
    """Random escalation as dear as the policy, from the tier that is best for it here.

    Every question pays for the tier, and a random share of them for the last one too; figures are
    expectations. None where every lower tier alone is dearer than the policy.
    """
    outcomes, last = table.outcomes, table.outcomes.last
    rates, own = outcomes.is_right.mean(axis=0), table.costs.mean(axis=0)
    best: tuple[float, float] | None = None
    for tier in range(last):
        if own[tier] <= policy_cost:
            left = policy_cost - own[tier]
            share = float(min(left / own[last], 1.0)) if own[last] else 1.0
            accuracy = float(share * rates[last] + (1 - share) * rates[tier])
            best = max(best or (-1.0, 0.0), (accuracy, float(own[tier] + share * own[last])))
    if best is not None:
        yield OtherWay(
            name=RANDOM,
            accuracy=best[0],
            accuracy_interval=None,
            cost=best[1],
            ratio=table.ratio(best[1]),
            is_fitted=False,
        )


Paths = Callable[[Outcomes], list[tuple[Way, float]]]
"""Ways with their mean costs on the questions they were fitted on."""


def _families(
    outcomes: Outcomes, answer_lengths: Floats | None
) -> Iterator[tuple[str, Outcomes, Paths]]:
    """Name, the questions as the way sees them, and its paths on a fit half."""
    yield "raw score: recorded", outcomes, _by_score
    for feature, name in _RAW_FEATURES:
        if feature in outcomes.answer_feature_names:
            values = outcomes.answer_features[:, :, outcomes.answer_feature_names.index(feature)]
            if not np.isnan(values[:, :-1]).all():
                yield name, replace(outcomes, scores=values), _by_score
    names = outcomes.answer_feature_names
    if answer_lengths is not None:
        # The shorter the surer.
        yield LENGTH, replace(outcomes, scores=-np.log1p(answer_lengths)), _by_score
    elif "log_length" in names:
        lengths = outcomes.answer_features[:, :, names.index("log_length")]
        yield LENGTH, replace(outcomes, scores=-lengths), _by_score
    if outcomes.prompt_features.shape[1]:
        yield ROUTER, outcomes, _by_prompt


def _by_score(fit: Outcomes) -> list[tuple[Way, float]]:
    return [
        (way, float(cost))
        for path in raw_score_paths(fit, "net")
        for way, cost in zip(path.ways, path.costs, strict=True)
    ]


def _by_prompt(fit: Outcomes) -> list[tuple[Way, float]]:
    return [
        (way, float(cost))
        for path in router_paths(fit, "net")
        for way, cost in zip(path.ways, path.costs, strict=True)
    ]


def _halves(outcomes: Outcomes, seed: int) -> tuple[Ints, Ints]:
    """Rows of two halves; a group lies in one of them as a whole."""
    groups = question_groups(outcomes)
    order = np.random.default_rng(seed).permutation(len(groups))
    middle = len(groups) // 2
    first, second = order[:middle], order[middle:]
    return (
        np.sort(np.concatenate([groups[i] for i in first])),
        np.sort(np.concatenate([groups[i] for i in second])),
    )


def _cross_fitted(
    seen: Outcomes, halves: tuple[Ints, Ints], paths: Paths, policy_cost: float
) -> Replay:
    """Each half decided by the way that was best on the other one."""
    answering = np.full(seen.n_questions, seen.last)
    was_asked = np.zeros((seen.n_questions, len(seen.tiers)), dtype=bool)
    for fit_rows, own_rows in (halves, halves[::-1]):
        fit, own = seen.take(fit_rows), seen.take(own_rows)
        way = _best(paths(fit), fit, policy_cost)
        done = _alone(own, own.last) if way is None else way.replay(own)
        answering[own_rows], was_asked[own_rows] = done.answering, done.was_asked
    return done_without_risk(answering, was_asked)


def _best(ways: Sequence[tuple[Way, float]], fit: Outcomes, policy_cost: float) -> Way | None:
    """The most accurate way on `fit` that costs at most `policy_cost`; None where there is none."""
    best: tuple[float, float] | None = None
    found: Way | None = None
    for way, cost in ways:
        if cost <= policy_cost * (1 + 1e-9):
            key = (float(way.replay(fit).is_right(fit).mean()), -cost)
            if best is None or key > best:
                best, found = key, way
    return found
