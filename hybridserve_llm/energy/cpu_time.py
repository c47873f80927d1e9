"""Measure the CPU-seconds of whole process trees, where no energy counter exists.

    engine ── worker 0        pid 100: 12.3 s
          └─ worker 1        pid 101: 11.9 s      -> 24.2 CPU-seconds

CPU-seconds become joules only where somebody says how many watts a busy core draws.
"""

import math
from collections.abc import Callable, Collection, Iterable, Mapping

import psutil

from hybridserve_llm.energy.processes import cpu_seconds, machine_cpu_seconds
from hybridserve_llm.energy.trace import Segment, Trace
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.values.joules import Source

_LOOK_UP_S = 1.0
_LOOK_UP_AGAIN_S = 10.0
"""Once every engine has processes: new ones of theirs are rare, and looking reads all of /proc."""
FindTrees = Callable[[], Mapping[str, Collection[psutil.Process]]]
"""Finds the processes of each engine that has some."""


class CpuTimeMeter:
    """Meter the CPU-seconds of named process trees; amounts of its traces are seconds.

    Looking up the processes reads all of the machine's, so it is done every `_LOOK_UP_AGAIN_S`
    only. While an engine has none, it is done sooner, first after `_LOOK_UP_S` and then at longer
    and longer intervals. The time of a process found late is counted whole. A process that ends
    between two samples takes with it what it used since the last one, at most one sampling period
    per core.
    """

    def __init__(
        self,
        names: Iterable[str],
        find_trees: FindTrees,
        *,
        clock: Clock,
        machine_s: Callable[[], float | None] = machine_cpu_seconds,
        period_s: float = 0.0,
    ) -> None:
        """Meter the named engines; `find_trees` is called again and again, as engines restart.

        `machine_s` gives the CPU time that the whole machine used. A sample sooner than `period_s`
        after the last one is left out.
        """
        self.traces = {name: Trace() for name in names}
        self.used_s = dict.fromkeys(self.traces, 0.0)
        """CPU-seconds of each engine since the first sample."""
        self.node = Trace()
        """CPU-seconds of the whole machine."""
        self._find_trees = find_trees
        self._clock = clock
        self._machine_s = machine_s
        self._period_s = period_s
        self._trees: dict[str, Collection[psutil.Process]] = {}
        self._looked_up_s = -math.inf
        self._look_up_after_s = _LOOK_UP_S
        self._seconds: dict[str, dict[psutil.Process, float]] = {}
        self._node_s: float | None = None
        self._last_s: float | None = None

    @property
    def processes(self) -> Mapping[str, set[int]]:
        """Return the process ids of each engine, as they were last looked up."""
        return {name: {process.pid for process in tree} for name, tree in self._trees.items()}

    def sample(self) -> None:
        """Read the processes once; never in the event loop."""
        now_s = self._clock.monotonic_s()
        if self._last_s is not None and now_s - self._last_s <= self._period_s:
            return
        if now_s - self._looked_up_s >= self._look_up_after_s:
            self._look_up(now_s)
        for name, tree in self._trees.items():
            times = {process: cpu_seconds(process) for process in tree}
            seconds = {process: used for process, used in times.items() if used is not None}
            if self._last_s is not None:
                self._close(name, seconds, self._last_s, now_s)
            self._seconds[name] = seconds
        self._sample_node(now_s)
        self._last_s = now_s

    def _sample_node(self, now_s: float) -> None:
        machine_s = self._machine_s()
        if self._last_s is not None:
            is_known = machine_s is not None and self._node_s is not None
            used_s = max(0.0, (machine_s or 0.0) - (self._node_s or 0.0))
            self.node.append(
                Segment(
                    start_s=self._last_s,
                    end_s=now_s,
                    energy_j=used_s if is_known else None,
                    source=Source.MODEL,
                    reason=None if is_known else "the machine's CPU time cannot be read",
                )
            )
        self._node_s = machine_s

    def _look_up(self, now_s: float) -> None:
        found = self._find_trees()
        self._trees = {name: found.get(name, ()) for name in self.traces}
        self._looked_up_s = now_s
        after_s = _LOOK_UP_AGAIN_S if all(self._trees.values()) else 2 * self._look_up_after_s
        self._look_up_after_s = min(after_s, _LOOK_UP_AGAIN_S)

    def _close(
        self, name: str, seconds: Mapping[psutil.Process, float], start_s: float, end_s: float
    ) -> None:
        before = self._seconds[name]
        # A process that did not exist before is new, and so is all of its time. One that shows less
        # than before is another process by now, which took over the id since the last look-up.
        used_s = sum(max(now - before.get(one, 0.0), 0.0) for one, now in seconds.items())
        has_ended = bool(before) and not seconds
        if has_ended:
            self._look_up_after_s = _LOOK_UP_S  # it is started again before long
        self.used_s[name] += used_s
        self.traces[name].append(
            Segment(
                start_s=start_s,
                end_s=end_s,
                energy_j=None if has_ended else used_s,
                source=Source.MODEL,
                reason="the engine's processes ended" if has_ended else None,
            )
        )
