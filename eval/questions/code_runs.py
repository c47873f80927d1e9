"""Runs a program that a model wrote, in a process with limits, and says whether it ended well.

This is no jail. The process has no more time, memory, file sizes and processes than it is allowed,
an empty environment and an empty folder; where Linux lets it, no network either. It runs as the
user who started it and can read what that user can: run it inside a container where that matters.
"""

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.units import MIB

_WALL_PER_CPU = 3.0
"""Wall time for each second of CPU time: on a busy machine a right program may wait for a core."""

_IN_CHILD = """
import ctypes, os, resource, sys
cpu_s, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
libc = ctypes.CDLL(None, use_errno=True)
libc.unshare(0x10000000 | 0x40000000)  # CLONE_NEWUSER | CLONE_NEWNET; refused in many containers
for name, limit in (
    ("CPU", cpu_s), ("AS", memory_bytes), ("FSIZE", 1 << 20), ("CORE", 0), ("NOFILE", 64),
    ("NPROC", 64),
):
    which = getattr(resource, "RLIMIT_" + name)
    hard = resource.getrlimit(which)[1]
    least = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(which, (least, least))
source = sys.stdin.buffer.read()
said = source[:source.index(b"\\n")]
out = os.dup(1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
sys.argv[1:] = []
exec(compile(source, "answer", "exec"), {"__name__": "answer"})
os.write(out, said)
"""
"""What the child runs before the program: limits first, so that none of it is outside them.

Only a program that comes to its end lets the child write the mark back, which is the program's
first line, a comment: one that calls `exit()` before its tests are through does not pass.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLimits:
    """What a program may use; `timeout_s` is CPU time, and wall time may be three times that."""

    timeout_s: int = 10
    memory_mib: int = 1024


def ends_well(program: str, limits: RunLimits) -> bool:
    """Whether `program` comes to its end within `limits` and without an exception; waits for it.

    Everything it started is killed then.
    """
    mark = f"# {secrets.token_hex(16)}"
    arguments = [str(limits.timeout_s), str(limits.memory_mib * MIB)]
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(  # noqa: S603 - only what --run-code allowed
            [sys.executable, "-I", "-c", _IN_CHILD, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={},
            start_new_session=True,
        )
        with process:
            try:
                source = f"{mark}\n{program}".encode(errors="replace")
                said, _ = process.communicate(source, timeout=_WALL_PER_CPU * limits.timeout_s)
            except subprocess.TimeoutExpired:
                said = b""
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
    return process.returncode == 0 and said == mark.encode()


def check_programs_run() -> None:
    """Passes where a program that is right is found so; else every answer would be called wrong.

    Raises:
        CannotBeDone: It is not, as on a machine that starts no process with such limits.
    """
    if not ends_well("assert 1 + 1 == 2", RunLimits()):
        raise CannotBeDone(
            "--run-code: a program that is right does not come to its end here under the limits "
            "of docs/calibrate.md"
        )
