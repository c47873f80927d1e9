"""Programs that a model might write: which come to their end, and what none of them can do."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from eval.questions.code_runs import RunLimits, check_programs_run, ends_well

LIMITS = RunLimits(timeout_s=2, memory_mib=256)
NONE_WILL_DO = """
import resource
spare = resource.getrlimit(resource.RLIMIT_{name})
assert spare[0] == spare[1] == {limit}, spare
"""


@pytest.mark.parametrize(
    "program",
    [
        "x = 1",
        "print('y' * 100_000)",  # what it prints goes nowhere
        "import sys\nassert len(sys.argv) == 1",
        "import os\nassert not os.environ.keys() - {'LC_CTYPE'}",
        "import os\nassert os.listdir() == []",
        "from __future__ import annotations\nimport math, collections\nassert math.pi > 3",
        "if __name__ == '__main__':\n    raise SystemExit(1)",
        NONE_WILL_DO.format(name="CPU", limit=2),
        NONE_WILL_DO.format(name="AS", limit=256 * 2**20),
    ],
)
def test_a_program_that_comes_to_its_end(program: str) -> None:
    assert ends_well(program, LIMITS)


@pytest.mark.parametrize(
    "program",
    [
        "assert 1 == 2",
        "x = ",
        "exit()",  # before its tests are through
        "import os\nos._exit(0)",
        "raise KeyboardInterrupt",
        "while True: pass",
        "x = 'y' * 2**30",
        "open('big', 'wb').write(b'x' * 2**21)",
        "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)",
        "\x00",
        "\ud800",
        "input()",
        "def f(): f()\nf()",
    ],
)
def test_a_program_that_does_not(program: str) -> None:
    assert not ends_well(program, LIMITS)


def is_running(pid: int) -> bool:
    try:
        return "zombie" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_one_that_waits_for_ever_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    program = f"""
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
open({str(told)!r}, "w").write(str(child.pid))
time.sleep(60)
"""
    assert not ends_well(program, RunLimits(timeout_s=1, memory_mib=256))
    pid = int(told.read_text())
    for _ in range(500):  # a signal is sent at once and acts soon
        if not is_running(pid):
            return
        time.sleep(0.01)
    pytest.fail(f"process {pid} outlived its program by 5 s")


def test_it_reaches_no_network_where_linux_lets_it_be_taken_away() -> None:
    unshare = "import ctypes, sys; sys.exit(ctypes.CDLL(None).unshare(0x50000000))"
    if subprocess.run([sys.executable, "-c", unshare], check=False).returncode:
        pytest.skip("this machine allows no namespaces")
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = f"import socket\nsocket.create_connection({server.getsockname()!r}, 1)"
        assert not ends_well(program, LIMITS)
        assert ends_well(program.replace("connection(", "connection if 0 else print("), LIMITS)


def test_nothing_is_left_in_the_folder_it_was_started_from() -> None:
    before = os.listdir()
    assert ends_well("open('left.txt', 'w').write('x')", LIMITS)
    assert os.listdir() == before


def test_this_machine_can_run_programs() -> None:
    check_programs_run()
