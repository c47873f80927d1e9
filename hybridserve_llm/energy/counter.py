"""Turns the readings of an energy counter into a trace, and does without the counter where it lies.

A segment begins and ends where the counter moved, since it moves only about every 100 ms:

    readings    r0    r1    r2    r3    r4
    counter     10    10    17    17    24        joules
    segments    |---- 7 ----|---- 7 ----|

What can go wrong, and what the segment is made of then (always flagged, never silent):

    it stands still for longer than `stall_s`     integrated power, until it moves again
    it goes back: wrapped around                  the difference modulo its range
    it goes back: reset (driver reloaded)         integrated power
    it jumps further than the device can draw     integrated power
    no counter                                    integrated power
    no power either                               unknown, with the reason
"""

import math
from dataclasses import dataclass

from hybridserve_llm.energy.cross_check import CrossCheck
from hybridserve_llm.energy.trace import Segment, Trace
from hybridserve_llm.values.joules import Flag, Source

_PLAUSIBLE_POWER = 1.5
"""A counter may show more than the power limit for a moment; GPUs overshoot for milliseconds."""
_LAG_S = 0.2
"""Two ticks of the counter: the first and the last of a span may each come one too many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a device said at one moment; None where it did not say, and `fault` then says why."""

    at_s: float
    counter_j: float | None = None
    power_w: float | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterSettings:
    """What is known of a device's counter.

    Attributes:
        source: What its joules are called.
        power_source: What they are called where power was integrated.
        max_power_w: What the device can draw; a counter that moved faster is not believed.
        wraps_at_j: The ranges after which its counter may begin anew.
        stall_s: How long the counter may stand still. Even an idle device draws watts.
        longest_gap_s: Power is integrated over no longer gap between two readings than this.
    """

    source: Source
    max_power_w: float
    power_source: Source = Source.NVML_POWER
    wraps_at_j: tuple[float, ...] = ()
    stall_s: float = 2.0
    longest_gap_s: float = 1.0


class CounterTrace:
    """Follows one counter; `trace` is what it says the device used."""

    def __init__(self, settings: CounterSettings, trace: Trace) -> None:
        self.trace = trace
        self.check = CrossCheck()
        self._settings = settings
        self._pending: list[Reading] = []
        """Readings since the counter last moved, that one included; no segment covers them yet."""
        self._is_stalled = False

    def add(self, reading: Reading) -> None:
        """Takes the next reading; one that is not later than the last is left out."""
        if not self._pending:
            self._pending = [reading]
            return
        if reading.at_s <= self._pending[-1].at_s:
            return
        self._pending.append(reading)
        start = self._pending[0]
        if start.counter_j is None or reading.counter_j is None:
            self._is_stalled = False
            self._close_by_power()
            return
        moved_j = reading.counter_j - start.counter_j
        if moved_j == 0:
            is_long = reading.at_s - start.at_s > self._settings.stall_s
            if self._is_stalled or is_long:
                self._is_stalled = True
                self._close_by_power(Flag.STALLED)
        elif self._is_stalled:
            # What it catches up with was booked by power already; it is believed again from here.
            self._is_stalled = False
            self._close_by_power(Flag.STALLED)
        elif moved_j > 0:
            self._close_by_counter(moved_j)
        else:
            self._close_after_going_back(moved_j)

    def _close_by_counter(self, moved_j: float, *flags: Flag) -> None:
        if not self._is_plausible(moved_j):
            self._close_by_power(Flag.JUMPED)
            return
        duration_s = self._pending[-1].at_s - self._pending[0].at_s
        self.check.add(duration_s, counter_j=moved_j, integrated_j=self._integrated_j())
        if self.check.is_inconsistent:
            flags = (*flags, Flag.INCONSISTENT)
        self._close(moved_j, self._settings.source, None, *flags)

    def _close_after_going_back(self, moved_j: float) -> None:
        for range_j in self._settings.wraps_at_j:
            if moved_j + range_j > 0 and self._is_plausible(moved_j + range_j):
                self._close_by_counter(moved_j + range_j, Flag.WRAPPED)
                return
        self._close_by_power(Flag.RESET)

    def _is_plausible(self, moved_j: float) -> bool:
        duration_s = self._pending[-1].at_s - self._pending[0].at_s
        return moved_j <= self._settings.max_power_w * (_PLAUSIBLE_POWER * duration_s + _LAG_S)

    def _close_by_power(self, *flags: Flag) -> None:
        """Closes what is pending by integrated power, or as unknown."""
        integrated_j = self._integrated_j()
        why = self._why_not_the_counter(*flags)
        if integrated_j is not None:
            self._close(integrated_j, self._settings.power_source, why, *flags)
            return
        is_told = all(reading.power_w is not None for reading in self._pending)
        gap = f"power readings more than {self._settings.longest_gap_s:g} s apart"
        lack = gap if is_told else "no power reading"
        self._close(None, Source.UNAVAILABLE, f"{why}, and {lack}", *flags)

    def _why_not_the_counter(self, *flags: Flag) -> str:
        for flag, why in _WHY.items():
            if flag in flags:
                return why
        return next((one.fault for one in reversed(self._pending) if one.fault), "no counter")

    def _integrated_j(self) -> float | None:
        """Trapezoidal rule over what is pending; None where a reading lacks or came too late."""
        parts = []
        for before, after in zip(self._pending, self._pending[1:], strict=False):
            if before.power_w is None or after.power_w is None:
                return None
            step_s = after.at_s - before.at_s
            if step_s > self._settings.longest_gap_s:
                return None
            parts.append(step_s * (before.power_w + after.power_w) / 2)
        return math.fsum(parts)

    def _close(
        self, energy_j: float | None, source: Source, reason: str | None, *flags: Flag
    ) -> None:
        last = self._pending[-1]
        segment = Segment(
            start_s=self._pending[0].at_s,
            end_s=last.at_s,
            energy_j=energy_j,
            source=source,
            reason=reason,
            flags=frozenset(flags),
        )
        self._pending = [last]
        self.trace.append(segment)


_WHY = {
    Flag.STALLED: "the energy counter stands still",
    Flag.RESET: "the energy counter was reset",
    Flag.JUMPED: "the energy counter jumped",
}
