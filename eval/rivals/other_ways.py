"""Answer the same questions in other ways, at the cost of a policy that they are compared with.

    each tier alone, perfect chain, oracle   promise nothing and look at no fit question
    random escalation                        one tier is asked, a random share goes on (expectation)
    raw scores, length, router on the prompt thresholds fitted on the other half of the questions

A fitted way is the most accurate one on its fit half that costs no more than the policy there, and
is counted on the other half; both halves together are all questions, each decided by what was
fitted without it. So a way can come out a little cheaper or dearer than the policy.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from eval.judging.baselines import (
    JudgedPath,
    Rival,
    RivalT,
    done_without_risk,
    oracle,
    perfect_chain,
)
from eval.judging.intervals import share_interval
from eval.judging.ways import Way, count_way
from eval.recorded.calibration_data import CalibrationData
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
"""Single raw scores next to the recorded one, where features of answers are recorded."""


def other_ways(
    outcomes: Outcomes,
    costs: Floats,
    *,
    policy_cost: float,
    seed: int,
    answer_lengths: Floats | None,
) -> tuple[Way, ...]:
    """Return all ways to compare with a policy of mean cost `policy_cost`.

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
    fitted: list[Way] = []
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


def ways_at_cost(data: CalibrationData, policy_cost: float, *, seed: int) -> tuple[Way, ...]:
    """Return other ways to answer the recorded questions, at a policy's cost."""
    outcomes = data.outcomes
    return other_ways(
        outcomes,
        np.tile(outcomes.costs, (outcomes.n_questions, 1)),
        policy_cost=policy_cost,
        seed=seed,
        answer_lengths=data.answer_lengths,
    )


def ways_json(ways: Sequence[Way]) -> list[dict[str, Any]]:
    """Return the ways as JSON objects."""
    fields = ("name", "accuracy", "accuracy_interval", "ratio", "is_fitted")
    return [way.as_json(*fields) for way in ways]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Table:
    outcomes: Outcomes
    costs: Floats
    seed: int

    def counted(self, name: str, done: Replay, *, is_fitted: bool = False) -> Way:
        is_right, groups = done.is_right(self.outcomes), self.outcomes.groups
        return replace(
            count_way(name, done, self.outcomes, self.costs),
            accuracy_interval=share_interval(is_right, groups, seed=self.seed),
            is_fitted=is_fitted,
        )


def _alone(outcomes: Outcomes, tier: int) -> Replay:
    return _only(outcomes, np.full(outcomes.n_questions, tier))


def _only(outcomes: Outcomes, answering: Ints) -> Replay:
    return done_without_risk(answering, np.arange(len(outcomes.tiers)) == answering[:, None])


def _random(table: _Table, policy_cost: float) -> Iterator[Way]:
    """Yield random escalation as dear as the policy, from the tier that is best for it here.

    Nothing where every lower tier alone is dearer than the policy.
    """
    outcomes, own = table.outcomes, table.costs.mean(axis=0)
    affordable = [tier for tier in range(outcomes.last) if own[tier] <= policy_cost]
    ways = [random_escalation(tier, outcomes, own, policy_cost) for tier in affordable]
    if ways:
        yield max(ways, key=lambda way: (way.accuracy, way.cost))


def random_escalation(tier: int, outcomes: Outcomes, costs: Floats, policy_cost: float) -> Way:
    """Return expected figures of random escalation from `tier` that costs as much as a policy.

    Every question pays for the tier, and a random share of them for the last one too; the share is
    0 where that is too dear. `costs` are means of a request, [n_tiers].
    """
    rates, own, last = outcomes.is_right.mean(axis=0), float(costs[tier]), float(costs[-1])
    share = min(max((policy_cost - own) / last, 0.0), 1.0) if last else 1.0
    cost = own + share * last
    names = outcomes.tiers
    return Way(
        name=RANDOM,
        accuracy=float(share * rates[-1] + (1 - share) * rates[tier]),
        cost=cost,
        ratio=last / cost if cost else None,
        chain=(names[tier], names[-1]),
        asked={**dict.fromkeys(names, 0.0), names[tier]: 1.0, names[-1]: share},
    )


Paths = Callable[[Outcomes], list[tuple[Rival, float]]]
"""Ways with their mean costs on the questions they were fitted on."""


def _families(
    outcomes: Outcomes, answer_lengths: Floats | None
) -> Iterator[tuple[str, Outcomes, Paths]]:
    """Yield name, the questions as the way sees them, and its paths on a fit half."""
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


def _by_score(fit: Outcomes) -> list[tuple[Rival, float]]:
    return _with_costs(raw_score_paths(fit, "net"))


def _by_prompt(fit: Outcomes) -> list[tuple[Rival, float]]:
    return _with_costs(router_paths(fit, "net"))


def _with_costs(paths: Sequence[JudgedPath[RivalT]]) -> list[tuple[Rival, float]]:
    return [
        (rival, float(cost))
        for path in paths
        for rival, cost in zip(path.ways, path.costs, strict=True)
    ]


def _halves(outcomes: Outcomes, seed: int) -> tuple[Ints, Ints]:
    """Return the rows of two halves; a group lies in one of them as a whole."""
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
    """Return each half decided by the way that was best on the other one."""
    answering = np.full(seen.n_questions, seen.last)
    was_asked = np.zeros((seen.n_questions, len(seen.tiers)), dtype=bool)
    for fit_rows, own_rows in (halves, halves[::-1]):
        fit, own = seen.take(fit_rows), seen.take(own_rows)
        way = _best(paths(fit), fit, policy_cost)
        done = _alone(own, own.last) if way is None else way.replay(own)
        answering[own_rows], was_asked[own_rows] = done.answering, done.was_asked
    return done_without_risk(answering, was_asked)


def _best(ways: Sequence[tuple[Rival, float]], fit: Outcomes, policy_cost: float) -> Rival | None:
    """Return the most accurate way on `fit` that costs at most `policy_cost`; None without one."""
    best: tuple[float, float] | None = None
    found: Rival | None = None
    for way, cost in ways:
        if cost <= policy_cost * (1 + 1e-9):
            key = (float(way.replay(fit).is_right(fit).mean()), -cost)
            if best is None or key > best:
                best, found = key, way
    return found
