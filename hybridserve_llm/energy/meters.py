"""Provide meters that give joules for a span of time, and the ladder of them, best first.

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
    """Sum up the measured joules of the devices of a site."""

    def __init__(self, traces: Sequence[Trace]) -> None:
        """Take the devices' traces.

        Raises:
            ValueError: There is none.
        """
        if not traces:
            raise ValueError("a meter needs at least one trace")
        self._traces = tuple(traces)

    @property
    def known_until_s(self) -> float:
        """Return the time up to which the slowest device is known."""
        return min(trace.known_until_s for trace in self._traces)

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Return the devices' joules; unknown where one of them is."""
        return total(trace.between(start_s, end_s) for trace in self._traces)


class ModelMeter:
    """Compute joules by a power function; never called measured: the grade names its basis."""

    def __init__(self, power_w: PowerFunction, *, grade: str) -> None:
        self._power_w = power_w
        self._grade = grade

    @property
    def known_until_s(self) -> float:
        """Return infinity, as a model waits for no reading."""
        return math.inf

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Return power times time; no edge is uncertain, the power itself is."""
        energy_j = self._power_w(activity) * (end_s - start_s)
        return Joules(energy_j=energy_j, source=Source.MODEL, grade=self._grade)


class CpuWattsMeter:
    """Multiply CPU-seconds of an engine by the watts of a busy core, which only a user can name."""

    def __init__(self, cpu_seconds: Trace, *, watts_per_core: float) -> None:
        self._cpu_seconds = cpu_seconds
        self._watts_per_core = watts_per_core

    @property
    def known_until_s(self) -> float:
        """Return until when the engine's processes were read."""
        return self._cpu_seconds.known_until_s

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Return watts times CPU-seconds, labelled `model:user`."""
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
    """Give no joules, but the reason."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    @property
    def known_until_s(self) -> float:
        """Return infinity, as no reading is awaited."""
        return math.inf

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Return unknown joules, always."""
        return unknown(self.reason)


class Ladder:
    """Use the first rung that knows the span; below the last one it is unknown, with all reasons.

    A span is of one rung as a whole: a window is at most a second, so little is lost by not mixing.
    """

    def __init__(self, rungs: Sequence[EnergyMeter]) -> None:
        """Take the rungs, best first.

        Raises:
            ValueError: There is none.
        """
        if not rungs:
            raise ValueError("a ladder needs at least one rung")
        self._rungs = tuple(rungs)

    @property
    def known_until_s(self) -> float:
        """Return the time of the best rung.

        A worse one is taken only once the best one has no answer.
        """
        return self._rungs[0].known_until_s

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Return the best rung's joules; a lower rung's say why the ones above had none."""
        reasons: list[str] = []
        for rung in self._rungs:
            found = rung.between(start_s, end_s, activity)
            if found.energy_j is not None:
                why = "; ".join(reasons) or found.reason
                return Joules(
                    energy_j=found.energy_j,
                    source=found.source,
                    reason=why,
                    edge_j=found.edge_j,
                    grade=found.grade,
                    flags=found.flags,
                )
            reasons.append(found.reason or "unknown")
        return unknown("; ".join(reasons))
