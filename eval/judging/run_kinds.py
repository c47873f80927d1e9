"""Latencies of a measured run, and the cascade by kinds of questions."""

from dataclasses import dataclass

import numpy as np

from eval.judging.intervals import Interval, share_interval
from eval.judging.score_metrics import auroc
from eval.questions.prompts import Question
from eval.recorded.run_outcomes import PooledRun, RunOutcomes
from hybridserve_llm.calibration.outcomes import Bools, Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds of requests, at the client; median and 95th percentile."""

    name: str
    n: int
    median_s: float
    p95_s: float


FEWEST_TO_RANK = 20
"""Questions of a kind; with fewer, confidence in it has no AUROC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """Questions of one kind.

    `auroc` is, by tier below the last, that of its confidence in its own answers; None where it is
    right at all of them or at none, or where there are fewer than FEWEST_TO_RANK. Empty without a
    certificate.
    """

    name: str
    n: int
    kept: float
    accuracy: float
    accuracy_last: float
    harm: float
    harm_interval: Interval | None
    auroc: dict[str, float | None]


def latencies(tiers: tuple[str, ...], data: RunOutcomes) -> tuple[Latency, ...]:
    """To the last byte: of the last tier alone, the cascade, and its answers by who gave them."""
    return _by_who_answered(tiers, data, data.cascade_latency_s, data.alone_latency_s)


def first_tokens(tiers: tuple[str, ...], data: RunOutcomes) -> tuple[Latency, ...]:
    """The same to the first token; empty where nothing was asked as a stream."""
    return _by_who_answered(tiers, data, data.cascade_ttft_s, data.alone_ttft_s)


def _by_who_answered(
    tiers: tuple[str, ...], data: RunOutcomes, cascade_s: Floats, alone_s: Floats
) -> tuple[Latency, ...]:
    kept = data.answering != len(tiers) - 1
    everyone = np.ones(len(kept), dtype=bool)
    rows: list[tuple[str, Floats, Bools]] = [
        (f"{tiers[-1]} alone", alone_s, everyone),
        ("cascade", cascade_s, everyone),
        (f"cascade, answered below {tiers[-1]}", cascade_s, kept),
        (f"cascade, answered by {tiers[-1]}", cascade_s, ~kept),
    ]
    known = [(name, values[which & ~np.isnan(values)]) for name, values, which in rows]
    return tuple(
        Latency(
            name=name,
            n=len(values),
            median_s=float(np.median(values)),
            p95_s=float(np.quantile(values, 0.95)),
        )
        for name, values in known
        if len(values)
    )


def kinds(
    data: RunOutcomes, run: PooledRun, confidence: Floats | None, *, seed: int
) -> tuple[GroupRow, ...]:
    """By the type of the first tier's answer, and by the length of the prompt in thirds.

    `confidence` is of each tier asked alone, [n_questions, n_tiers]; None where there is none.
    `seed` draws the intervals.
    """
    first = run.tiers[0]
    # Attempts name questions by split and id.
    questions: list[Question] = [*data.outcomes.questions]  # type: ignore[list-item]
    asked = [run.attempts.by_question[question][first] for question in questions]
    types = np.array([attempt.output_type or "unknown" for attempt in asked])
    lengths = np.array(
        [np.nan if one.prompt_tokens is None else float(one.prompt_tokens) for one in asked]
    )
    found: list[tuple[str, Bools]] = [
        (f"answer: {kind}", types == kind) for kind in sorted({*types})
    ]
    if not np.isnan(lengths).any():
        low, high = np.quantile(lengths, [1 / 3, 2 / 3])
        found += [
            (f"prompt: up to {low:g} tokens", lengths <= low),
            (f"prompt: up to {high:g} tokens", (lengths > low) & (lengths <= high)),
            ("prompt: longer", lengths > high),
        ]
    return tuple(_kind(name, which, data, confidence, seed) for name, which in found if which.any())


def _kind(
    name: str, which: Bools, data: RunOutcomes, confidence: Floats | None, seed: int
) -> GroupRow:
    right, last = data.cascade_right[which], data.alone_right[which]
    harmed = ~right & last
    groups = [data.outcomes.groups[i] for i in np.flatnonzero(which)]
    return GroupRow(
        name=name,
        n=len(right),
        kept=float((data.answering[which] != data.outcomes.last).mean()),
        accuracy=float(right.mean()),
        accuracy_last=float(last.mean()),
        harm=float(harmed.mean()),
        harm_interval=share_interval(harmed, groups, seed=seed),
        auroc={} if confidence is None else _aurocs(data, confidence, which),
    )


def _aurocs(data: RunOutcomes, confidence: Floats, which: Bools) -> dict[str, float | None]:
    is_right = np.asarray(data.outcomes.is_right[which], dtype=bool)
    return {
        tier: auroc(confidence[which, i], is_right[:, i])
        if len(is_right) >= FEWEST_TO_RANK
        else None
        for i, tier in enumerate(data.outcomes.tiers[:-1])
    }
