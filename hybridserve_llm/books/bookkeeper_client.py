"""The front end's end of its bookkeeper: told of work and of ledgers, ten times a second.

start ── batches out, reports in ──┬── cancelled: last batch, last report, end
^                                │
└── what it had not written ─────┴── it died
is counted as lost
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable, Sequence

import msgspec

from hybridserve_llm.books.bookkeeper_wire import (
    HEAD,
    Assignment,
    Batch,
    BooksReport,
    frame_of,
    length_of,
    value_of,
)
from hybridserve_llm.books.energy_report import EnergyReport
from hybridserve_llm.books.notes import WorkNotes
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.telemetry.counts import TalliedJoules
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest

log = logging.getLogger(__name__)

_BATCH_INTERVAL_S = 0.1
_START_TIMEOUT_S = 60.0
"""Drivers may take seconds to answer for the first time."""
_END_TIMEOUT_S = 15.0
"""More than a disk that hangs is waited for."""
_PAUSE_S = 1.0
_MOST_UNSENT_BYTES = 32 << 20
"""A bookkeeper that does not read any more is not waited for: batches are dropped and counted."""


class BookkeeperClient:
    """A RecordSink, and what replicas tell of their work, for books in a process of their own."""

    def __init__(
        self,
        assignment: Assignment,
        command: Sequence[str],
        *,
        clock: Clock,
        on_settled: Callable[[TalliedJoules], None],
    ) -> None:
        """`command` starts `bookkeeper_process.py`; the number of its socket is added to it."""
        self.notes = WorkNotes()
        self._assignment = assignment
        self._command = tuple(command)
        self._clock = clock
        self._on_settled = on_settled
        self._packs: list[msgspec.Raw] = []
        self._n_lines = self._n_metered = 0
        self._encode = msgspec.msgpack.Encoder().encode
        self._link: _Link | None = None
        self._report = BooksReport(energy=None)
        self._n_lost = 0

    @property
    def energy(self) -> EnergyReport:
        """The books as they stood at the last report.

        Raises:
            ValueError: Nothing is metered.
        """
        if self._report.energy is None:
            raise ValueError("this bookkeeper meters nothing")
        return self._report.energy

    @property
    def n_dropped(self) -> int:
        """Records that were not written, and will not be."""
        return self._n_lost + self._report.n_dropped

    def requests_finished(self, finished: Sequence[FinishedRequest]) -> None:
        """Keeps them until the next batch."""
        self._packs.append(msgspec.Raw(self._encode(finished)))
        if self._assignment.records is None:
            return
        self._n_lines += len(finished)
        if self._assignment.metered is not None:
            self._n_metered += sum(bool(one.ledger.attempts) for one in finished)

    def request_settled(self, energy: SettledEnergy) -> None:
        """Nothing: the bookkeeper said it."""

    async def start(self) -> None:
        """Starts the process and waits until it meters.

        Raises:
            CannotBeDone: It says why it cannot, ends, or takes too long.
        """
        try:
            link = await _Link.open(self._command)
        except OSError as exc:
            raise CannotBeDone(f"the bookkeeper did not start: {exc}") from exc
        link.send(frame_of(self._assignment))
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                report = await link.receive()
        except TimeoutError as exc:
            await link.close(timeout_s=0.0)
            raise CannotBeDone(f"the bookkeeper did not start in {_START_TIMEOUT_S:g} s") from exc
        except (OSError, EOFError, msgspec.DecodeError) as exc:
            status = await link.close(timeout_s=_END_TIMEOUT_S)
            raise CannotBeDone(f"the bookkeeper ended at its start with status {status}") from exc
        if report.fault is not None:
            await link.close(timeout_s=_END_TIMEOUT_S)
            raise CannotBeDone(report.fault)
        self._report, self._link = report, link

    async def run(self) -> None:
        """Tells it of everything until cancelled; `start` must have been called."""
        while True:
            if self._link is None:
                await asyncio.sleep(_PAUSE_S)
                try:
                    await self.start()
                except CannotBeDone as exc:
                    log.error("%s", exc)  # noqa: TRY400 - it says all there is to say
                    self._drop()
                continue
            status = await self._tell(self._link)
            self._link = None
            log.error("the bookkeeper ended with status %s; another one is started", status)

    async def _tell(self, link: "_Link") -> int:
        """Tells it of everything until it ends or this is cancelled; its exit status."""
        receiving = asyncio.create_task(self._receive(link))
        try:
            while not receiving.done():
                await asyncio.wait({receiving}, timeout=_BATCH_INTERVAL_S)
                self._send(link)
        finally:
            if not receiving.done():  # cancelled: this is the end
                self._send(link)
                link.end()
                await asyncio.wait({receiving}, timeout=_END_TIMEOUT_S)
                receiving.cancel()
            status = await link.close(timeout_s=_END_TIMEOUT_S)
            self._count_lost(link)
        return status

    def _send(self, link: "_Link") -> None:
        """Sends what happened since the last batch; drops it where too much is unsent already."""
        if link.unsent_bytes > _MOST_UNSENT_BYTES:
            self._drop()
            return
        link.n_lines += self._n_lines
        link.n_metered += self._n_metered
        link.send(frame_of(Batch(self._clock.monotonic_s(), self.notes.take(), self._packs)))
        self._forget()

    def _drop(self) -> None:
        """Counts as lost what nobody can be told."""
        self.notes.take()
        self._n_lost += self._n_lines + self._n_metered
        self._forget()

    def _forget(self) -> None:
        self._packs = []
        self._n_lines = self._n_metered = 0

    async def _receive(self, link: "_Link") -> None:
        """Takes reports until the bookkeeper's end."""
        with contextlib.suppress(EOFError, OSError, msgspec.DecodeError):
            while True:
                self._report = await link.receive()
                for one in self._report.joules:
                    self._on_settled(one)

    def _count_lost(self, link: "_Link") -> None:
        """Counts the records that this process was told of and did not write.

        Of requests that engines were working on when it died nobody knows yet.
        """
        report = self._report
        n_unsettled = max(0, link.n_metered - report.n_settled)
        self._n_lost += report.n_dropped + link.n_lines - report.n_lines + n_unsettled
        self._report = BooksReport(energy=report.energy)


class _Link:
    """A bookkeeper's process and the socket to it; what was sent is counted."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.n_lines = self.n_metered = 0
        self._process, self._reader, self._writer = process, reader, writer

    @classmethod
    async def open(cls, command: Sequence[str]) -> "_Link":
        """Starts the process.

        Raises:
            OSError: It cannot be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    str(theirs.fileno()),
                    pass_fds=[theirs.fileno()],
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                )
            except OSError:
                ours.close()
                raise
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    @property
    def unsent_bytes(self) -> int:
        """What the process has not read yet, beyond what the socket holds."""
        return self._writer.transport.get_write_buffer_size()

    def send(self, frame: bytes) -> None:
        """Sends without waiting; to a process that is gone nothing is sent."""
        self._writer.write(frame)

    async def receive(self) -> BooksReport:
        """The next report.

        Raises:
            EOFError: The process ended.
            OSError: The socket broke.
            msgspec.DecodeError: It is no report.
        """
        head = await self._reader.readexactly(HEAD.size)
        return value_of(await self._reader.readexactly(length_of(head)), BooksReport)

    def end(self) -> None:
        """Says that nothing follows."""
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def close(self, *, timeout_s: float) -> int:
        """Waits for the process, kills one that goes on for too long; its exit status."""
        self._writer.close()
        try:
            async with asyncio.timeout(timeout_s):
                return await self._process.wait()
        except TimeoutError:
            self._process.kill()
            return await self._process.wait()
