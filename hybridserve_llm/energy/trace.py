"""What a device used over time, as segments without holes between them.

    segments   |--- 7.2 J ---|-- 6.9 J --|~~ unknown ~~|--- 7.0 J ---|
    between         |---------------|                       -> a part of two segments

A segment is spread evenly over its time. Nothing finer is known: an energy counter of NVML moves
about every 100 ms (planner of Zeus and the ML.ENERGY blog say so), so a span that begins inside a
segment is off by at most that segment's energy, which is reported as `edge_j`.
"""

import bisect
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from hybridserve_llm.energy.joules import total, unknown
from hybridserve_llm.values.joules import Flag, Joules, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Joules between two readings, None where they are not known, and `reason` then says why."""

    start_s: float
    end_s: float
    energy_j: float | None
    source: Source
    reason: str | None = None
    flags: frozenset[Flag] = frozenset()


class Trace:
    """The newest segments of one device; written by a sampler's thread, read by another."""

    def __init__(self, *, keep_s: float = 1800.0, resolution_s: float = 0.1) -> None:
        """`keep_s` is how far back it remembers, `resolution_s` how often the device counts."""
        self._keep_s = keep_s
        self._resolution_s = resolution_s
        self._segments: list[Segment] = []
        self._ends_s: list[float] = []
        self._lock = threading.Lock()

    @property
    def known_until_s(self) -> float:
        """The end of the newest segment; minus infinity before the first."""
        with self._lock:
            return self._ends_s[-1] if self._ends_s else -math.inf

    def append(self, segment: Segment) -> None:
        """Adds the next segment; O(1) on average.

        Raises:
            ValueError: It does not begin where the last one ended, or has no length.
        """
        with self._lock:
            if segment.end_s <= segment.start_s:
                raise ValueError(f"segment from {segment.start_s} to {segment.end_s} has no length")
            if self._ends_s and segment.start_s != self._ends_s[-1]:
                raise ValueError(
                    f"segment begins at {segment.start_s}, the last one ended at {self._ends_s[-1]}"
                )
            self._segments.append(segment)
            self._ends_s.append(segment.end_s)
            self._forget_before(segment.end_s - self._keep_s)

    def _forget_before(self, horizon_s: float) -> None:
        n_old = bisect.bisect_right(self._ends_s, horizon_s)
        if n_old > len(self._ends_s) // 2:  # half at a time: so forgetting is cheap on average
            del self._segments[:n_old]
            del self._ends_s[:n_old]

    def between(self, start_s: float, end_s: float) -> Joules:
        """Energy from `start_s` to `end_s`; unknown where any part of it is.

        Raises:
            ValueError: It ends before it starts.
        """
        if end_s < start_s:
            raise ValueError(f"a span from {start_s} to {end_s} ends before it starts")
        with self._lock:
            first = bisect.bisect_right(self._ends_s, start_s)
            last = bisect.bisect_left(self._ends_s, end_s)
            if start_s == end_s:
                last = first
            within = self._segments[first : last + 1]
        if not within or within[0].start_s > start_s or within[-1].end_s < end_s:
            return unknown("the meter has no reading for this time")
        return total(self._clipped(within, start_s, end_s))

    def _clipped(self, within: Sequence[Segment], start_s: float, end_s: float) -> list[Joules]:
        """Every segment's part of the span; the first and last carry the edges' uncertainty."""
        parts = []
        for segment in within:
            if segment.energy_j is None:
                parts.append(unknown(segment.reason or "unknown"))
                continue
            length_s = segment.end_s - segment.start_s
            begin_s, finish_s = max(start_s, segment.start_s), min(end_s, segment.end_s)
            edges = (segment is within[0], start_s), (segment is within[-1], end_s)
            parts.append(
                Joules(
                    energy_j=segment.energy_j * ((finish_s - begin_s) / length_s),
                    source=segment.source,
                    reason=segment.reason,
                    flags=segment.flags,
                    edge_j=sum(self._edge_j(segment, at_s) for is_edge, at_s in edges if is_edge),
                )
            )
        return parts

    def _edge_j(self, segment: Segment, at_s: float) -> float:
        """The most that the energy before `at_s` inside the segment may differ from an even share.

        At a reading itself the counter's own lag of one resolution step remains.
        """
        energy_j = segment.energy_j or 0.0
        length_s = segment.end_s - segment.start_s
        inside = (at_s - segment.start_s) / length_s
        if 0 < inside < 1:
            return energy_j * max(inside, 1 - inside)
        return energy_j * min(1.0, self._resolution_s / length_s)
