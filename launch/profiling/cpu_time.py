"""CPU-seconds of an engine's processes and of the whole machine, from Linux's /proc."""

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

from launch.engines.guard import descendants

_USER, _SYSTEM = 11, 12
"""Places of utime and stime in /proc/PID/stat after the name in parentheses (proc(5))."""
_IDLE, _IO_WAIT, _STEAL = 3, 4, 7
"""Places in the first line of /proc/stat; what comes after is part of the fields before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """Seconds of CPU used so far.

    Attributes:
        engine_s: By all processes that this one started, which are the engine and its guard.
        others_s: By all else on the machine, without this process; None where Linux does not say.
    """

    engine_s: float
    others_s: float | None


def cpu_time() -> CpuTime:
    """The seconds used up to now; a process that ended takes its own along."""
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    engine_s = sum(_ticks_of(pid) for pid in descendants(os.getpid())) * tick_s
    busy_ticks = _machine_ticks()
    others_s = None
    if busy_ticks is not None:
        others_s = busy_ticks * tick_s - engine_s - time.process_time()
    return CpuTime(engine_s=engine_s, others_s=others_s)


def _ticks_of(pid: int) -> int:
    with contextlib.suppress(OSError):  # it has just ended
        fields = Path("/proc", str(pid), "stat").read_bytes().rpartition(b")")[2].split()
        return int(fields[_USER]) + int(fields[_SYSTEM])
    return 0


def _machine_ticks() -> int | None:
    try:
        words = Path("/proc/stat").read_text(encoding="ascii").splitlines()[0].split()[1:]
    except (OSError, IndexError):
        return None
    ticks = [int(word) for word in words[: _STEAL + 1]]
    busy = sum(ticks) - sum(ticks[place] for place in (_IDLE, _IO_WAIT) if place < len(ticks))
    return busy or None
