"""Count the figures of a report on measured runs; `run_report.py` shows them."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.judging.accuracy_and_cost import PolicyPoint
from eval.judging.certified_coverage import CertifiedCoverage, certified_coverage, one_of_each
from eval.judging.intervals import Interval, has_groups, paired_interval, share_interval
from eval.judging.oracle_regret import OracleRegret, oracle_regret
from eval.judging.reliability import Reliability, reliability_of
from eval.judging.run_costs import CostFigures, cost_figures
from eval.judging.run_kinds import GroupRow, Latency, first_tokens, kinds, latencies
from eval.judging.score_metrics import TARGET_RISKS, Metric, metrics_of
from eval.judging.ways import Way, by_tier_name
from eval.recorded.measured_run import CASCADE
from eval.recorded.run_outcomes import (
    PooledRun,
    RunOutcomes,
    Unit,
    idle_cpu_rate,
    priced,
    run_outcomes,
    total_use,
    use_without_idle,
)
from eval.recorded.splits import question_groups
from eval.rivals.other_ways import other_ways, ways_json
from eval.rivals.policy_path import judged, policy_path
from eval.rivals.policy_replay import ServedPolicy
from eval.rivals.served_records import ServedComparison, compare_served
from hybridserve_llm.calibration.outcomes import Bools, Floats

ISO_POINTS = (0.0, 0.01, 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCounts:
    """Hold what was counted of the runs themselves.

    Attributes:
        n: Questions that count.
        has_groups: Whether any question is of a group; intervals then draw whole groups.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAccuracy:
    """Hold the cascade's answers compared with the last tier's; shares are of all questions."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class RunCosts:
    """Hold the use of all engines.

    Attributes:
        total: All that engines used, waiting included.
        without_idle: The same less what they use when nobody asks.
        idle_rates: CPU-seconds a second of idle engines, by tier; empty where joules are counted.
    """

    total: CostFigures
    without_idle: CostFigures
    idle_rates: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class IsoAccuracy:
    """Hold the cheapest point of the path at most `points_below` below the last tier."""

    points_below: float
    cost: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfidence:
    """Hold how far the tiers' confidence can be believed; empty without a certificate.

    Attributes:
        certified_coverage: By tier below the last and TARGET_RISKS; empty also where confidence
            was fitted on these very questions.
    """

    reliabilities: tuple[Reliability, ...]
    metrics: dict[str, tuple[Metric, ...]]
    certified_coverage: dict[str, tuple[CertifiedCoverage, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """Hold seconds at the client; `first_tokens` is empty where nothing was asked as a stream."""

    latencies: tuple[Latency, ...]
    first_tokens: tuple[Latency, ...]
    latency_s: dict[str, tuple[float, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFigures:
    """Hold everything that is drawn or printed.

    Attributes:
        ways: Each tier alone, then the other ways.
        regret: Its costs are of `costs.total`.
        path: The policy with its thresholds scaled, replayed; empty without a certificate.
    """

    counts: RunCounts
    answers: RunAccuracy
    costs: RunCosts
    ways: tuple[Way, ...]
    regret: OracleRegret
    path: tuple[PolicyPoint, ...]
    iso: tuple[IsoAccuracy, ...]
    confidence: RunConfidence
    times: RunTimes
    kinds: tuple[GroupRow, ...]
    comparison: ServedComparison | None

    @property
    def unit(self) -> Unit:
        """Return what costs are counted in."""
        return self.counts.unit

    @property
    def tiers(self) -> tuple[str, ...]:
        """Return the tiers' names, the last one last."""
        return self.counts.tiers

    @property
    def last(self) -> str:
        """Return the name of the last tier."""
        return self.counts.tiers[-1]

    @property
    def share_kept(self) -> float:
        """Return the share of questions that never reached the last tier."""
        return 1 - self.answers.asked[self.last]

    @property
    def cascade(self) -> Way:
        """Return the cascade as measured, to compare with other ways."""
        return Way(
            name="the cascade, measured",
            accuracy=self.answers.accuracy,
            accuracy_interval=self.answers.accuracy_interval,
            cost=self.costs.total.cascade,
            ratio=self.costs.total.ratio,
        )

    def as_json(self) -> dict[str, Any]:
        """Return objects, lists, numbers and null only."""
        found = asdict(self)
        for group in ("counts", "answers", "costs", "confidence", "times"):
            found |= found.pop(group)
        return found | {"ways": ways_json(self.ways)}


