"""The bookkeeper: meters, books and the record file of one front end, in a process of their own.

    python -m hybridserve_llm.books.bookkeeper_process FD

Settling and writing what requests cost took the front end a tenth of its requests a second. Here
none of it holds up a request, and a driver that hangs holds up nobody. It reads the socket FD until
its end, which comes when the front end ends in whatever way; then it settles and writes all it can.
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
    Batch,
    BooksReport,
    frame_of,
    length_of,
    value_of,
)
from hybridserve_llm.books.energy_report import report_of
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
class _AsTold:
    """The clock of the books: what happened is known up to the last batch, and no further."""

    clock: Clock
    told_s: float = field(init=False)

    def __post_init__(self) -> None:
        self.told_s = self.clock.monotonic_s()

    def monotonic_s(self) -> float:
        """Up to when all is known."""
        return self.told_s

    def wall_s(self) -> float:
        """The time of day."""
        return self.clock.wall_s()


class Bookkeeper:
    """Takes batches, settles, and says how things stand."""

    def __init__(self, assignment: Assignment, *, clock: Clock, probes: Probes) -> None:
        """Opens the record file and the meters; waits for drivers.

        Raises:
            CannotBeDone: The record file cannot be written.
        """
        self._told = _AsTold(clock)
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
                books_clock=self._told,
                on_settled=self._on_settled,
                probes=probes,
            )
            self._work = NotedWork(self._metering.books)
            self._metering.start()

    def take(self, batch: Batch) -> None:
        """Enters what happened, and has ledgers written."""
        self._told.told_s = batch.at_s
        packs = (value_of(pack, list[FinishedRequest]) for pack in batch.packs)
        finished = list(itertools.chain.from_iterable(packs))
        if self._work is not None:
            ends = ((one.ledger.request_id, one.ledger.tier) for one in finished)
            self._work.enter(batch.notes, ends)
        if self._records is not None:
            self._records.requests_finished(finished)
            self._n_lines += len(finished)

    def settle(self) -> BooksReport:
        """Settles what can be settled now."""
        if self._metering is not None:
            self._metering.books.settle()
        return self.report()

    def close(self) -> BooksReport:
        """Settles for the last time and waits until all is written."""
        if self._metering is not None:
            self._metering.close()
        if self._records is not None:
            self._records.close()
        return self.report()

    def report(self) -> BooksReport:
        """How things stand; what requests cost is told once."""
        return BooksReport(
            energy=None if self._metering is None else report_of(self._metering),
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
    """Keeps the books of whoever is at the other end of `link`, until that end is closed."""
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
                keeper.take(value_of(body, Batch))
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
    """The next frame's value; None at the end."""
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
    """Keeps books on the socket `fd`, as the whole work of this process."""
    # Ctrl-C reaches the whole process group: the front end ends first, and then says so.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.nice(_NICENESS)
    keep_books(socket.socket(fileno=fd), probes)


def main() -> None:
    """Keeps books on the socket whose number is the only argument."""
    run(int(sys.argv[1]), Probes())


if __name__ == "__main__":
    main()
