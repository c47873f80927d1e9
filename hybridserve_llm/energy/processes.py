"""Read who started whom, and the CPU time that processes and the machine used; psutil reads /proc.

Sums over process trees and over time are left to `cpu_time.py` and to `load/process_times.py`.
"""

from collections.abc import Iterable, Mapping

import psutil


def tree_of(pid: int) -> list[psutil.Process]:
    """Return the process and all its descendants, parents before children; empty if it ended.

    Reads the parent of every process of the machine, some 30 us each.
    """
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def cpu_seconds(process: psutil.Process) -> float | None:
    """Return the CPU time that the process used so far, its children not counted; None if it ended.

    Linux counts it in ticks of 10 ms.
    """
    try:
        used = process.cpu_times()
    except psutil.NoSuchProcess:
        return None
    return used.user + used.system


def machine_cpu_seconds() -> float | None:
    """Return the seconds that all cores were busy; None where Linux does not say.

    Idle time and waiting for disks do not count. Guests are part of the user's time (proc_stat(5)).
    """
    try:
        used = psutil.cpu_times()
    except (OSError, ValueError):
        return None
    return used.user + used.nice + used.system + used.irq + used.softirq + used.steal


def engine_trees(
    words: Mapping[str, str], below: Iterable[psutil.Process]
) -> dict[str, list[psutil.Process]]:
    """Return the processes of each engine: one whose command holds its word, and all below it.

    Args:
        words: By engine, a word that no other engine has, such as the path of its socket.
        below: Where to look; parents before their children, as `tree_of` gives them.
    """
    owners: dict[int, str] = {}
    trees: dict[str, list[psutil.Process]] = {name: [] for name in words}
    for process in below:
        try:
            owner = owners.get(process.ppid()) or _named(process.cmdline(), words)
        except psutil.Error:  # it has just ended
            continue
        if owner is not None:
            owners[process.pid] = owner
            trees[owner].append(process)
    return trees


def _named(command: list[str], words: Mapping[str, str]) -> str | None:
    return next((name for name, word in words.items() if word in command), None)
