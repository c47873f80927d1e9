"""Describe a way of answering questions by its accuracy and its cost, in one shape for all."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from eval.judging.intervals import Interval, mean_interval
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.policies import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawSpread:
    """Hold the spread of a figure over several draws.

    `interval` is of the mean, 95 %, and None of fewer than five draws.
    """

    mean: float
    interval: Interval | None
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """Hold what a way of answering comes to on a set of questions; means over several draws.

    Attributes:
        accuracy_interval: 95 %; None of an expectation, and where it was not computed.
        cost: Mean of a request, every tier asked included, in the unit that costs were given in.
        ratio: Cost of the last tier alone over the own one; None where the own one is 0.
        lost: Share of all questions where this is wrong and the last tier is right.
        rescued: Share of all questions where this is right and the last tier is wrong. Both are
            NaN where they were not counted.
        chain: Tiers that may be asked, cheapest first; empty where nobody named them.
        asked: Share of the questions that each tier is asked, by name.
        is_fitted: Whether thresholds were fitted on one half of the questions for the other half.
        certified: Whether a walk certified it, over draws the share in which one did; None where
            the way promises nothing.
        spread: Of figures over draws, by name; empty of a single draw.
    """

    name: str
    accuracy: float
    accuracy_interval: Interval | None = None
    cost: float
    ratio: float | None = None
    lost: float = math.nan
    rescued: float = math.nan
    chain: tuple[str, ...] = ()
    asked: dict[str, float] = field(default_factory=dict)
    is_fitted: bool = False
    certified: bool | float | None = None
    spread: dict[str, DrawSpread] = field(default_factory=dict)

    def loss(self, loss: Loss, *, shrinkage: float = 1.0) -> float:
        """Return the loss that a promise of this kind bounds; rescues count by `shrinkage`."""
        return self.lost - shrinkage * self.rescued if loss == "net" else self.lost

    def named(self, name: str) -> "Way":
        """Return the same figures under another name."""
        return replace(self, name=name)

    def as_json(self, *names: str, cost_name: str = "cost") -> dict[str, Any]:
        """Return the fields `names` and the cost, which has the key `cost_name`."""
        return {**{name: getattr(self, name) for name in names}, cost_name: self.cost}

    def spread_json(self) -> dict[str, Any]:
        """Return name, certified share and the spread of every figure."""
        spread = {name: asdict(figure) for name, figure in self.spread.items()}
        return {"name": self.name, "certified": self.certified, **spread}


def count_way(name: str, done: Replay, outcomes: Outcomes, costs: Floats | None = None) -> Way:
    """Return the figures of what was done on `outcomes`, without an interval.

    `costs` are of each tier at each question, [n_questions, n_tiers]; None for the tiers' means.
    """
    if costs is None:
        of_each, last = done.costs(outcomes), float(outcomes.costs[outcomes.last])
    else:
        of_each, last = (done.was_asked * costs).sum(axis=1), float(costs[:, outcomes.last].mean())
    cost = float(of_each.mean())
    is_right, last_is_right = done.is_right(outcomes), outcomes.is_right[:, outcomes.last]
    return Way(
        name=name,
        accuracy=float(is_right.mean()),
        cost=cost,
        ratio=last / cost if cost else None,
        lost=float((~is_right & last_is_right).mean()),
        rescued=float((is_right & ~last_is_right).mean()),
        asked=by_tier_name(outcomes.tiers, done.was_asked.mean(axis=0)),
    )


def spread_of(values: list[float]) -> DrawSpread:
    """Return the spread of the values of several draws."""
    drawn = np.array(values)
    return DrawSpread(
        mean=float(drawn.mean()),
        interval=mean_interval(drawn),
        least=float(drawn.min()),
        most=float(drawn.max()),
    )


def by_tier_name(tiers: tuple[str, ...], values: Floats) -> dict[str, float]:
    """Return the values, [n_tiers], under the tiers' names."""
    return dict(zip(tiers, map(float, values), strict=True))
