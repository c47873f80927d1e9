"""The figures of a report on measured runs: counted here, shown by `run_text.py`."""

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.accuracy_and_cost import PolicyPoint
from eval.baselines import perfect_chain
from eval.intervals import LEVEL, Interval, paired_interval, wilson_interval
from eval.measured_run import ALONE, CASCADE
from eval.other_ways import OtherWay, other_ways
from eval.policy_path import Judged, judged, policy_path
from eval.policy_replay import ServedPolicy
from eval.reliability import Reliability, reliability_of
from eval.run_outcomes import (
    PooledRun,
    RunOutcomes,
    Unit,
    Use,
    idle_cpu_rate,
    run_outcomes,
    total_use,
    use_without_idle,
)
from eval.score_metrics import Metric, metrics_of
from eval.served_records import ServedComparison, compare_served
from eval.splits import question_groups
from hybridserve_llm.calibration.outcomes import Bools, Floats

N_BLOCK_RESAMPLES = 2000
FEWEST_BLOCKS = 10
"""With fewer a ratio has no interval."""
ISO_POINTS = (0.0, 0.01, 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class CostFigures:
    """What a request cost in one way of counting; `ratio` is alone over cascade.

    Attributes:
        ratio_interval: 95 %, bootstrap over blocks, both ways' block of a number drawn together.
        share_of_perfect: Saving against the last tier alone over the perfect chain's on the same
            questions; None where the perfect chain saves nothing.
        wasted: Part of `cascade` for answers that were not taken.
        shadows: Part of `cascade` for answers that the watch had given again, by tokens.
    """

    cascade: float
    alone: float
    perfect_chain: float
    ratio: float
    ratio_interval: Interval | None
    share_of_perfect: float | None
    wasted: float
    shadows: float
    tiers: dict[str, float]
    cascade_by_tier: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds of requests, at the client; median and 95th percentile."""

    name: str
    n: int
    median_s: float
    p95_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRow:
    """Questions of one kind."""

    name: str
    n: int
    kept: float
    accuracy: float
    accuracy_last: float
    harm: float
    harm_interval: Interval | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoAccuracy:
    """The cheapest point of the path that is at most `points_below` below the last tier."""

    points_below: float
    cost: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """Everything that is drawn or printed; shares are of all questions that count.

    Attributes:
        total: All that engines used, waiting included.
        without_idle: The same less what they use when nobody asks.
        idle_rates: CPU-seconds a second of idle engines, by tier; empty where joules are counted.
        path: The policy with its thresholds scaled, replayed; empty without a certificate.
    """

    unit: Unit
    energy_sources: str | None
    tiers: tuple[str, ...]
    n: int
    n_left_out: int
    n_last_differs: int
    n_shadowed: int
    n_blocks: int
    accuracy: float
    accuracy_interval: Interval | None
    accuracy_last: float
    accuracy_last_interval: Interval | None
    difference: float
    difference_interval: Interval | None
    harm: float
    harm_interval: Interval | None
    n_harmed: int
    certified_share: float
    asked: dict[str, float]
    answered: dict[str, float]
    total: CostFigures
    without_idle: CostFigures
    idle_rates: dict[str, float]
    ways: tuple[OtherWay, ...]
    path: tuple[PolicyPoint, ...]
    iso: tuple[IsoAccuracy, ...]
    reliabilities: tuple[Reliability, ...]
    metrics: dict[str, tuple[Metric, ...]]
    latencies: tuple[Latency, ...]
    latency_s: dict[str, tuple[float, ...]]
    kinds: tuple[GroupRow, ...]
    comparison: ServedComparison | None

    def as_json(self) -> dict[str, Any]:
        """Objects, lists, numbers and null only."""
        return asdict(self)


def run_figures(run: PooledRun, served: ServedPolicy | None, *, seed: int) -> RunFigures:
    """Counts everything; `served` is the certificate's policy, None where none was given.

    Raises:
        ConfigError: No question was answered in every way.
        CannotBeDone: Neither joules nor CPU-seconds were measured.
    """
    unit = run.unit
    use, net = total_use(unit), use_without_idle(unit, run.idle)
    data, less_idle = run_outcomes(run, use), run_outcomes(run, net)
    outcomes, right, last_right = data.outcomes, data.cascade_right, data.alone_right
    differences = right.astype(np.float64) - last_right
    n, n_harmed = len(right), int((~right & last_right).sum())
    said = judged(served, outcomes) if served else None
    cascade_cost = float(data.cascade_costs.sum(axis=1).mean())
    path = policy_path(served, said, outcomes, data.costs) if served and said else ()
    ways = other_ways(
        outcomes, data.costs, policy_cost=cascade_cost, seed=seed, answer_lengths=None
    )
    return RunFigures(
        unit=unit,
        energy_sources=run.energy_sources if unit == "J" else None,
        tiers=run.tiers,
        n=n,
        n_left_out=data.n_left_out,
        n_last_differs=data.n_last_differs,
        n_shadowed=sum(block.n_shadowed for _, block in run.of_way(CASCADE)),
        n_blocks=len(run.of_way(CASCADE)),
        accuracy=float(right.mean()),
        accuracy_interval=wilson_interval(int(right.sum()), n),
        accuracy_last=float(last_right.mean()),
        accuracy_last_interval=wilson_interval(int(last_right.sum()), n),
        difference=float(differences.mean()),
        difference_interval=paired_interval(differences, outcomes.groups, seed=seed),
        harm=n_harmed / n,
        harm_interval=wilson_interval(n_harmed, n),
        n_harmed=n_harmed,
        certified_share=sum(answer.certified is True for answer in data.served) / n,
        asked=_by_tier(run.tiers, data.was_asked.mean(axis=0)),
        answered=_by_tier(run.tiers, np.bincount(data.answering, minlength=len(run.tiers)) / n),
        total=_costs(run, data, use, seed),
        without_idle=_costs(run, less_idle, net, seed),
        idle_rates={t: idle_cpu_rate(t, run.idle) for t in run.tiers} if unit == "CPU-s" else {},
        ways=ways,
        path=path,
        iso=_iso(path, data),
        reliabilities=_reliabilities(said, data, seed),
        metrics=_metrics(said, data, seed),
        latencies=tuple(_latencies(run.tiers, data)),
        latency_s={
            "cascade": tuple(map(float, np.sort(data.cascade_latency_s))),
            f"{run.tiers[-1]} alone": tuple(map(float, np.sort(data.alone_latency_s))),
        },
        kinds=_kinds(data, run),
        comparison=None if served is None else compare_served(data.served, served, outcomes),
    )


def _by_tier(tiers: tuple[str, ...], values: Floats) -> dict[str, float]:
    return {name: float(value) for name, value in zip(tiers, values, strict=True)}


def _costs(run: PooledRun, data: RunOutcomes, use: Use, seed: int) -> CostFigures:
    """Means over the questions that count; the ratio's interval is over whole blocks."""
    was_asked = perfect_chain(data.outcomes).was_asked
    perfect = float((was_asked * data.costs).sum(axis=1).mean())
    cascade, alone = float(data.cascade_costs.sum(axis=1).mean()), float(data.costs[:, -1].mean())
    taken = np.arange(len(run.tiers)) == data.answering[:, None]
    return CostFigures(
        cascade=cascade,
        alone=alone,
        perfect_chain=perfect,
        ratio=alone / cascade,
        ratio_interval=_ratio_interval(run, use, seed),
        share_of_perfect=(alone - cascade) / (alone - perfect) if alone > perfect else None,
        wasted=float((data.cascade_costs * (data.was_asked & ~taken)).sum(axis=1).mean()),
        shadows=_shadow_cost(run, use) / sum(len(b.answers) for _, b in run.of_way(CASCADE)),
        tiers=_by_tier(run.tiers, data.costs.mean(axis=0)),
        cascade_by_tier=_by_tier(run.tiers, data.cascade_costs.mean(axis=0)),
    )


def _shadow_cost(run: PooledRun, use: Use) -> float:
    """What shadows cost the last tier, block by block in proportion to tokens."""
    last, total = run.tiers[-1], 0.0
    for _, block in run.of_way(CASCADE):
        attempts = [a for answer in block.answers for a in answer.attempts if a.tier == last]
        own = sum((a.prompt_tokens or 0) + (a.completion_tokens or 0) for a in attempts)
        if block.shadow_tokens:
            share = block.shadow_tokens / (block.shadow_tokens + own)
            total += share * use(last, block.used[last], block.duration_s)
    return total


def _ratio_interval(run: PooledRun, use: Use, seed: int) -> Interval | None:
    """Of alone over cascade, cost a question, from the sums of whole blocks."""
    last = run.tiers[-1]

    def costs(way: str, tiers: tuple[str, ...]) -> dict[tuple[int, int], tuple[float, int]]:
        return {
            (number, block.index): (
                math.fsum(use(tier, block.used[tier], block.duration_s) for tier in tiers),
                len(block.answers),
            )
            for number, block in run.of_way(way)
        }

    ours, theirs = costs(CASCADE, run.tiers), costs(ALONE, (last,))
    both = sorted(ours.keys() & theirs.keys())
    if len(both) < FEWEST_BLOCKS:
        return None
    pairs = np.array([(*ours[key], *theirs[key]) for key in both])
    rng = np.random.default_rng(seed)
    drawn = pairs[rng.integers(0, len(pairs), (N_BLOCK_RESAMPLES, len(pairs)))].sum(axis=1)
    ratios = (drawn[:, 2] / drawn[:, 3]) / (drawn[:, 0] / drawn[:, 1])
    low, high = np.quantile(ratios, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _iso(path: tuple[PolicyPoint, ...], data: RunOutcomes) -> tuple[IsoAccuracy, ...]:
    alone, last = float(data.costs[:, -1].mean()), float(data.alone_right.mean())
    found = []
    for below in ISO_POINTS if path else ():
        costs = [p.mean_cost for p in path if p.accuracy >= last - below - 1e-9]
        cost = min(costs, default=None)
        found.append(
            IsoAccuracy(points_below=below, cost=cost, ratio=alone / cost if cost else None)
        )
    return tuple(found)


def _reliabilities(said: Judged | None, data: RunOutcomes, seed: int) -> tuple[Reliability, ...]:
    if said is None or not said.risks:
        return ()
    return tuple(
        reliability_of(
            data.outcomes.tiers[tier],
            said.confidence[:, tier],
            np.asarray(data.outcomes.is_right[:, tier], dtype=bool),
            seed=seed,
        )
        for tier in range(data.outcomes.last)
    )


def _metrics(said: Judged | None, data: RunOutcomes, seed: int) -> dict[str, tuple[Metric, ...]]:
    if said is None or not said.risks:
        return {}
    outcomes, groups = data.outcomes, question_groups(data.outcomes)
    return {
        outcomes.tiers[tier]: metrics_of(
            said.confidence[:, tier],
            np.asarray(outcomes.is_right[:, tier], dtype=bool),
            data.alone_right,
            groups,
            seed=seed,
        )
        for tier in range(outcomes.last)
    }


def _latencies(tiers: tuple[str, ...], data: RunOutcomes) -> list[Latency]:
    kept = data.answering != len(tiers) - 1
    everyone = np.ones(len(kept), dtype=bool)
    rows: list[tuple[str, Floats, Bools]] = [
        (f"{tiers[-1]} alone", data.alone_latency_s, everyone),
        ("cascade", data.cascade_latency_s, everyone),
        (f"cascade, answered below {tiers[-1]}", data.cascade_latency_s, kept),
        (f"cascade, answered by {tiers[-1]}", data.cascade_latency_s, ~kept),
    ]
    return [
        Latency(
            name=name,
            n=int(which.sum()),
            median_s=float(np.median(values[which])),
            p95_s=float(np.quantile(values[which], 0.95)),
        )
        for name, values, which in rows
        if which.any()
    ]


def _kinds(data: RunOutcomes, run: PooledRun) -> tuple[GroupRow, ...]:
    """By the type of the first tier's answer, and by the length of the prompt in thirds."""
    first = run.tiers[0]
    types = np.array(
        [
            run.attempts.by_question[question][first].output_type or "unknown"  # type: ignore[index]
            for question in data.outcomes.questions
        ]
    )
    lengths = np.array(
        [_prompt_tokens(run, question, first) for question in data.outcomes.questions]
    )
    kinds: list[tuple[str, Bools]] = [
        (f"answer: {kind}", types == kind) for kind in sorted({*types})
    ]
    if not np.isnan(lengths).any():
        low, high = np.quantile(lengths, [1 / 3, 2 / 3])
        kinds += [
            (f"prompt: up to {low:g} tokens", lengths <= low),
            (f"prompt: up to {high:g} tokens", (lengths > low) & (lengths <= high)),
            ("prompt: longer", lengths > high),
        ]
    return tuple(_kind(name, which, data) for name, which in kinds if which.any())


def _prompt_tokens(run: PooledRun, question: Any, tier: str) -> float:
    found = run.attempts.by_question[question][tier].prompt_tokens
    return math.nan if found is None else float(found)


def _kind(name: str, which: Bools, data: RunOutcomes) -> GroupRow:
    right, last = data.cascade_right[which], data.alone_right[which]
    n_harmed = int((~right & last).sum())
    return GroupRow(
        name=name,
        n=len(right),
        kept=float((data.answering[which] != data.outcomes.last).mean()),
        accuracy=float(right.mean()),
        accuracy_last=float(last.mean()),
        harm=n_harmed / len(right),
        harm_interval=wilson_interval(n_harmed, len(right)),
    )
