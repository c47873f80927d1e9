"""Compare what a server did, by its own records, with a replay of recorded answers."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval.recorded.measured_run import CASCADE, ServedAnswer, is_run, read_run
from eval.recorded.record_files import read_ledgers
from eval.rivals.policy_replay import ServedPolicy, Steps, assessment_of, decided
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.cascade.risk_policy import RiskPolicy
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.values.answers import Seen
from hybridserve_llm.values.ledger import Attempt, Verdict

Way = tuple[tuple[str, Verdict], ...]
"""Tier and decision of each attempt."""

SAME_NUMBER = 1e-9
_ENDED = frozenset({Verdict.FAIL, Verdict.ABORT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Count the requests that the server answered and the replay decided, joined by their ids.

    Attributes:
        n_failed: Requests left out, as a tier failed or the client went away.
        n_unknown: Requests left out, as no question has their id.
        differing: Ids of the questions that were decided otherwise.
    """

    n_compared: int
    n_failed: int
    n_unknown: int
    differing: tuple[str, ...]


def compare(path: Path, ways: Sequence[Steps], outcomes: Outcomes) -> Comparison:
    """Compare the requests in `path`, a server's `records.file` or a measured run, with `ways`.

    A request of a record file is the question whose id it was sent under (header `x-request-id`).
    A measured run names its questions itself.

    Raises:
        ConfigError: The file cannot be read, holds no requests, or two questions have one id.
    """
    ids = [str(question[1]) for question in _named(outcomes)]
    if len(set(ids)) < len(ids):
        raise ConfigError("ids repeat in these records, so they do not identify requests")
    replayed = {
        query_id: tuple((outcomes.tiers[step.tier], step.verdict) for step in steps)
        for query_id, steps in zip(ids, ways, strict=True)
    }
    served = _served(path)
    known = {key: way for key, way in served.items() if key in replayed}
    whole = {key: way for key, way in known.items() if not _ENDED & {verdict for _, verdict in way}}
    return Comparison(
        n_compared=len(whole),
        n_failed=len(known) - len(whole),
        n_unknown=len(served) - len(known),
        differing=tuple(key for key, way in whole.items() if way != replayed[key]),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedComparison:
    """Count what a server decided as a replay does of answers that its tiers gave another time.

    The replay decides by the same code, so decisions differ only where answers or scores do: an
    engine sums in another order when it works on another batch, and a score next to a threshold
    falls to the other side.

    Attributes:
        n_same_tier: Requests answered by the same tier.
        n_same_way: Requests with the same decision at every tier.
        n_same_numbers: Requests decided on the same risks (without risks: scores), to
            within SAME_NUMBER, at every tier that was asked.
        n_unexplained: Requests of those that were decided otherwise; 0 where the code is the same.
        largest_difference: Of two numbers that one decision was made on; None where none was.
    """

    n: int
    n_same_tier: int
    n_same_way: int
    n_same_numbers: int
    n_unexplained: int
    largest_difference: float | None


def compare_served(
    answers: Sequence[ServedAnswer], served: ServedPolicy, outcomes: Outcomes
) -> ServedComparison:
    """Compare `answers` of the cascade with `served` replayed over `outcomes`, one by one."""
    index = {name: i for i, name in enumerate(outcomes.tiers)}
    ways = decided(served, outcomes)
    own = [[(index[a.tier], a.decision) for a in answer.attempts] for answer in answers]
    replayed = [[(step.tier, step.verdict) for step in steps] for steps in ways]
    is_same = [a == b for a, b in zip(own, replayed, strict=True)]
    gaps = [_gaps(answer, served, outcomes, i) for i, answer in enumerate(answers)]
    has_same_numbers = [all(gap <= SAME_NUMBER for gap in each) for each in gaps]
    pairs = list(zip(is_same, has_same_numbers, strict=True))
    return ServedComparison(
        n=len(answers),
        n_same_tier=sum(a[-1][0] == b[-1][0] for a, b in zip(own, replayed, strict=True)),
        n_same_way=sum(is_same),
        n_same_numbers=sum(has_same_numbers),
        n_unexplained=sum(numbers and not same for same, numbers in pairs),
        largest_difference=max(
            (gap for each in gaps for gap in each if math.isfinite(gap)), default=None
        ),
    )


def _gaps(
    answer: ServedAnswer, served: ServedPolicy, outcomes: Outcomes, question: int
) -> list[float]:
    """Return the gaps between the server's and the replay's numbers, at each tier below the last.

    Infinite where only one of both has a number.
    """
    tiers = [outcomes.tiers.index(attempt.tier) for attempt in answer.attempts]
    seen = [Seen(tier=t, assessment=assessment_of(outcomes, question, t)) for t in tiers]
    gaps = []
    for i, attempt in enumerate(answer.attempts):
        if tiers[i] == outcomes.last:
            continue
        ours, theirs = seen[i].assessment.score, attempt.score
        if isinstance(served.policy, RiskPolicy):
            ours, theirs = served.policy.judge.judge(seen[: i + 1]).risk, attempt.risk
        if (ours is None) != (theirs is None):
            gaps.append(math.inf)
        elif ours is not None and theirs is not None:
            gaps.append(abs(ours - theirs))
    return gaps


def _named(outcomes: Outcomes) -> list[tuple[Any, Any]]:
    """Return questions as (split, id), which both forms of records name them by."""
    return [question for question in outcomes.questions if isinstance(question, tuple)]


def _served(path: Path) -> Mapping[str, Way]:
    """Return the way of each request by its id."""
    if is_run(path):
        return {
            answer.query_id: _way(answer.attempts) or (("no tier", Verdict.FAIL),)
            for block in read_run(path).of_way(CASCADE)
            for answer in block.answers
        }
    found = {ledger.request_id: _way(ledger.attempts) for ledger in read_ledgers(path)}
    if not found:
        raise ConfigError(f"{path} holds no request")
    return found


def _way(attempts: Sequence[Attempt]) -> Way:
    return tuple((attempt.tier, attempt.decision) for attempt in attempts)
