"""Add up amounts of energy, and stand in for those that are not known."""

import math
from collections.abc import Iterable

from hybridserve_llm.values.joules import Flag, Joules, Source

RANK = {source: rank for rank, source in enumerate(Source)}
"""How far down the ladder a source is: 0 is the best."""


def unknown(reason: str) -> Joules:
    """Return joules that are not known, with the reason."""
    return Joules(energy_j=None, source=Source.UNAVAILABLE, reason=reason)


def worst(parts: Iterable[Joules]) -> Joules:
    """Return the part with the worst source; its joules are its own.

    Raises:
        ValueError: There are no parts.
    """
    return max(parts, key=lambda part: RANK[part.source])


def total(parts: Iterable[Joules]) -> Joules:
    """Return the sum with the worst source of all parts.

    It is unknown as soon as one part is, or without any part. Edge uncertainties add up, which is
    their worst case.
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
