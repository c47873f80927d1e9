"""Who used GPUs that replicas share: the SM utilisation of every process, as the driver samples it.

    driver's samples   |pid 7: 60 %|pid 7: 50 %|  …        each a sixth of a second to a second long
                       |pid 9: 20 %|pid 9: 10 %|
    segments           |----------- 0.7 s ----------|      small/0: 110, medium/0: 30

The driver does not say when a sample began, so what came between two readings is spread evenly
over the time between them. Percent of SM time is a share of activity, not of energy: a process that
reads memory draws other watts than one that computes (Kepler splits by the same figure).
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence

from hybridserve_llm.energy.nvml import Nvml
from hybridserve_llm.energy.site import OTHERS
from hybridserve_llm.energy.trace import Segment, Trace
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.interfaces import Clock, EnergyMeter
from hybridserve_llm.values.joules import Activity, Joules, Source

_QUIET_S = 1.5
"""No sample for so long: nobody used the GPUs. The driver's own samples are up to 1 s apart."""


class GpuActivity:
    """Activity of replicas on some GPUs, in percent of SM time summed over samples and GPUs.

    Attributes:
        fault: Why there is none; None while the driver tells it.
    """

    def __init__(
        self,
        uuids: Sequence[str],
        replicas: Sequence[str],
        processes: Callable[[], Mapping[str, Collection[int]]],
        nvml: Nvml,
        *,
        clock: Clock,
    ) -> None:
        """`processes` gives the process ids of every replica, as they are now."""
        self.fault: str | None = None
        self._nvml = nvml
        self._clock = clock
        self._processes = processes
        self._seen_us = dict.fromkeys(uuids, 0)
        self._traces = {name: Trace() for name in (*replicas, OTHERS)}
        self._last_s: float | None = None

    @property
    def known_until_s(self) -> float:
        """Until when it is known; infinite where the driver does not tell, so nobody waits."""
        return math.inf if self.fault is not None else self._traces[OTHERS].known_until_s

    def sample(self) -> None:
        """Takes what the driver sampled since the last time; waits for the driver."""
        try:
            used = self._used_since()
        except MeterFault as exc:
            self.fault, self._last_s = str(exc), None
            return
        now_s = self._clock.monotonic_s()
        if self.fault is not None or self._last_s is None or now_s <= self._last_s:
            self.fault, self._last_s = None, now_s
            self._restart(now_s)
            return
        if not used and now_s - self._last_s < _QUIET_S:
            return
        for name, trace in self._traces.items():
            trace.append(
                Segment(
                    start_s=self._last_s,
                    end_s=now_s,
                    energy_j=used.get(name, 0.0),  # not joules: percent, as the docstring says
                    source=Source.MODEL,
                )
            )
        self._last_s = now_s

    def _restart(self, now_s: float) -> None:
        """Forgets what was before a gap: nothing is known of it."""
        self._traces = {name: Trace() for name in self._traces}

    def _used_since(self) -> dict[str, float]:
        """Percent by replica, in samples newer than those seen; empty where there is none."""
        owner = {pid: name for name, pids in self._processes().items() for pid in pids}
        used: dict[str, float] = {}
        for uuid, seen_us in self._seen_us.items():
            for one in self._nvml.process_activity(uuid, seen_us):
                self._seen_us[uuid] = max(self._seen_us[uuid], one.at_us)
                name = owner.get(one.pid, OTHERS)
                name = name if name in self._traces else OTHERS
                used[name] = used.get(name, 0.0) + one.sm_percent
        return used

    def shares(self, start_s: float, end_s: float) -> Mapping[str, float] | None:
        """What each replica and all others used in a span; None where it is not known.

        It is not known either where only others seem to have used the GPUs: in a container the
        driver may count processes by ids that are not ours.
        """
        found = {
            name: trace.between(start_s, end_s).energy_j for name, trace in self._traces.items()
        }
        known = {name: used for name, used in found.items() if used is not None}
        if len(known) < len(found) or sum(known.values()) <= known[OTHERS]:
            return None
        return known


class WithActivity:
    """A meter that is final once activity is known too, by which its joules are split."""

    def __init__(self, meter: EnergyMeter, activity: GpuActivity) -> None:
        self._meter = meter
        self._activity = activity

    @property
    def known_until_s(self) -> float:
        """Where the slower of both is."""
        return min(self._meter.known_until_s, self._activity.known_until_s)

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """The meter's joules."""
        return self._meter.between(start_s, end_s, activity)
