"""Compute the certificate table: means, intervals and violated promises over the seeds."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from eval.judging.intervals import LEVEL, Interval, paired_interval
from eval.studies.certificate_seeds import CERTIFIED_WAYS, OURS, PLAIN, SeedResult
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Floats

_SEED = 0
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class WayRow:
    """Hold one way under one promise on one file, over all seeds.

    Attributes:
        cost_ratio: Cost of the last tier alone over the mean cost of this way.
        cost_ratio_interval: 95 %, bootstrap over seeds; None for fewer than 20 seeds.
        mean_cost_ratio: Mean over seeds of the ratio of each; never below `cost_ratio`.
        loss: Mean true loss.
        violated: Share of seeds whose true loss is above epsilon.
        violated_interval: 95 %, Clopper-Pearson; None for a way that does not look at the seed.
        unsettled: Share of seeds that gave nothing to serve.
    """

    way: str
    is_certified: bool
    cost_ratio: float
    cost_ratio_interval: Interval | None
    mean_cost_ratio: float
    mean_cost_ratio_interval: Interval | None
    loss: float
    violated: float
    violated_interval: Interval | None
    unsettled: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedComparison:
    """Compare ours with another certified way, seed by seed: mean of log(its cost / our cost).

    Above 0 ours is cheaper. `is_worse` where the whole interval is below 0.
    """

    rival: str
    mean_log_ratio: float
    interval: Interval | None

    @property
    def is_worse(self) -> bool:
        """Return whether ours is significantly dearer."""
        return self.interval is not None and self.interval[1] < 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TableSection:
    """Hold the figures of one file under one promise."""

    file: str
    loss: Loss
    epsilon: float
    delta: float
    n_fit: int
    n_certify: int
    n_seeds: int
    rows: tuple[WayRow, ...]
    comparisons: tuple[SeedComparison, ...]


def sections_of(results: Sequence[SeedResult]) -> list[TableSection]:
    """Return the sections in the order in which their first result comes."""
    by_section: dict[tuple[object, ...], list[SeedResult]] = {}
    for result in results:
        by_section.setdefault(_key(result), []).append(result)
    return [_section(each) for each in by_section.values()]


def repeated_seed(results: Sequence[SeedResult]) -> SeedResult | None:
    """Return a result whose seed was measured before under the same promise; None without one."""
    seen = set()
    for result in results:
        if (*_key(result), result.seed) in seen:
            return result
        seen.add((*_key(result), result.seed))
    return None


def _key(result: SeedResult) -> tuple[object, ...]:
    costs = tuple(result.costs.items())
    sizes = (result.n_fit, result.n_certify)
    return (result.file, result.loss, result.epsilon, result.delta, sizes, costs)


def _section(results: Sequence[SeedResult]) -> TableSection:
    first = results[0]
    return TableSection(
        file=first.file,
        loss=first.loss,
        epsilon=first.epsilon,
        delta=first.delta,
        n_fit=first.n_fit,
        n_certify=first.n_certify,
        n_seeds=len(results),
        rows=tuple(_row(way, results) for way in first.ways),
        comparisons=tuple(_comparison(rival, results) for rival in CERTIFIED_WAYS[1:]),
    )


def _row(way: str, results: Sequence[SeedResult]) -> WayRow:
    found = [result.ways[way] for result in results]
    costs = np.array([each.cost for each in found])
    ratios = results[0].last_cost / costs
    by = 1.0 if results[0].loss == "net" else 0.0
    losses = np.array([each.lost - by * each.rescued for each in found])
    n_violated = int((losses > results[0].epsilon + _ROUNDING).sum())
    depends_on_seed = way in (*CERTIFIED_WAYS, PLAIN)
    cost_interval = _over_seeds(costs) if depends_on_seed else None
    return WayRow(
        way=way,
        is_certified=way in CERTIFIED_WAYS,
        cost_ratio=results[0].last_cost / float(costs.mean()),
        cost_ratio_interval=_inverted(results[0].last_cost, cost_interval),
        mean_cost_ratio=float(ratios.mean()),
        mean_cost_ratio_interval=_over_seeds(ratios) if depends_on_seed else None,
        loss=float(losses.mean()),
        violated=n_violated / len(results),
        violated_interval=clopper_pearson(n_violated, len(results)) if depends_on_seed else None,
        unsettled=sum(not each.is_settled for each in found) / len(results),
    )


def _comparison(rival: str, results: Sequence[SeedResult]) -> SeedComparison:
    logs = np.array([np.log(each.ways[rival].cost / each.ways[OURS].cost) for each in results])
    return SeedComparison(
        rival=rival, mean_log_ratio=float(logs.mean()), interval=_over_seeds(logs)
    )


def clopper_pearson(n_hits: int, n: int) -> Interval:
    """Return the exact 95 % interval of a share."""
    found = stats.binomtest(n_hits, n).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def _over_seeds(values: Floats) -> Interval | None:
    """Return the bootstrap interval of the mean over seeds; None for fewer than 20 of them."""
    return paired_interval(values, (None,) * len(values), seed=_SEED)


def _inverted(last_cost: float, interval: Interval | None) -> Interval | None:
    """Return the interval of `last_cost` over the quantity that `interval` is for."""
    return None if interval is None else (last_cost / interval[1], last_cost / interval[0])
