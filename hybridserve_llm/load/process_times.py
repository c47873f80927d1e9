"""Read the CPU-seconds of an engine's processes and of all else on the machine."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

import psutil

from hybridserve_llm.energy.processes import cpu_seconds, machine_cpu_seconds, tree_of
from hybridserve_llm.errors import CannotBeDone


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuTime:
    """Hold the seconds of CPU used so far; a process that ended takes its own along.

    Attributes:
        engine_s: By all processes of the engine; None where its processes are not known.
        others_s: By all else on the machine; None then too, and where Linux does not say.
    """

    engine_s: float | None = None
    others_s: float | None = None


def cpu_time_of_children() -> CpuTime:
    """Return the time of all that this process started: the engine and its guard.

    This process itself is in neither part.
    """
    return _cpu_time(tree_of(os.getpid())[1:], apart_s=time.process_time())


def cpu_time_of_tree(pid: int) -> CpuTime:
    """Return the time of the process `pid` and all below it; this process is one of the others.

    Raises:
        CannotBeDone: There is no such process.
    """
    tree = tree_of(pid)
    if not tree:
        raise CannotBeDone(f"there is no process {pid}: --pid names the engine's first process")
    return _cpu_time(tree)


def _cpu_time(engine: Iterable[psutil.Process], apart_s: float = 0.0) -> CpuTime:
    engine_s = sum(cpu_seconds(process) or 0.0 for process in engine)
    machine_s = machine_cpu_seconds()
    others_s = None if machine_s is None else machine_s - engine_s - apart_s
    return CpuTime(engine_s=engine_s, others_s=others_s)
