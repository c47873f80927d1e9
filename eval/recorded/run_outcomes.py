"""What a measured run comes to, question by question: who was right, and what it cost.

Counters are read once a block, so what a block used is shared among its questions by the tokens
computed for each, as the server's own books share joules (decision 009). Sums over a block are
measured; a single question's share is not.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from eval.questions.prompts import Question
from eval.recorded.attempt_outcomes import outcomes_of_attempts
from eval.recorded.attempts import Attempts, RecordedAttempt
from eval.recorded.measured_run import (
    ALONE,
    CASCADE,
    Block,
    EngineUse,
    IdleWindow,
    MeasuredRun,
    RunHeader,
    ServedAnswer,
    ServedAttempt,
)
from eval.recorded.run_file import differing_runs
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints, Outcomes
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.values.ledger import Verdict

Unit = Literal["J", "CPU-s"]
Use = Callable[[str, EngineUse, float], float]
"""What a tier's engines used in a window of so many seconds."""
_ENDED = frozenset({Verdict.FAIL.value, Verdict.ABORT.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledRun:
    """Runs of one cascade on one machine, with questions of their own, as one run."""

    headers: tuple[RunHeader, ...]
    blocks: tuple[tuple[int, Block], ...]
    idle: tuple[IdleWindow, ...]
    attempts: Attempts

    @property
    def header(self) -> RunHeader:
        """The first run's."""
        return self.headers[0]

    @property
    def tiers(self) -> tuple[str, ...]:
        """Names, cheapest first."""
        return tuple(tier.name for tier in self.header.asked.tiers)

    def of_way(self, way: str) -> list[tuple[int, Block]]:
        """The blocks of one way, each with the number of its run."""
        return [(run, block) for run, block in self.blocks if block.way == way]

    @property
    def unit(self) -> Unit:
        """Joules where every block has them, else CPU-seconds; never one for some of both.

        Raises:
            CannotBeDone: Some block has neither.
        """
        uses = [block.used[tier] for _, block in self.blocks for tier in self.tiers]
        if all(use.active_j is not None for use in uses):
            return "J"
        if any(use.cpu_s is None for use in uses):
            raise CannotBeDone(
                "neither joules nor CPU-seconds of every tier's engines were measured; engines "
                "that hs-launch did not start are not metered"
            )
        return "CPU-s"

    @property
    def energy_sources(self) -> str | None:
        """The meters of the joules; None without joules."""
        found = {use.energy_source for _, block in self.blocks for use in block.used.values()}
        return ", ".join(sorted(filter(None, found))) or None


def pooled(runs: Sequence[MeasuredRun]) -> PooledRun:
    """The runs as one.

    Raises:
        ConfigError: They are of different cascades, settings or hardware, or share a question.
    """
    headers = tuple(run.header for run in runs)
    if differing := differing_runs(headers, same_prompts=False):
        raise ConfigError(f"these runs are of other {differing}; report them one by one")
    attempts = Attempts(header=headers[0].asked)
    for run in runs:
        for by_tier in run.attempts().by_question.values():
            for attempt in by_tier.values():
                attempts.add(attempt)
    return PooledRun(
        headers=headers,
        blocks=tuple((i, block) for i, run in enumerate(runs) for block in run.blocks),
        idle=tuple(window for run in runs for window in run.idle),
        attempts=attempts,
    )


def total_use(unit: Unit) -> Use:
    """All that engines used, waiting and polling included."""

    def use(tier: str, used: EngineUse, duration_s: float) -> float:
        if unit == "CPU-s":
            return used.cpu_s or 0.0
        return (used.active_j or 0.0) + (used.idle_j or 0.0)

    return use


def use_without_idle(unit: Unit, idle: Sequence[IdleWindow]) -> Use:
    """The same less what engines use when nobody asks: as booked, or by the idle windows' rate."""

    def use(tier: str, used: EngineUse, duration_s: float) -> float:
        if unit == "CPU-s":
            return (used.cpu_s or 0.0) - idle_cpu_rate(tier, idle) * duration_s
        return used.active_j or 0.0

    return use


def idle_cpu_rate(tier: str, idle: Sequence[IdleWindow]) -> float:
    """CPU-seconds a second of a tier's idle engines, over all windows; 0 without any."""
    duration_s = math.fsum(window.duration_s for window in idle)
    used_s = math.fsum(window.used[tier].cpu_s or 0.0 for window in idle)
    return used_s / duration_s if duration_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOutcomes:
    """The questions that every way answered, all arrays by question.

    Attributes:
        outcomes: Of the tiers' own blocks; right and costs of the last tier are those of ALONE.
        costs: Of each tier alone, [n_questions, n_tiers].
        cascade_costs: What each tier cost the cascade, [n_questions, n_tiers]; 0 where not asked.
        answering: Index of the tier that answered over HTTP.
        cascade_ttft_s: Seconds to the first token; NaN where it was not asked as a stream.
        n_left_out: Questions that some way did not answer, or that were not graded.
        n_last_differs: Questions that the last tier, asked twice, was once right and once wrong at.
    """

    outcomes: Outcomes
    unit: Unit
    costs: Floats
    cascade_costs: Floats
    answering: Ints
    was_asked: Bools
    cascade_right: Bools
    cascade_latency_s: Floats
    alone_latency_s: Floats
    cascade_ttft_s: Floats
    alone_ttft_s: Floats
    served: tuple[ServedAnswer, ...]
    n_left_out: int
    n_last_differs: int

    @property
    def alone_right(self) -> Bools:
        """Where the last tier alone was right."""
        return np.asarray(self.outcomes.is_right[:, self.outcomes.last], dtype=bool)


def run_outcomes(run: PooledRun, use: Use) -> RunOutcomes:
    """The questions of `run`, with what they cost by `use`.

    Raises:
        ConfigError: No question was answered in every way.
    """
    tiers, attempts = run.tiers, run.attempts
    served = {a.question: a for _, block in run.of_way(CASCADE) for a in block.answers}
    alone = {a.question: a for _, block in run.of_way(ALONE) for a in block.answers}
    graded = outcomes_of_attempts(attempts, tiers, dict.fromkeys(tiers, 1.0))
    whole = [
        i
        for i, question in enumerate(graded.outcomes.questions)
        if _is_whole(served.get(question)) and _is_whole(alone.get(question))  # type: ignore[call-overload]
    ]
    if not whole:
        raise ConfigError("no question was answered by every tier, the cascade and the last alone")
    outcomes = graded.outcomes.take(whole)
    questions: list[Question] = [*outcomes.questions]  # type: ignore[list-item]
    ours, theirs = [served[q] for q in questions], [alone[q] for q in questions]
    alone_right = np.array([bool(a.correct) for a in theirs])
    is_right = outcomes.is_right.copy()
    n_last_differs = int((is_right[:, -1] != alone_right).sum())
    is_right[:, -1] = alone_right
    own = tier_costs(run, use)
    costs = np.array([[own[t][q] for t in tiers] for q in questions])
    by_tier = _cascade_costs(run, use)
    index = {name: i for i, name in enumerate(tiers)}
    was_asked = np.zeros((len(ours), len(tiers)), dtype=bool)
    for i, answer in enumerate(ours):
        was_asked[i, [index[attempt.tier] for attempt in answer.attempts]] = True
    return RunOutcomes(
        outcomes=replace(outcomes, is_right=is_right, costs=costs.mean(axis=0)),
        unit=run.unit,
        costs=costs,
        cascade_costs=np.array([[by_tier[t].get(q, 0.0) for t in tiers] for q in questions]),
        answering=np.array([index[a.tier or tiers[-1]] for a in ours]),
        was_asked=was_asked,
        cascade_right=np.array([bool(a.correct) for a in ours]),
        cascade_latency_s=np.array([a.latency_s for a in ours]),
        alone_latency_s=np.array([a.latency_s for a in theirs]),
        cascade_ttft_s=_first_tokens(ours),
        alone_ttft_s=_first_tokens(theirs),
        served=tuple(ours),
        n_left_out=len(attempts.by_question) - len(questions),
        n_last_differs=n_last_differs,
    )


def _first_tokens(answers: Sequence[ServedAnswer]) -> Floats:
    return np.array([np.nan if a.ttft_s is None else a.ttft_s for a in answers])


def _is_whole(answer: ServedAnswer | None) -> bool:
    """Whether it is an answer, graded, of a request in which no tier failed."""
    return (
        answer is not None
        and answer.correct is not None
        and not any(attempt.decision in _ENDED for attempt in answer.attempts)
    )


def shared(total: float, tokens: Mapping[Question, float | None]) -> dict[Question, float]:
    """`total` by tokens; where some question does not tell its own, in equal parts."""
    known = [count for count in tokens.values() if count is not None]
    if len(known) < len(tokens) or math.fsum(known) == 0:
        return dict.fromkeys(tokens, total / len(tokens)) if tokens else {}
    whole = math.fsum(known)
    return {question: total * (count or 0.0) / whole for question, count in tokens.items()}


def _tokens(attempt: RecordedAttempt | ServedAttempt) -> float | None:
    """Tokens computed: prompt tokens that were not cached, and output; None where not told."""
    prompt, completion = attempt.prompt_tokens, attempt.completion_tokens
    if prompt is None or completion is None:
        return None
    return float(prompt - (attempt.cached_tokens or 0) + completion)


def tier_costs(run: PooledRun, use: Use) -> dict[str, dict[Question, float]]:
    """Cost of each question, asked of each tier alone; of the last one, as a plain user asks it."""
    *lower, last = run.tiers
    found: dict[str, dict[Question, float]] = {tier: {} for tier in run.tiers}
    for tier in lower:
        for _, block in run.of_way(tier):
            tokens = {attempt.question: _tokens(attempt) for attempt in block.recorded}
            found[tier] |= shared(use(tier, block.used[tier], block.duration_s), tokens)
    for _, block in run.of_way(ALONE):
        of_last = {a.question: _served_tokens(a, last) or 0.0 for a in block.answers}
        found[last] |= shared(use(last, block.used[last], block.duration_s), of_last)
    return found


def _cascade_costs(run: PooledRun, use: Use) -> dict[str, dict[Question, float]]:
    """What each tier cost the cascade at each question; sums are all that was used in a block."""
    found: dict[str, dict[Question, float]] = {tier: {} for tier in run.tiers}
    for _, block in run.of_way(CASCADE):
        for tier in run.tiers:
            asked = {
                answer.question: _served_tokens(answer, tier)
                for answer in block.answers
                if any(attempt.tier == tier for attempt in answer.attempts)
            }
            everyone: dict[Question, float | None] = {a.question: 1.0 for a in block.answers}
            total = use(tier, block.used[tier], block.duration_s)
            found[tier] |= shared(total, asked or everyone)  # nobody came: idle, for everyone
    return found


def _served_tokens(answer: ServedAnswer, tier: str) -> float | None:
    counts = [_tokens(attempt) for attempt in answer.attempts if attempt.tier == tier]
    known = [count for count in counts if count is not None]
    return math.fsum(known) if known and len(known) == len(counts) else None
