"""CPU-seconds of process trees: the meter over scripted processes, the readers over real ones."""

import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from hybridserve_llm.energy.cpu_time import CpuTimeMeter
from hybridserve_llm.energy.meters import CpuWattsMeter
from hybridserve_llm.energy.processes import (
    cpu_seconds,
    engine_trees,
    machine_cpu_seconds,
    tree_of,
)
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.joules import Activity

QUIET = Activity(running=0)


class FakeProcess(psutil.Process):
    """A process as psutil gives it; `has_ended` makes every question fail."""

    def __init__(self, pid: int, *, user: float = 0.0, parent: int = 1, command: str = "") -> None:
        self._pid, self._parent, self._command = pid, parent, command
        self.user, self.system, self.has_ended = user, 0.0, False

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def _asked(self) -> None:
        if self.has_ended:
            raise psutil.NoSuchProcess(self._pid)

    def cpu_times(self) -> Any:
        self._asked()
        return SimpleNamespace(user=self.user, system=self.system)

    def ppid(self) -> int:
        self._asked()
        return self._parent

    def cmdline(self) -> list[str]:
        self._asked()
        return self._command.split()


def test_a_tree_holds_all_descendants_and_nobody_else() -> None:
    shell = subprocess.Popen(["sh", "-c", "sleep 60 & sh -c 'sleep 60; true' & echo; wait"],
                             stdout=subprocess.PIPE, start_new_session=True)  # fmt: skip
    try:
        assert shell.stdout is not None
        shell.stdout.readline()
        names: list[str] = []
        end_s = time.monotonic() + 30
        # A process that a shell has just forked is called "sh" until it becomes another program.
        while names != ["sh", "sh", "sleep", "sleep"] and time.monotonic() < end_s:
            tree = tree_of(shell.pid)
            names = sorted(one.name() for one in tree)
        assert names == ["sh", "sh", "sleep", "sleep"]
        assert tree[0].pid == shell.pid
        parents = {one.pid: one.ppid() for one in tree}
        assert set(parents.values()) <= {os.getpid(), *parents}
        # Parents come before their children.
        places = [one.pid for one in tree]
        assert all(places.index(one.ppid()) < places.index(one.pid) for one in tree[1:])
        assert {one.pid for one in tree} <= {one.pid for one in tree_of(os.getpid())}
    finally:
        os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
        shell.stdout.close()
    assert tree_of(shell.pid) == []
    assert cpu_seconds(tree[0]) is None


def test_the_whole_tree_is_counted_and_its_restart_does_not_count_back() -> None:
    clock, root, worker = FakeClock(), FakeProcess(10, user=1.0), FakeProcess(11, user=5.0)
    trees = {"small/0": [root, worker]}
    meter = CpuTimeMeter(["small/0"], lambda: trees, clock=clock, machine_s=lambda: None)
    meter.sample()
    assert meter.processes == {"small/0": {10, 11}}
    root.user, root.system = 1.1, 0.1  # 0.2 s
    worker.user = 5.3  # 0.3 s
    clock.advance(1)
    meter.sample()
    trace = meter.traces["small/0"]
    assert trace.between(1000, 1001).energy_j == pytest.approx(0.5)
    root.has_ended = worker.has_ended = True
    clock.advance(1)
    meter.sample()
    assert trace.between(1001, 1002).energy_j is None
    assert trace.between(1001, 1002).reason == "the engine's processes ended"
    trees["small/0"] = [FakeProcess(30, user=0.4)]
    clock.advance(1)
    meter.sample()
    assert trace.between(1002, 1003).energy_j == pytest.approx(0.4)
    assert meter.used_s == {"small/0": pytest.approx(0.9)}
    assert meter.node.between(1000, 1003).reason == "the machine's CPU time cannot be read"


def test_another_process_that_took_over_an_id_does_not_count_back() -> None:
    clock, process = FakeClock(), FakeProcess(10, user=7.0)
    meter = CpuTimeMeter(["small/0"], lambda: {"small/0": [process]}, clock=clock)
    meter.sample()
    process.user = 0.2
    clock.advance(1)
    meter.sample()
    assert meter.used_s == {"small/0": 0}


