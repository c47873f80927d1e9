"""CPU-seconds of process trees, read from a folder like /proc."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from hybridserve_llm.energy.cpu_time import CpuTimeMeter, engine_roots, parents_of_all, tree_of
from hybridserve_llm.energy.meters import CpuWattsMeter
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.joules import Activity

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
    meter = CpuTimeMeter(
        ["small/0"],
        lambda _: {"small/0": root[0]},
        clock=clock,
        proc=tmp_path,
        ticks_per_s=100,
    )
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
    assert meter.used_s == {"small/0": pytest.approx(0.9)}
    assert meter.node.between(1000, 1003).reason == "the machine's CPU time cannot be read"


def test_an_engine_is_found_by_a_word_of_its_command_line(tmp_path: Path) -> None:
    commands = {
        10: ["python", "hs-launch"],
        11: ["guard", "--uds", "/run/a.sock"],
        12: ["python", "--uds", "/run/a.sock"],
        13: ["python", "--uds", "/run/a.sock.old"],
        20: ["python", "--uds", "/run/a.sock"],  # another launcher's
    }
    for pid, command in commands.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_text("\0".join([*command, ""]))
    parents = {10: 1, 11: 12, 12: 10, 13: 10, 14: 10, 20: 1}  # 14 ended meanwhile
    words = {"small/0": "/run/a.sock", "large/0": "/run/b.sock"}
    assert engine_roots(words, parents, under=10, proc=tmp_path) == {"small/0": 12}


def test_the_machines_cpu_time_is_all_that_is_not_idle(tmp_path: Path) -> None:
    clock = FakeClock()
    meter = CpuTimeMeter([], lambda _: {}, clock=clock, proc=tmp_path, ticks_per_s=100)
    # user nice system idle iowait irq softirq steal guest guest_nice
    (tmp_path / "stat").write_text("cpu  100 0 50 9000 10 1 1 1 30 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    meter.sample()
    (tmp_path / "stat").write_text("cpu  180 10 60 9900 99 1 1 1 90 0\n")
    clock.advance(1)
    meter.sample()
    assert meter.node.between(1000, 1001).energy_j == pytest.approx(1.0)  # 80 + 10 + 10 ticks


def test_joules_need_the_users_watts_and_are_graded_as_theirs(tmp_path: Path) -> None:
    clock = FakeClock()
    process(tmp_path, 10, 1, user=0)
    meter = CpuTimeMeter(
        ["small/0"], lambda _: {"small/0": 10}, clock=clock, proc=tmp_path, ticks_per_s=100
    )
    meter.sample()
    process(tmp_path, 10, 1, user=150)
    clock.advance(1)
    meter.sample()
    joules = CpuWattsMeter(meter.traces["small/0"], watts_per_core=8.0)
    told = joules.between(1000, 1001, QUIET)
    assert (told.energy_j, told.label) == (12.0, "model:user")  # 1.5 CPU-seconds of 8 W
    assert joules.known_until_s == 1001
    assert joules.between(1001, 1002, QUIET).energy_j is None


def test_all_processes_are_looked_up_seldom_once_every_engine_has_some(tmp_path: Path) -> None:
    clock, n_asked, roots = FakeClock(), [0], dict[str, int]()

    def find(_: Mapping[int, int]) -> Mapping[str, int]:
        n_asked[0] += 1
        return roots

    meter = CpuTimeMeter(["small/0"], find, clock=clock, proc=tmp_path, ticks_per_s=100)

    def sample_for(seconds: int) -> int:
        before = n_asked[0]
        for _ in range(seconds):
            clock.advance(1)
            meter.sample()
        return n_asked[0] - before

    assert sample_for(15) == 4  # it has not started: after 1, 3, 7 and 15 s
    process(tmp_path, 10, 1, user=5)
    roots["small/0"] = 10
    assert sample_for(10) == 1
    assert sample_for(20) == 2
    end(tmp_path, 10)
    assert sample_for(2) == 1  # it ended: it may be started again any moment


def test_cpu_time_is_read_no_more_often_than_asked(tmp_path: Path) -> None:
    clock = FakeClock()
    process(tmp_path, 10, 1, user=0)
    meter = CpuTimeMeter(
        ["small/0"],
        lambda _: {"small/0": 10},
        clock=clock,
        proc=tmp_path,
        ticks_per_s=100,
        period_s=0.95,
    )
    meter.sample()
    process(tmp_path, 10, 1, user=50)
    for _ in range(9):
        clock.advance(0.1)
        meter.sample()
    assert meter.used_s == {"small/0": 0}
    clock.advance(0.1)
    meter.sample()
    assert meter.used_s == {"small/0": 0.5}


def test_processes_of_this_machine_are_read() -> None:
    clock = FakeClock()
    meter = CpuTimeMeter(["me"], lambda _: {"me": os.getpid()}, clock=clock)
    meter.sample()
    for _ in range(3):
        sum(range(1_000_000))
        clock.advance(1)
        meter.sample()
    used_s = meter.traces["me"].between(1000, 1003).energy_j
    assert used_s is not None
    assert used_s >= 0
