"""A study of recorded models over many draws of its questions: means, and how far they vary.

One draw of fit and certify questions is noise: at delta 0.1 one in ten may lose more than epsilon.
Intervals here are of the mean over draws from the one file; that its questions are a sample
themselves is what the intervals of a single draw are about (`records_study.py`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from eval.judging.intervals import Interval, mean_interval
from eval.rivals.records_study import EpsilonFigures, Study, WayFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Values of several draws; `interval` is of the mean, 95 %, and None of fewer than five."""

    mean: float
    interval: Interval | None
    least: float
    most: float


@dataclass(frozen=True, slots=True, kw_only=True)
class WayOverDraws:
    """One way of answering; `certified` is the share of the draws in which a walk certified it.

    A draw without a certificate counts with what is done then: the last tier is asked everything.
    None where the way promises nothing.
    """

    name: str
    accuracy: Spread
    difference: Spread
    energy_j: Spread
    ratio: Spread
    certified: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonOverDraws:
    """All ways at one epsilon; `exceeded` is the share of draws certified and above epsilon.

    The promise holds where `exceeded` is at most delta, but for the chance of so few draws.
    """

    epsilon: float
    exceeded: float
    cascade: WayOverDraws
    rivals: tuple[WayOverDraws, ...]
    equal_energy: WayOverDraws


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """What the draws of all `seeds` come to, one entry an epsilon."""

    seeds: tuple[int, ...]
    rows: tuple[EpsilonOverDraws, ...]


def draws_of_studies(studies: Sequence[Study], seeds: Sequence[int]) -> Draws:
    """The studies of `seeds`, of one file and with the same epsilons, taken together."""
    rows = zip(*(study.rows for study in studies), strict=True)
    return Draws(seeds=tuple(seeds), rows=tuple(_row(drawn) for drawn in rows))


def _row(drawn: Sequence[EpsilonFigures]) -> EpsilonOverDraws:
    epsilon = drawn[0].epsilon
    exceeded = [row.cascade.certified is True and row.loss > epsilon for row in drawn]
    return EpsilonOverDraws(
        epsilon=epsilon,
        exceeded=float(np.mean(exceeded)),
        cascade=_way(drawn, lambda row: row.cascade),
        rivals=tuple(_rival(drawn, i) for i in range(len(drawn[0].rivals))),
        equal_energy=_way(drawn, lambda row: row.equal_energy),
    )


def _rival(drawn: Sequence[EpsilonFigures], index: int) -> WayOverDraws:
    return _way(drawn, lambda row: row.rivals[index])


def _way(
    drawn: Sequence[EpsilonFigures], pick: Callable[[EpsilonFigures], WayFigures]
) -> WayOverDraws:
    ways = [pick(row) for row in drawn]
    is_certified = [way.certified for way in ways]
    return WayOverDraws(
        name=ways[0].name,
        accuracy=_spread([way.accuracy for way in ways]),
        difference=_spread([pick(row).accuracy - row.accuracy_last for row in drawn]),
        energy_j=_spread([way.energy_j for way in ways]),
        ratio=_spread([way.ratio for way in ways]),
        certified=None if None in is_certified else float(np.mean(np.array(is_certified, float))),
    )


def _spread(values: Sequence[float]) -> Spread:
    drawn = np.array(values)
    return Spread(
        mean=float(drawn.mean()),
        interval=mean_interval(drawn),
        least=float(drawn.min()),
        most=float(drawn.max()),
    )