def test_an_engine_is_found_by_a_word_of_its_command_line() -> None:
    ended = FakeProcess(14, parent=10)
    ended.has_ended = True
    guard = FakeProcess(12, parent=10, command="guard --uds /run/a.sock")
    engine = FakeProcess(11, parent=12, command="python --uds /run/a.sock")
    worker = FakeProcess(15, parent=11, command="worker")
    other = FakeProcess(13, parent=10, command="python --uds /run/a.sock.old")
    words = {"small/0": "/run/a.sock", "large/0": "/run/b.sock"}
    found = engine_trees(words, [guard, other, ended, engine, worker])
    assert found == {"small/0": [guard, engine, worker], "large/0": []}


def test_the_machines_cpu_time_is_all_that_is_not_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psutil, "PROCFS_PATH", str(tmp_path))
    clock = FakeClock()
    meter = CpuTimeMeter([], dict, clock=clock)
    # user nice system idle iowait irq softirq steal guest guest_nice
    (tmp_path / "stat").write_text("cpu  100 0 50 9000 10 1 1 1 30 0\ncpu0 0 0 0 0 0 0 0 0 0 0\n")
    meter.sample()
    (tmp_path / "stat").write_text("cpu  180 10 60 9900 99 1 1 1 90 0\n")
    clock.advance(1)
    meter.sample()
    seconds = 100 / os.sysconf("SC_CLK_TCK")  # 80 + 10 + 10 ticks
    assert meter.node.between(1000, 1001).energy_j == pytest.approx(seconds)
    (tmp_path / "stat").unlink()
    assert machine_cpu_seconds() is None


def test_joules_need_the_users_watts_and_are_graded_as_theirs() -> None:
    clock, process = FakeClock(), FakeProcess(10)
    meter = CpuTimeMeter(["small/0"], lambda: {"small/0": [process]}, clock=clock)
    meter.sample()
    process.user = 1.5
    clock.advance(1)
    meter.sample()
    joules = CpuWattsMeter(meter.traces["small/0"], watts_per_core=8.0)
    told = joules.between(1000, 1001, QUIET)
    assert (told.energy_j, told.label) == (12.0, "model:user")  # 1.5 CPU-seconds of 8 W
    assert joules.known_until_s == 1001
    assert joules.between(1001, 1002, QUIET).energy_j is None


def test_all_processes_are_looked_up_seldom_once_every_engine_has_some() -> None:
    clock, n_asked, trees = FakeClock(), [0], dict[str, list[psutil.Process]]()

    def find() -> Mapping[str, list[psutil.Process]]:
        n_asked[0] += 1
        return trees

    meter = CpuTimeMeter(["small/0"], find, clock=clock)

    def sample_for(seconds: int) -> int:
        before = n_asked[0]
        for _ in range(seconds):
            clock.advance(1)
            meter.sample()
        return n_asked[0] - before

    assert sample_for(15) == 4  # it has not started: after 1, 3, 7 and 15 s
    process = FakeProcess(10, user=0.05)
    trees["small/0"] = [process]
    assert sample_for(10) == 1
    assert sample_for(20) == 2
    process.has_ended = True
    assert sample_for(2) == 1  # it ended: it may be started again any moment


def test_cpu_time_is_read_no_more_often_than_asked() -> None:
    clock, process = FakeClock(), FakeProcess(10)
    trees = {"small/0": [process]}
    meter = CpuTimeMeter(["small/0"], lambda: trees, clock=clock, period_s=0.95)
    meter.sample()
    process.user = 0.5
    for _ in range(9):
        clock.advance(0.1)
        meter.sample()
    assert meter.used_s == {"small/0": 0}
    clock.advance(0.1)
    meter.sample()
    assert meter.used_s == {"small/0": 0.5}


def test_processes_of_this_machine_are_read() -> None:
    clock = FakeClock()
    meter = CpuTimeMeter(["me"], lambda: {"me": tree_of(os.getpid())}, clock=clock)
    meter.sample()
    for _ in range(3):
        sum(range(1_000_000))
        clock.advance(1)
        meter.sample()
    used_s = meter.traces["me"].between(1000, 1003).energy_j
    assert used_s is not None
    assert used_s >= 0
