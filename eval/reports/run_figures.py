"""The figures of a report on measured runs: counted here, shown by `run_text.py`."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.judging.accuracy_and_cost import PolicyPoint
from eval.judging.certified_coverage import CertifiedCoverage, certified_coverage, one_of_each
from eval.judging.intervals import Interval, has_groups, paired_interval, share_interval
from eval.judging.oracle_regret import OracleRegret, oracle_regret
from eval.judging.reliability import Reliability, reliability_of
from eval.judging.run_costs import CostFigures, by_tier, cost_figures
from eval.judging.run_kinds import GroupRow, Latency, first_tokens, kinds, latencies
from eval.judging.score_metrics import TARGET_RISKS, Metric, metrics_of
from eval.recorded.measured_run import CASCADE
from eval.recorded.run_outcomes import (
    PooledRun,
    RunOutcomes,
    Unit,
    idle_cpu_rate,
    run_outcomes,
    total_use,
    use_without_idle,
)
from eval.recorded.splits import question_groups
from eval.rivals.other_ways import OtherWay, other_ways
from eval.rivals.policy_path import judged, policy_path
from eval.rivals.policy_replay import ServedPolicy
from eval.rivals.served_records import ServedComparison, compare_served
from hybridserve_llm.calibration.outcomes import Floats

ISO_POINTS = (0.0, 0.01, 0.02)


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
        has_groups: Whether any question is of a group; intervals then draw whole groups.
        regret: Its costs are of `total`.
        first_tokens: Empty where nothing was asked as a stream.
        path: The policy with its thresholds scaled, replayed; empty without a certificate.
        certified_coverage: By tier below the last and TARGET_RISKS; empty without a certificate,
            and where its confidence was fitted on these very questions.
    """

    unit: Unit
    energy_sources: str | None
    tiers: tuple[str, ...]
    n: int
    has_groups: bool
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
    regret: OracleRegret
    path: tuple[PolicyPoint, ...]
    iso: tuple[IsoAccuracy, ...]
    reliabilities: tuple[Reliability, ...]
    metrics: dict[str, tuple[Metric, ...]]
    certified_coverage: dict[str, tuple[CertifiedCoverage, ...]]
    latencies: tuple[Latency, ...]
    first_tokens: tuple[Latency, ...]
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
    harmed, groups = ~right & last_right, outcomes.groups
    n, n_harmed = len(right), int(harmed.sum())
    said = judged(served, outcomes) if served else None
    confidence = said.confidence if said and said.risks else None
    path = policy_path(served, said, outcomes, data.costs) if served and said else ()
    return RunFigures(
        unit=unit,
        energy_sources=run.energy_sources if unit == "J" else None,
        tiers=run.tiers,
        n=n,
        has_groups=has_groups(groups),
        n_left_out=data.n_left_out,
        n_last_differs=data.n_last_differs,
        n_shadowed=sum(block.n_shadowed for _, block in run.of_way(CASCADE)),
        n_blocks=len(run.of_way(CASCADE)),
        accuracy=float(right.mean()),
        accuracy_interval=share_interval(right, groups, seed=seed),
        accuracy_last=float(last_right.mean()),
        accuracy_last_interval=share_interval(last_right, groups, seed=seed),
        difference=float(differences.mean()),
        difference_interval=paired_interval(differences, groups, seed=seed),
        harm=n_harmed / n,
        harm_interval=share_interval(harmed, groups, seed=seed),
        n_harmed=n_harmed,
        certified_share=sum(answer.certified is True for answer in data.served) / n,
        asked=by_tier(run.tiers, data.was_asked.mean(axis=0)),
        answered=by_tier(run.tiers, np.bincount(data.answering, minlength=len(run.tiers)) / n),
        total=cost_figures(run, data, use, seed),
        without_idle=cost_figures(run, less_idle, net, seed),
        idle_rates={t: idle_cpu_rate(t, run.idle) for t in run.tiers} if unit == "CPU-s" else {},
        ways=_ways(data, seed),
        regret=oracle_regret(data, seed=seed),
        path=path,
        iso=_iso(path, data),
        reliabilities=_reliabilities(confidence, data, seed),
        metrics=_metrics(confidence, data, seed),
        certified_coverage=_certified_coverage(confidence, data, run, seed),
        latencies=latencies(run.tiers, data),
        first_tokens=first_tokens(run.tiers, data),
        latency_s={
            "cascade": tuple(map(float, np.sort(data.cascade_latency_s))),
            f"{run.tiers[-1]} alone": tuple(map(float, np.sort(data.alone_latency_s))),
        },
        kinds=kinds(data, run, confidence, seed=seed),
        comparison=None if served is None else compare_served(data.served, served, outcomes),
    )


def _ways(data: RunOutcomes, seed: int) -> tuple[OtherWay, ...]:
    return other_ways(
        data.outcomes,
        data.costs,
        policy_cost=float(data.cascade_costs.sum(axis=1).mean()),
        seed=seed,
        answer_lengths=None,
    )


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


def _reliabilities(
    confidence: Floats | None, data: RunOutcomes, seed: int
) -> tuple[Reliability, ...]:
    if confidence is None:
        return ()
    return tuple(
        reliability_of(
            data.outcomes.tiers[tier],
            confidence[:, tier],
            np.asarray(data.outcomes.is_right[:, tier], dtype=bool),
            seed=seed,
        )
        for tier in range(data.outcomes.last)
    )


def _metrics(
    confidence: Floats | None, data: RunOutcomes, seed: int
) -> dict[str, tuple[Metric, ...]]:
    if confidence is None:
        return {}
    outcomes, groups = data.outcomes, question_groups(data.outcomes)
    return {
        outcomes.tiers[tier]: metrics_of(
            confidence[:, tier],
            np.asarray(outcomes.is_right[:, tier], dtype=bool),
            data.alone_right,
            groups,
            seed=seed,
        )
        for tier in range(outcomes.last)
    }


def _certified_coverage(
    confidence: Floats | None, data: RunOutcomes, run: PooledRun, seed: int
) -> dict[str, tuple[CertifiedCoverage, ...]]:
    has_seen = any(header.is_of_seen_questions for header in run.headers)
    if confidence is None or has_seen:
        return {}
    rows = one_of_each(question_groups(data.outcomes), seed=seed)
    is_right = np.asarray(data.outcomes.is_right[rows], dtype=bool)
    return {
        tier: tuple(
            certified_coverage(confidence[rows, i], is_right[:, i], risk) for risk in TARGET_RISKS
        )
        for i, tier in enumerate(data.outcomes.tiers[:-1])
    }