def run_figures(run: PooledRun, served: ServedPolicy | None, *, seed: int) -> RunFigures:
    """Count everything; `served` is the certificate's policy, None where none was given.

    Raises:
        ConfigError: No question was answered in every way.
        CannotBeDone: Neither joules nor CPU-seconds were measured.
    """
    use, net = total_use(run.unit), use_without_idle(run.unit, run.idle)
    data = run_outcomes(run, use)
    less_idle = priced(data, run, net)
    said = judged(served, data.outcomes) if served else None
    confidence = said.confidence if said and said.risks else None
    path = policy_path(served, said, data.outcomes, data.costs) if served and said else ()
    is_cpu = run.unit == "CPU-s"
    return RunFigures(
        counts=_counts(run, data),
        answers=_answers(data, seed),
        costs=RunCosts(
            total=cost_figures(run, data, use, seed),
            without_idle=cost_figures(run, less_idle, net, seed),
            idle_rates={t: idle_cpu_rate(t, run.idle) for t in run.tiers} if is_cpu else {},
        ),
        ways=_ways(data, seed),
        regret=oracle_regret(data, seed=seed),
        path=path,
        iso=_iso(path, data),
        confidence=_confidence(confidence, data, run, seed),
        times=_times(run, data),
        kinds=kinds(data, run, confidence, seed=seed),
        comparison=None if served is None else compare_served(data.served, served, data.outcomes),
    )


def _counts(run: PooledRun, data: RunOutcomes) -> RunCounts:
    blocks = run.of_way(CASCADE)
    return RunCounts(
        unit=run.unit,
        energy_sources=run.energy_sources if run.unit == "J" else None,
        tiers=run.tiers,
        n=len(data.cascade_right),
        has_groups=has_groups(data.outcomes.groups),
        n_left_out=data.n_left_out,
        n_last_differs=data.n_last_differs,
        n_shadowed=sum(block.n_shadowed for _, block in blocks),
        n_blocks=len(blocks),
    )


def _answers(data: RunOutcomes, seed: int) -> RunAccuracy:
    right, last_right = data.cascade_right, data.alone_right
    groups, tiers, n = data.outcomes.groups, data.outcomes.tiers, len(data.cascade_right)
    differences, harmed = right.astype(np.float64) - last_right, ~right & last_right

    def interval(values: Bools) -> Interval | None:
        return share_interval(values, groups, seed=seed)

    return RunAccuracy(
        accuracy=float(right.mean()),
        accuracy_interval=interval(right),
        accuracy_last=float(last_right.mean()),
        accuracy_last_interval=interval(last_right),
        difference=float(differences.mean()),
        difference_interval=paired_interval(differences, groups, seed=seed),
        harm=float(harmed.mean()),
        harm_interval=interval(harmed),
        n_harmed=int(harmed.sum()),
        certified_share=sum(answer.certified is True for answer in data.served) / n,
        asked=by_tier_name(tiers, data.was_asked.mean(axis=0)),
        answered=by_tier_name(tiers, np.bincount(data.answering, minlength=len(tiers)) / n),
    )


def _ways(data: RunOutcomes, seed: int) -> tuple[Way, ...]:
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
        ratio = alone / cost if cost else None
        found.append(IsoAccuracy(points_below=below, cost=cost, ratio=ratio))
    return tuple(found)


def _confidence(
    confidence: Floats | None, data: RunOutcomes, run: PooledRun, seed: int
) -> RunConfidence:
    if confidence is None:
        return RunConfidence(reliabilities=(), metrics={}, certified_coverage={})
    outcomes, groups = data.outcomes, question_groups(data.outcomes)
    is_right = np.asarray(outcomes.is_right, dtype=bool)
    lower = list(enumerate(outcomes.tiers[:-1]))
    rows = one_of_each(groups, seed=seed)
    has_seen = any(header.is_of_seen_questions for header in run.headers)
    return RunConfidence(
        reliabilities=tuple(
            reliability_of(name, confidence[:, i], is_right[:, i], seed=seed) for i, name in lower
        ),
        metrics={
            name: metrics_of(confidence[:, i], is_right[:, i], data.alone_right, groups, seed=seed)
            for i, name in lower
        },
        certified_coverage={
            name: tuple(
                certified_coverage(confidence[rows, i], is_right[rows, i], risk)
                for risk in TARGET_RISKS
            )
            for i, name in ([] if has_seen else lower)
        },
    )


def _times(run: PooledRun, data: RunOutcomes) -> RunTimes:
    return RunTimes(
        latencies=latencies(run.tiers, data),
        first_tokens=first_tokens(run.tiers, data),
        latency_s={
            "cascade": tuple(map(float, np.sort(data.cascade_latency_s))),
            f"{run.tiers[-1]} alone": tuple(map(float, np.sort(data.alone_latency_s))),
        },
    )
