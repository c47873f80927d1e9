"""How amounts of energy add up, and what stands where there is none."""

import math
from collections.abc import Iterable

from hybridserve_llm.values.joules import Flag, Joules, Source

RANK = {source: rank for rank, source in enumerate(Source)}
"""How far down the ladder a source is: 0 is the best."""


def unknown(reason: str) -> Joules:
    """No joules, and why."""
    return Joules(energy_j=None, source=Source.UNAVAILABLE, reason=reason)


def worst(parts: Iterable[Joules]) -> Joules:
    """The part with the worst source; its joules are its own.

    Raises:
        ValueError: There are no parts.
    """
    return max(parts, key=lambda part: RANK[part.source])


def total(parts: Iterable[Joules]) -> Joules:
    """The sum, with the worst source of all parts; unknown as soon as one of them is, or none is.

    Edge uncertainties add up, which is their worst case.
    """
    parts = tuple(parts)
    if not parts:
        return unknown("nothing was metered")
    if len(parts) == 1:
        return parts[0]
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
