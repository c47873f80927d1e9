"""CPU-seconds of process trees, read from a folder like /proc."""

import os
from pathlib import Path

import pytest

from hybridserve_llm.energy.cpu_time import CpuTimeMeter, parents_of_all, tree_of
from hybridserve_llm.energy.meters import Activity, CpuWattsMeter
from hybridserve_llm.testing import FakeClock

QUIET = Activity(running=0)


def process(proc: Path, pid: int, parent: int, *, user: int, system: int = 0) -> None:
    """proc_pid_stat(5): pid (comm) state ppid pgrp … utime is field 14, stime field 15."""
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    between = "1 1 0 -1 4194304 100 0 0 0"  # fields 5 to 13
    (proc / str(pid) / "stat").write_text(
        f"{pid} (a (odd) name) S {parent} {between} {user} {system} 0 0 20 0 1 0\n"
    )


def end(proc: Path, pid: int) -> None:
    (proc / str(pid) / "stat").unlink()
    (proc / str(pid)).rmdir()


def test_a_tree_holds_all_descendants_and_nobody_else() -> None:
    parents = {10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    assert tree_of([10], parents) == {10, 11, 12}
    assert tree_of([99], parents) == set()
    assert tree_of([10, 21], parents) == {10, 11, 12, 21}


def test_names_with_spaces_and_parentheses_are_read(tmp_path: Path) -> None:
    process(tmp_path, 10, 7, user=1)
    assert parents_of_all(tmp_path) == {10: 7}


def test_the_whole_tree_is_counted_and_its_restart_does_not_count_back(tmp_path: Path) -> None:
    clock, root = FakeClock(), [10]
    process(tmp_path, 10, 1, user=100)
    process(tmp_path, 11, 10, user=500)
    process(tmp_path, 20, 1, user=9000)  # not of this engine
    meter = CpuTimeMeter({"small/0": lambda: root[0]}, clock=clock, proc=tmp_path, ticks_per_s=100)
    meter.sample()
    process(tmp_path, 10, 1, user=110, system=10)  # 20 ticks
    process(tmp_path, 11, 10, user=530)  # 30 ticks
    clock.advance(1)
    meter.sample()
    trace = meter.traces["small/0"]
    assert trace.between(1000, 1001).energy_j == pytest.approx(0.5)
    end(tmp_path, 10)
    end(tmp_path, 11)
    clock.advance(1)
    meter.sample()
    assert trace.between(1001, 1002).energy_j is None
    assert trace.between(1001, 1002).reason == "the engine's processes ended"
    root[0] = 30
    process(tmp_path, 30, 1, user=40)
    clock.advance(1)
    meter.sample()
    assert trace.between(1002, 1003).energy_j == pytest.approx(0.4)


def test_joules_need_the_users_watts_and_are_graded_as_theirs(tmp_path: Path) -> None:
    clock = FakeClock()
    process(tmp_path, 10, 1, user=0)
    meter = CpuTimeMeter({"small/0": lambda: 10}, clock=clock, proc=tmp_path, ticks_per_s=100)
    meter.sample()
    process(tmp_path, 10, 1, user=150)
    clock.advance(1)
    meter.sample()
    joules = CpuWattsMeter(meter.traces["small/0"], watts_per_core=8.0)
    told = joules.between(1000, 1001, QUIET)
    assert (told.energy_j, told.label) == (12.0, "model:user")  # 1.5 CPU-seconds of 8 W
    assert joules.known_until_s == 1001
    assert joules.between(1001, 1002, QUIET).energy_j is None


def test_processes_of_this_machine_are_read() -> None:
    clock = FakeClock()
    meter = CpuTimeMeter({"me": os.getpid}, clock=clock)
    meter.sample()
    for _ in range(3):
        sum(range(1_000_000))
        clock.advance(1)
        meter.sample()
    used_s = meter.traces["me"].between(1000, 1003).energy_j
    assert used_s is not None
    assert used_s >= 0
