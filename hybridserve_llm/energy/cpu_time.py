"""CPU-seconds of whole process trees: what is measured where no energy counter is.

    engine ── worker 0        pid 100: 12.3 s
          └─ worker 1        pid 101: 11.9 s      -> 24.2 CPU-seconds

CPU-seconds become joules only where somebody says how many watts a busy core draws.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from hybridserve_llm.energy.trace import Segment, Trace
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.values.joules import Source

PROC = Path("/proc")
_LOOK_UP_S = 1.0
_LOOK_UP_AGAIN_S = 10.0
"""Once every engine has processes: new ones of theirs are rare, and looking reads all of /proc."""
FindRoots = Callable[[Mapping[int, int]], Mapping[str, int]]
"""From every process's parent to the first process of each engine that has one."""
_PARENT, _USER_TICKS, _SYSTEM_TICKS = 1, 11, 12
"""Places in /proc/PID/stat after the command's name (proc_pid_stat(5): fields 4, 14 and 15)."""


def process_time(pid: int, proc: Path = PROC) -> tuple[int, int] | None:
    """The parent's id and the CPU time in clock ticks of one process; None when it has ended."""
    try:
        stat = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    # The command may hold spaces and parentheses itself, so the last one ends it.
    fields = stat.rpartition(")")[2].split()
    return int(fields[_PARENT]), int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])


def parents_of_all(proc: Path = PROC) -> dict[int, int]:
    """For every process of the machine its parent's id; some 30 us a process."""
    pids = [int(folder.name) for folder in proc.iterdir() if folder.name.isdigit()]
    return {pid: found[0] for pid in pids if (found := process_time(pid, proc)) is not None}


def node_ticks(proc: Path = PROC) -> int | None:
    """Clock ticks that all cores were busy (proc_stat(5): all but idle, iowait and guests)."""
    try:
        fields = (proc / "stat").read_text(encoding="ascii").split("\n", 1)[0].split()
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[1:9])
    return user + nice + system + irq + softirq + steal


def engine_roots(
    words: Mapping[str, str], parents: Mapping[int, int], *, under: int, proc: Path = PROC
) -> dict[str, int]:
    """The first process below `under` whose command line holds an engine's word, for each.

    The word is one that no other engine has, such as the path of its socket. Below each engine are
    its workers, so the first process on the way down is the one whose tree is all of it.
    """
    found: dict[str, int] = {}
    for pid in sorted(tree_of((under,), parents) - {under}):
        try:
            command = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        for name, word in words.items():
            is_above = name not in found or found[name] in tree_of((pid,), parents)
            if word.encode() in command and is_above:
                found[name] = pid
    return found


def tree_of(roots: Iterable[int], parents: Mapping[int, int]) -> set[int]:
    """`roots` and all their descendants, as far as they are in `parents` (child to parent)."""
    wanted = {root for root in roots if root in parents}
    children: dict[int, list[int]] = {}
    for child, parent in parents.items():
        children.setdefault(parent, []).append(child)
    waiting = list(wanted)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            if child not in wanted:
                wanted.add(child)
                waiting.append(child)
    return wanted


class CpuTimeMeter:
    """CPU-seconds of named process trees, each a trace whose amounts are seconds, not joules.

    Looking which processes there are reads all of the machine's, so it is done every
    `_LOOK_UP_AGAIN_S` only; sooner while an engine has none, first after `_LOOK_UP_S` and then at
    longer and longer intervals. The time of one found late is counted whole. A process that ends
    between two samples takes with it what it used since the last one, at most one sampling period
    per core.
    """

    def __init__(
        self,
        names: Iterable[str],
        find_roots: FindRoots,
        *,
        clock: Clock,
        proc: Path = PROC,
        ticks_per_s: int | None = None,
        period_s: float = 0.0,
    ) -> None:
        """`names` are the engines'; `find_roots` is asked again and again, as engines restart.

        A sample sooner than `period_s` after the last one is left out.
        """
        self.traces = {name: Trace() for name in names}
        self.used_s = dict.fromkeys(self.traces, 0.0)
        """CPU-seconds of each engine since the first sample."""
        self.node = Trace()
        """CPU-seconds of the whole machine."""
        self._find_roots = find_roots
        self._clock = clock
        self._period_s = period_s
        self._proc = proc
        self._ticks_per_s = ticks_per_s or os.sysconf("SC_CLK_TCK")
        self._trees: dict[str, set[int]] = {}
        self._looked_up_s = -math.inf
        self._look_up_after_s = _LOOK_UP_S
        self._ticks: dict[str, dict[int, int]] = {}
        self._node_ticks: int | None = None
        self._last_s: float | None = None

    @property
    def processes(self) -> Mapping[str, set[int]]:
        """The process ids of each engine, as they were last looked up."""
        return self._trees

    def sample(self) -> None:
        """Reads the processes once; never in the event loop."""
        now_s = self._clock.monotonic_s()
        if self._last_s is not None and now_s - self._last_s <= self._period_s:
            return
        if now_s - self._looked_up_s >= self._look_up_after_s:
            self._look_up(now_s)
        for name, tree in self._trees.items():
            times = {pid: process_time(pid, self._proc) for pid in tree}
            ticks = {pid: time[1] for pid, time in times.items() if time is not None}
            if self._last_s is not None:
                self._close(name, ticks, self._last_s, now_s)
            self._ticks[name] = ticks
        self._sample_node(now_s)
        self._last_s = now_s

    def _sample_node(self, now_s: float) -> None:
        ticks = node_ticks(self._proc)
        if self._last_s is not None:
            is_known = ticks is not None and self._node_ticks is not None
            used = max(0, (ticks or 0) - (self._node_ticks or 0))
            self.node.append(
                Segment(
                    start_s=self._last_s,
                    end_s=now_s,
                    energy_j=used / self._ticks_per_s if is_known else None,
                    source=Source.MODEL,
                    reason=None if is_known else "the machine's CPU time cannot be read",
                )
            )
        self._node_ticks = ticks

    def _look_up(self, now_s: float) -> None:
        parents = parents_of_all(self._proc)
        roots = self._find_roots(parents)
        self._trees = {
            name: tree_of((roots[name],) if name in roots else (), parents) for name in self.traces
        }
        self._looked_up_s = now_s
        after_s = _LOOK_UP_AGAIN_S if all(self._trees.values()) else 2 * self._look_up_after_s
        self._look_up_after_s = min(after_s, _LOOK_UP_AGAIN_S)

    def _close(self, name: str, ticks: Mapping[int, int], start_s: float, end_s: float) -> None:
        before = self._ticks[name]
        # A process that was not there is new, and all of its time with it. An id that shows less
        # than before is another process by now.
        used = sum(max(now - before.get(pid, 0), 0) for pid, now in ticks.items())
        has_ended = bool(before) and not ticks
        if has_ended:
            self._look_up_after_s = _LOOK_UP_S  # it is started again before long
        self.used_s[name] += used / self._ticks_per_s
        self.traces[name].append(
            Segment(
                start_s=start_s,
                end_s=end_s,
                energy_j=None if has_ended else used / self._ticks_per_s,
                source=Source.MODEL,
                reason="the engine's processes ended" if has_ended else None,
            )
        )
