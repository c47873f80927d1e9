"""Take a study of recorded models over many draws of its questions: means and their spread.

One draw of fit and certify questions is noise: at delta 0.1 one in ten may lose more than epsilon.
Intervals here are of the mean over draws from the one file; that its questions are a sample
themselves is what the intervals of a single draw are about (`records_study.py`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from eval.judging.ways import Way, spread_of
from eval.rivals.records_study import EpsilonFigures, Study


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonOverDraws:
    """Hold all ways at one epsilon; `exceeded` is the share of draws certified and above epsilon.

    The promise holds where `exceeded` is at most delta, but for the chance of so few draws.
    """

    epsilon: float
    exceeded: float
    cascade: Way
    rivals: tuple[Way, ...]
    equal_energy: Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Hold the figures of the draws of all `seeds`, one entry an epsilon."""

    seeds: tuple[int, ...]
    rows: tuple[EpsilonOverDraws, ...]

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        rows = [
            {
                "epsilon": row.epsilon,
                "exceeded": row.exceeded,
                "cascade": row.cascade.spread_json(),
                "rivals": [way.spread_json() for way in row.rivals],
                "equal_energy": row.equal_energy.spread_json(),
            }
            for row in self.rows
        ]
        return {"seeds": self.seeds, "rows": rows}


def draws_of_studies(studies: Sequence[Study], seeds: Sequence[int]) -> Draws:
    """Return the studies of `seeds`, of one file and with the same epsilons, taken together."""
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


def _rival(drawn: Sequence[EpsilonFigures], index: int) -> Way:
    return _way(drawn, lambda row: row.rivals[index])


def _way(drawn: Sequence[EpsilonFigures], pick: Callable[[EpsilonFigures], Way]) -> Way:
    """Return a way's means over the draws, with their spread.

    A draw without a certificate counts with what is done then: the last tier is asked everything.
    """
    ways = [pick(row) for row in drawn]
    is_certified = [way.certified for way in ways]
    spread = {
        "accuracy": spread_of([way.accuracy for way in ways]),
        "difference": spread_of([pick(row).accuracy - row.accuracy_last for row in drawn]),
        "energy_j": spread_of([way.cost for way in ways]),
        "ratio": spread_of([way.ratio or math.inf for way in ways]),
    }
    return Way(
        name=ways[0].name,
        accuracy=spread["accuracy"].mean,
        cost=spread["energy_j"].mean,
        ratio=spread["ratio"].mean,
        certified=None if None in is_certified else float(np.mean(np.array(is_certified, float))),
        spread=spread,
    )
