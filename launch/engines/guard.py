"""Hold one engine and end it with everything it spawned, even when the launcher is killed.

Run as a program by `process.py`, as a file of its own, so it needs the standard library alone:

    launcher ──pipe──► guard (subreaper) ──► engine ──► its children, their children, …

The launcher holds the pipe's other end and writes nothing. The pipe closes when the launcher ends,
however it ends. Then, or when SIGTERM comes, the guard sends SIGTERM to the engine, which lets vLLM
shut its children down in order. What is left when the time is up is killed. SIGQUIT kills at once
(a second SIGTERM would not do: two that come together are delivered as one). As a subreaper the
guard inherits every orphan below it, so no process leaves its sight by changing its session or
losing its parent. The guard also holds what the launcher passes it open: the run folder's lock, so
that no other launch takes the folder before the last engine has ended. Linux only.
"""

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.05
_ORPHANED_STOP_TIMEOUT_S = 5.0
"""Most seconds that an engine has once its launcher is gone: nobody waits for its answers, and
with `_ORPHAN_GRACE_S` nothing is left 10 s after the launcher's end."""
_ORPHAN_GRACE_S = 1.0
"""After the engine's own end: enough for Python's resource tracker to free shared memory."""


class Guard:
    """Hold the engine's process, and end it when that is asked for."""

    def __init__(self, argv: list[str], *, stop_timeout_s: float) -> None:
        self._stop_timeout_s = stop_timeout_s
        self._is_to_stop = False
        self._is_to_hurry = False
        self._wake_read, self._wake_write = os.pipe()
        for end in (self._wake_read, self._wake_write):
            os.set_blocking(end, False)
        # Every signal with a handler wakes `select`, the engine's end (SIGCHLD) included.
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            signal.signal(number, self._on_signal)
        _set_process_option(_PR_SET_CHILD_SUBREAPER, 1)
        self._engine = subprocess.Popen(  # noqa: S603 - the launcher's own command
            argv,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_end_with_parent,  # noqa: PLW1509 - this process has one thread
        )

    def run(self) -> int:
        """Wait for the engine's end or a signal, leave no process, and return the exit status."""
        watched = [self._wake_read, sys.stdin.fileno()]
        while self._engine.poll() is None and not self._is_to_stop:
            readable, _, _ = select.select(watched, [], [])
            self._drain_wake_pipe()
            if sys.stdin.fileno() in readable and not os.read(sys.stdin.fileno(), 1):
                self._is_to_stop = True
                self._stop_timeout_s = min(self._stop_timeout_s, _ORPHANED_STOP_TIMEOUT_S)
            self._reap()
        if self._engine.poll() is None:
            self._end_engine()
        self._end_orphans()
        code = self._engine.wait()
        return code if code >= 0 else 128 - code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._is_to_stop = True
        self._is_to_hurry |= number == signal.SIGQUIT

    def _drain_wake_pipe(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)

    def _end_engine(self) -> None:
        self._engine.terminate()
        if not self._is_true_within(self._stop_timeout_s, lambda: self._engine.poll() is not None):
            self._engine.kill()
            self._engine.wait()

    def _end_orphans(self) -> None:
        self._is_true_within(_ORPHAN_GRACE_S, lambda: not descendants(os.getpid()))
        while left := descendants(os.getpid()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._reap()
            time.sleep(_POLL_S)

    def _is_true_within(self, seconds: float, condition: Callable[[], bool]) -> bool:
        """Return whether `condition` came true in time and before SIGQUIT."""
        deadline_s = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline_s or self._is_to_hurry:
                return False
            self._reap()
            time.sleep(_POLL_S)
        return True

    def _reap(self) -> None:
        """Collect inherited children that ended; the engine's own status is left to `poll`."""
        for pid in descendants(os.getpid()):
            if pid != self._engine.pid:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def descendants(root: int) -> list[int]:
    """Return the process ids of all below `root`, also of ended ones that nobody has collected."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with contextlib.suppress(OSError):
            # The name, in parentheses, may hold anything; the fields after it are state and parent.
            fields = Path("/proc", entry, "stat").read_bytes().rpartition(b")")[2].split()
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = []
    waiting = [root]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def _end_with_parent() -> None:
    """Ask Linux for SIGTERM when the guard is killed; runs in the engine before it starts."""
    _set_process_option(_PR_SET_PDEATHSIG, signal.SIGTERM)


def _set_process_option(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"prctl {option}: {os.strerror(error)}")


def main() -> int:
    """Run the command after `--` under guard."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stop-timeout-s", type=float, required=True, help="seconds to end in")
    parser.add_argument("--socket", type=Path, required=True, help="removed at the end")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    try:
        return Guard(arguments.command, stop_timeout_s=arguments.stop_timeout_s).run()
    finally:
        arguments.socket.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
