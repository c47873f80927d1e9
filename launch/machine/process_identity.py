"""Names a process for good: its id alone would, after its end, name whoever gets that id next."""

import os
import select
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Self

_START_FIELD = 19
"""`starttime` among the fields of /proc/PID/stat that follow the name (proc_pid_stat(5))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessIdentity:
    """One process of this machine: `start_ticks` and `boot_id` are what no successor shares."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Self | None:
        """The living process `pid`; None where there is none, or it has ended."""
        try:
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        except OSError:
            return None
        # The name, in parentheses, may hold anything; the state follows it.
        fields = stat.rpartition(b")")[2].split()
        if fields[0] in (b"Z", b"X"):
            return None
        return cls(pid=pid, start_ticks=int(fields[_START_FIELD]), boot_id=boot_id)

    @classmethod
    def of_this_process(cls) -> Self:
        """The process that asks."""
        identity = cls.of(os.getpid())
        assert identity is not None  # noqa: S101 - whoever asks is alive
        return identity

    def is_alive(self) -> bool:
        """Whether this very process still runs."""
        return ProcessIdentity.of(self.pid) == self

    def terminate(self, *, timeout_s: float) -> bool:
        """Sends SIGTERM and waits for the end; whether it came within `timeout_s`.

        True as well when the process had ended before. Another process never gets the signal: the
        descriptor holds on to one process, and who that is, is looked at after it was opened.

        Raises:
            PermissionError: The process is another user's.
        """
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        try:
            if not self.is_alive():
                return True
            signal.pidfd_send_signal(descriptor, signal.SIGTERM)
            ended, _, _ = select.select([descriptor], [], [], timeout_s)
            return bool(ended)
        except ProcessLookupError:
            return True
        finally:
            os.close(descriptor)
