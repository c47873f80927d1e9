"""An amount of energy and where it comes from: what every meter gives, and how amounts add up."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Source(StrEnum):
    """The rungs of the ladder, best first; a sum carries the worst of its parts."""

    NVML_ENERGY = "nvml_energy"
    RAPL = "rapl"
    ZEUS = "zeus"
    NVML_POWER = "nvml_power_integrated"
    MODEL = "model"
    UNAVAILABLE = "unavailable"


_RANK = {source: rank for rank, source in enumerate(Source)}


class Flag(StrEnum):
    """What a reader of an amount has to know beside its source."""

    STALLED = "counter_stalled"
    RESET = "counter_reset"
    JUMPED = "counter_jumped"
    WRAPPED = "counter_wrapped"
    INCONSISTENT = "inconsistent"
    """Counter and integrated power differed by more than 10 % in the last comparison."""
    ALLOCATED = "allocated"
    """A shared device was split by a rule, not by measured activity."""
    ESTIMATED = "estimated"
    """The tokens of a request were not known, so its share was estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joules:
    """Energy of a span of time.

    Attributes:
        energy_j: None where it is not known; `reason` then says why.
        edge_j: By how much it may be off because a span begins or ends between two readings.
        grade: What a model rests on (`measured`, `calibrated-2pt`, `fleet-fit`, `datasheet`,
            `user`); None for measured energy.
    """

    energy_j: float | None
    source: Source
    reason: str | None = None
    edge_j: float = 0.0
    grade: str | None = None
    flags: frozenset[Flag] = frozenset()

    @property
    def label(self) -> str:
        """The source as records show it, a model with its grade: `model:datasheet`."""
        return self.source if self.grade is None else f"{self.source}:{self.grade}"


def unknown(reason: str) -> Joules:
    """No joules, and why."""
    return Joules(energy_j=None, source=Source.UNAVAILABLE, reason=reason)


def worst(parts: Iterable[Joules]) -> Joules:
    """The part with the worst source; its joules are its own.

    Raises:
        ValueError: There are no parts.
    """
    return max(parts, key=lambda part: _RANK[part.source])


def total(parts: Iterable[Joules]) -> Joules:
    """The sum, with the worst source of all parts; unknown as soon as one of them is, or none is.

    Edge uncertainties add up, which is their worst case.
    """
    parts = tuple(parts)
    if not parts:
        return unknown("nothing was metered")
    least = worst(parts)
    flags = frozenset[Flag]().union(*(part.flags for part in parts))
    energies = [part.energy_j for part in parts if part.energy_j is not None]
    missing = next((part for part in parts if part.energy_j is None), None)
    if missing is not None:
        return Joules(energy_j=None, source=Source.UNAVAILABLE, reason=missing.reason, flags=flags)
    return Joules(
        energy_j=math.fsum(energies),
        source=least.source,
        reason=least.reason,
        edge_j=math.fsum(part.edge_j for part in parts),
        grade=least.grade,
        flags=flags,
    )
