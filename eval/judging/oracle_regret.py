"""How far a cascade is from the oracle, which knows beforehand which tier is right.

Two distances, since a cascade can be worse in two ways: how much more often right the oracle is
where it forwards as many questions to the last tier, and how much cheaper where it is as often
right.
"""

from dataclasses import dataclass

import numpy as np

from eval.judging.intervals import Interval, percentiles, resampled
from eval.recorded.run_outcomes import RunOutcomes
from eval.recorded.splits import question_groups
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class OracleRegret:
    """A cascade beside the oracle; intervals are of 95 %, None where nothing differs.

    Attributes:
        forwarded: Share of the questions that reach the last tier, the oracle's too.
        oracle_accuracy: Of the best choice of so many questions to forward.
        regret: That minus the cascade's accuracy.
        oracle_cost: Least cost of a request at the cascade's accuracy, paying for the answering
            tier alone; None where the tiers, asked by their names, were never as often right.
        extra_cost: The cascade's cost minus that, in the same unit.
    """

    forwarded: float
    oracle_accuracy: float
    regret: float
    regret_interval: Interval | None
    oracle_cost: float | None
    extra_cost: float | None
    extra_cost_interval: Interval | None


def oracle_regret(data: RunOutcomes, *, seed: int) -> OracleRegret:
    """Counts both distances; intervals draw questions anew, whole groups together."""
    last, groups = data.outcomes.last, question_groups(data.outcomes)
    is_right = np.asarray(data.outcomes.is_right, dtype=bool)
    kept_right = np.asarray(is_right[:, :last].any(axis=1), dtype=bool)
    was_forwarded = data.was_asked[:, last]
    cascade_costs = data.cascade_costs.sum(axis=1)

    def best(rows: Ints) -> float:
        n_forwarded = int(was_forwarded[rows].sum())
        return best_accuracy(kept_right[rows], is_right[rows, last], n_forwarded)

    def regret(rows: Ints) -> float:
        return best(rows) - float(data.cascade_right[rows].mean())

    def cheapest(rows: Ints) -> float | None:
        return least_cost(is_right[rows], data.costs[rows], int(data.cascade_right[rows].sum()))

    def extra(rows: Ints) -> float | None:
        least = cheapest(rows)
        return None if least is None else float(cascade_costs[rows].mean()) - least

    everyone = np.arange(len(is_right))
    return OracleRegret(
        forwarded=float(was_forwarded.mean()),
        oracle_accuracy=best(everyone),
        regret=regret(everyone),
        regret_interval=_unless_constant(resampled(regret, groups, seed=seed)),
        oracle_cost=cheapest(everyone),
        extra_cost=extra(everyone),
        extra_cost_interval=_unless_constant(resampled(extra, groups, seed=seed)),
    )


def best_accuracy(kept_right: Bools, last_right: Bools, n_forwarded: int) -> float:
    """Accuracy where exactly `n_forwarded` questions go to the last tier, those that gain most.

    `kept_right` says where some lower tier is right: the oracle takes the answer of that one.
    """
    gain = last_right.astype(np.int64) - kept_right
    gained = np.sort(gain)[::-1][:n_forwarded].sum()
    return float(kept_right.sum() + gained) / len(gain)


def least_cost(is_right: Bools, costs: Floats, n_right: int) -> float | None:
    """Least mean cost of answering `n_right` questions right, each by one tier that is paid for.

    Both arrays are [n_questions, n_tiers]. A question costs its lowest tier, or its lowest tier
    that is right; the questions at which being right costs least more are answered right. None
    where fewer questions have a right answer.
    """
    lowest_right = np.argmax(is_right, axis=1)
    extra = costs[np.arange(len(costs)), lowest_right] - costs[:, 0]
    cheapest = np.sort(extra[is_right.any(axis=1)])[:n_right]
    if len(cheapest) < n_right:
        return None
    return float(costs[:, 0].sum() + cheapest.sum()) / len(costs)


def _unless_constant(drawn: Floats | None) -> Interval | None:
    """An interval of no width would claim more than was seen."""
    if drawn is None or np.ptp(drawn) == 0:
        return None
    return percentiles(drawn)
