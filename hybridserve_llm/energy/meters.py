"""Meters: what gives joules for a span of time, and the ladder of them, best first.

GPU    nvml_energy -> nvml_power_integrated      one trace: see `counter.py`
         -> model:<grade>                        where a profile gives a power function
         -> unavailable                          null, with the reasons of all rungs above
CPU    rapl | model:user | unavailable
"""

import math
from collections.abc import Callable, Sequence

from hybridserve_llm.energy.joules import total, unknown
from hybridserve_llm.energy.trace import Trace
from hybridserve_llm.interfaces import EnergyMeter
from hybridserve_llm.values.joules import Activity, Joules, Source

PowerFunction = Callable[[Activity], float]
"""Watts that all devices of a replica draw while it does this."""


class TraceMeter:
    """The sum over the devices of a site, measured."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        """Takes the devices' traces.

        Raises:
            ValueError: There is none.
        """
        if not traces:
            raise ValueError("a meter needs at least one trace")
        self._traces = tuple(traces)

    @property
    def known_until_s(self) -> float:
        """Where the slowest device is."""
        return min(trace.known_until_s for trace in self._traces)

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """The devices' joules; unknown where one of them is."""
        return total(trace.between(start_s, end_s) for trace in self._traces)


class ModelMeter:
    """Joules by a power function, never called measured: the grade says what it rests on."""

    def __init__(self, power_w: PowerFunction, *, grade: str) -> None:
        self._power_w = power_w
        self._grade = grade

    @property
    def known_until_s(self) -> float:
        """A model waits for no reading."""
        return math.inf

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Power times time; no edge is uncertain, the power itself is."""
        energy_j = self._power_w(activity) * (end_s - start_s)
        return Joules(energy_j=energy_j, source=Source.MODEL, grade=self._grade)


class CpuWattsMeter:
    """CPU-seconds of an engine times the watts of a busy core, which only a user can name."""

    def __init__(self, cpu_seconds: Trace, *, watts_per_core: float) -> None:
        self._cpu_seconds = cpu_seconds
        self._watts_per_core = watts_per_core

    @property
    def known_until_s(self) -> float:
        """Until when the engine's processes were read."""
        return self._cpu_seconds.known_until_s

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Watts times CPU-seconds, labelled `model:user`."""
        used = self._cpu_seconds.between(start_s, end_s)
        if used.energy_j is None:
            return used
        return Joules(
            energy_j=used.energy_j * self._watts_per_core,
            source=Source.MODEL,
            grade="user",
            edge_j=used.edge_j * self._watts_per_core,
        )


class AbsentMeter:
    """No joules, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    @property
    def known_until_s(self) -> float:
        """There is nothing to wait for."""
        return math.inf

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Always unknown."""
        return unknown(self.reason)


class Ladder:
    """The first rung that knows the span; below the last one it is unknown, with all reasons.

    A span is of one rung as a whole: a window is at most a second, so little is lost by not mixing.
    """

    def __init__(self, rungs: Sequence[EnergyMeter]) -> None:
        """Takes the rungs, best first.

        Raises:
            ValueError: There is none.
        """
        if not rungs:
            raise ValueError("a ladder needs at least one rung")
        self._rungs = tuple(rungs)

    @property
    def known_until_s(self) -> float:
        """Where the best rung is: a worse one is taken only once the best one has no answer."""
        return self._rungs[0].known_until_s

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """The best rung's joules; a lower rung's say why the ones above had none."""
        reasons: list[str] = []
        for rung in self._rungs:
            told = rung.between(start_s, end_s, activity)
            if told.energy_j is not None:
                why = "; ".join(reasons) or told.reason
                return Joules(
                    energy_j=told.energy_j,
                    source=told.source,
                    reason=why,
                    edge_j=told.edge_j,
                    grade=told.grade,
                    flags=told.flags,
                )
            reasons.append(told.reason or "unknown")
        return unknown("; ".join(reasons))
