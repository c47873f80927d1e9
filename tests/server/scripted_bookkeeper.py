"""A bookkeeper over a scripted GPU: `scripted_bookkeeper.py [--dies-once FILE] FD`.

With the option it ends at its first batch with status 3, unless FILE is there; then it goes on.
"""

import os
import socket
import sys
from pathlib import Path

from hybridserve_llm.books import bookkeeper_process
from hybridserve_llm.books.bookkeeper_wire import Batch
from hybridserve_llm.books.meter_sites import Probes
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.testing import ScriptedNvml


class DiesOnce(bookkeeper_process.Bookkeeper):
    """Takes no batch."""

    def take(self, batch: Batch) -> None:
        if batch.packs:
            os._exit(3)


def main() -> None:
    if sys.argv[1] == "--dies-once" and not Path(sys.argv[2]).exists():
        Path(sys.argv[2]).touch()
        bookkeeper_process.Bookkeeper = DiesOnce  # type: ignore[misc]  # it is a process of its own
    nvml = ScriptedNvml(clock=SystemClock(), power_w=100, tick_s=0.02)
    probes = Probes(open_nvml=lambda: nvml, powercap=Path("/nowhere"))
    bookkeeper_process.keep_books(socket.socket(fileno=int(sys.argv[-1])), probes)


if __name__ == "__main__":
    main()
