"""Keep the meters, the books and the record file of one front end, in a process of their own.

    python -m hybridserve_llm.books.bookkeeper_process FD

Settling and writing what requests cost took the front end a tenth of its requests a second. Here
none of it delays a request, and neither does a driver that hangs. It reads the socket FD until its
end, which comes when the front end ends, however it ends. Then it settles and writes all it can.
"""

import itertools
import os
import select
import signal
import socket
import sys
from dataclasses import dataclass, field

from hybridserve_llm.books.bookkeeper_wire import (
    HEAD,
    Assignment,
    BooksReport,
    WorkBatch,
    frame_of,
    length_of,
    value_of,
)
from hybridserve_llm.books.energy_report import energy_report_of
from hybridserve_llm.books.meter_sites import Probes
from hybridserve_llm.books.metering import Metering, metering_of
from hybridserve_llm.books.notes import NotedWork
from hybridserve_llm.books.sinks import open_records
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import EnergyConfig
from hybridserve_llm.energy.attribution import Booking
from hybridserve_llm.errors import HybridServeError
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.telemetry.counts import JoulesTally
from hybridserve_llm.telemetry.json_lines import JsonLinesSink
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest

_NICENESS = 10
"""Where cores are few, front end and engines come first: nobody waits for books."""


@dataclass(slots=True)
class _BatchClock:
    """Give the books the time of the last batch: what happened later is not known yet."""

    clock: Clock
    known_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.known_s = self.clock.monotonic_s()

    def monotonic_s(self) -> float:
        """Return the time up to which everything is known."""
        return self.known_s

    def wall_s(self) -> float:
        """Return the time of day."""
        return self.clock.wall_s()


class Bookkeeper:
    """Take batches, settle requests, and report how the books stand."""

    def __init__(self, assignment: Assignment, *, clock: Clock, probes: Probes) -> None:
        """Open the record file and the meters; this may wait for drivers.

        Raises:
            CannotBeDone: The record file cannot be written.
        """
        self._batch_clock = _BatchClock(clock)
        self._n_lines = self._n_settled = 0
        self._joules = JoulesTally()
        self._records: JsonLinesSink | None = None
        if assignment.records is not None:
            self._records = open_records(assignment.records, clock)
        self._metering: Metering | None = None
        self._work: NotedWork | None = None
        self.settle_interval_s = 1.0
        if assignment.metered is not None:
            config = EnergyConfig.model_validate_json(assignment.energy_json)
            self.settle_interval_s = config.settle_interval_s
            self._metering = metering_of(
                config,
                assignment.metered,
                clock=clock,
                books_clock=self._batch_clock,
                on_settled=self._on_settled,
                probes=probes,
            )
            self._work = NotedWork(self._metering.books)
            self._metering.start()

    def take(self, batch: WorkBatch) -> None:
        """Enter the work of a batch into the books, and have its ledgers written."""
        self._batch_clock.known_s = batch.at_s
        packs = (value_of(pack, list[FinishedRequest]) for pack in batch.packs)
        finished = list(itertools.chain.from_iterable(packs))
        if self._work is not None:
            ends = ((one.ledger.request_id, one.ledger.tier) for one in finished)
            self._work.enter(batch.notes, ends)
        if self._records is not None:
            self._records.requests_finished(finished)
            self._n_lines += len(finished)

    def settle(self) -> BooksReport:
        """Settle what can be settled now."""
        if self._metering is not None:
            self._metering.books.settle()
        return self.report()

    def close(self) -> BooksReport:
        """Settle for the last time and wait until all is written."""
        if self._metering is not None:
            self._metering.close()
        if self._records is not None:
            self._records.close()
        return self.report()

    def report(self) -> BooksReport:
        """Return how the books stand; the joules of each request are reported once."""
        return BooksReport(
            energy=None if self._metering is None else energy_report_of(self._metering),
            joules=self._joules.taken(),
            n_lines=self._n_lines,
            n_settled=self._n_settled,
            n_dropped=0 if self._records is None else self._records.n_dropped,
        )

    def _on_settled(self, energy: SettledEnergy) -> None:
        if self._records is not None:
            self._records.request_settled(energy)
        self._n_settled += energy.booking != Booking.SHADOW
        self._joules.count(energy)


def keep_books(link: socket.socket, probes: Probes) -> None:
    """Keep the books of the front end at the other end of `link`, until it closes that end."""
    clock = SystemClock()
    assigned = _read_frame(link)
    if assigned is None:
        return
    try:
        keeper = Bookkeeper(value_of(assigned, Assignment), clock=clock, probes=probes)
    except HybridServeError as exc:
        link.sendall(frame_of(BooksReport(energy=None, fault=str(exc))))
        return
    link.sendall(frame_of(keeper.report()))
    due_s = clock.monotonic_s() + keeper.settle_interval_s
    try:
        while True:
            wait_s = max(0.0, due_s - clock.monotonic_s())
            if select.select([link], [], [], wait_s)[0]:
                body = _read_frame(link)
                if body is None:
                    break
                keeper.take(value_of(body, WorkBatch))
            if clock.monotonic_s() >= due_s:
                link.sendall(frame_of(keeper.settle()))
                due_s = clock.monotonic_s() + keeper.settle_interval_s
    except (BrokenPipeError, ConnectionResetError):
        keeper.close()  # the front end is gone, and nobody reads a report any more
        return
    last = keeper.close()
    try:
        link.sendall(frame_of(last))
    except (BrokenPipeError, ConnectionResetError):
        return


def _read_frame(link: socket.socket) -> bytes | None:
    """Return the next frame's value; None at the end."""
    head = _read(link, HEAD.size)
    return None if head is None else _read(link, length_of(head))


def _read(link: socket.socket, n_bytes: int) -> bytes | None:
    parts, left = [], n_bytes
    while left:
        part = link.recv(min(left, 1 << 20))
        if not part:
            return None
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def run(fd: int, probes: Probes) -> None:
    """Keep books on the socket `fd`, as the whole work of this process."""
    # Ctrl-C reaches the whole process group: the front end ends first, and then says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    keep_books(socket.socket(fileno=fd), probes)


def main() -> None:
    """Keep books on the socket whose number is the only argument."""
    run(int(sys.argv[1]), Probes())


if __name__ == "__main__":
    main()
