"""The record sink: a file with one line of JSON per request and one for what it cost.

    {"kind": "request", "time_s": …, "request_id": …, "latency_s": …, "tier": …, "attempts": […]}
    {"kind": "energy",  "time_s": …, "request_id": …, "active_j": …, "loaded_j": …, …}

The second comes seconds after the first; the request's id joins them. No prompt and no answer is
written. Writing happens in a thread behind a bounded queue: a request never waits for a disk, and a
record that finds the queue full, or that the disk refuses, is dropped and counted. What was written
of a piece that the disk refused is cut off again, so that the files hold whole lines, and the count
is exact.
"""

import contextlib
import itertools
import logging
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path

import msgspec

from hybridserve_llm.interfaces import Clock
from hybridserve_llm.telemetry.counts import CountOf
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest

log = logging.getLogger(__name__)

_DISK_PATIENCE_S = 10.0
_LOOK_INTERVAL_S = 0.1
_PIECE_BYTES = 64 * 1024
"""Every write lets go of the interpreter's lock, which is dear to get back: few and large ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLinesSettings:
    """Where to write, and how much to keep: `file`, then `file.1` (the newest) to `file.N`."""

    file: Path
    max_file_bytes: int
    keep_files: int
    queue_size: int


class DroppedRecords(CountOf):
    """How many records were dropped, in Prometheus' words."""

    def __init__(self, n_dropped: Callable[[], int]) -> None:
        super().__init__(
            "hybridserve_records_dropped",
            "Records that were not written: queue full, disk refused, or writer died",
            n_dropped,
        )


class RecordLines:
    """The lines of the file, as bytes that end in a newline."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._encode = msgspec.json.Encoder().encode

    def of_request(self, finished: FinishedRequest) -> bytes:
        """The line of a request that ended."""
        line = {
            "kind": "request",
            "time_s": finished.time_s,
            "request_id": finished.ledger.request_id,
            "latency_s": finished.latency_s,
            **msgspec.structs.asdict(finished.ledger),
        }
        return self._encode(line) + b"\n"

    def of_energy(self, energy: SettledEnergy) -> bytes:
        """The line of what it cost."""
        line = {"kind": "energy", "time_s": self._clock.wall_s(), **energy._asdict()}
        line["components"] = {name: part._asdict() for name, part in energy.components.items()}
        return self._encode(line) + b"\n"


class JsonLinesSink:
    """A RecordSink that writes; `close` waits until all that was taken is on disk."""

    def __init__(self, settings: JsonLinesSettings, *, clock: Clock) -> None:
        """Starts the writer.

        Raises:
            OSError: The file cannot be opened for appending.
        """
        self._settings = settings
        self._lines = RecordLines(clock)
        # Two counts, as each belongs to one thread: that of the requests, and the writer.
        self._n_refused = 0
        self._n_lost = 0
        # A deque's append and popleft need no lock, and nobody is woken for a record: the writer
        # looks by itself. Waking a thread for each cost more than writing it.
        self._waiting: deque[bytes] = deque()
        self._stopping = threading.Event()
        self._file: FileIO | None = None
        self._file_bytes = 0
        self._has_failed = False
        self._open()
        self._thread = threading.Thread(target=self._write_all, name="records", daemon=True)
        self._thread.start()

    @property
    def n_dropped(self) -> int:
        """Records that were not written: queue full, disk refused, or writer died."""
        return self._n_refused + self._n_lost

    def requests_finished(self, finished: Sequence[FinishedRequest]) -> None:
        """Takes ledgers."""
        for one in finished:
            if self._has_room():
                self._waiting.append(self._lines.of_request(one))

    def request_settled(self, energy: SettledEnergy) -> None:
        """Takes what the request cost."""
        if self._has_room():
            self._waiting.append(self._lines.of_energy(energy))

    def close(self) -> None:
        """Writes what waits and ends; gives up on a disk that hangs for 10 s, and says so."""
        self._stopping.set()
        self._thread.join(timeout=_DISK_PATIENCE_S)
        if self._thread.is_alive():
            log.error("records: %s hangs; the last records are lost", self._settings.file)

    def _has_room(self) -> bool:
        """Whether one more line may wait; one that may not is counted as dropped."""
        if len(self._waiting) >= self._settings.queue_size:
            self._n_refused += 1
            return False
        return True

    def _write_all(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(_LOOK_INTERVAL_S)
            while self._waiting:
                self._write(self._next_piece())
        self._close_file()

    def _next_piece(self) -> list[bytes]:
        """Lines that wait: up to a piece, or until the file is full; at least one."""
        room_bytes = self._settings.max_file_bytes - self._file_bytes
        if room_bytes <= 0:  # the piece goes into the next file
            room_bytes = self._settings.max_file_bytes
        limit_bytes, lines, size_bytes = min(_PIECE_BYTES, room_bytes), [], 0
        while self._waiting and size_bytes < limit_bytes:
            lines.append(self._waiting.popleft())
            size_bytes += len(lines[-1])
        return lines

    def _write(self, lines: list[bytes]) -> None:
        """Writes the piece, all of it or nothing; lines that the disk refused are counted."""
        try:
            self._append(b"".join(lines))
        except OSError as exc:
            self._n_lost += len(lines)
            if not self._has_failed:
                log.error("records: %s cannot be written: %s", self._settings.file, exc)  # noqa: TRY400 - the disk's fault, not ours: no traceback
            self._has_failed = True
            self._close_file()  # the next piece begins with a file opened anew
        else:
            self._has_failed = False

    def _append(self, piece: bytes) -> None:
        """One write for the piece, as a rule; straight to the file, so nothing is left in between.

        Raises:
            OSError: The disk refused; the file holds what it held before.
        """
        if self._file is not None and self._file_bytes >= self._settings.max_file_bytes:
            self._rotate()
        file = self._file or self._open()
        rest = memoryview(piece)
        try:
            while rest:
                rest = rest[file.write(rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(self._file_bytes)
            raise
        self._file_bytes += len(piece)

    def _open(self) -> FileIO:
        self._file = self._settings.file.open("ab", buffering=0)
        self._file_bytes = self._file.tell()
        return self._file

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(OSError):  # nothing of ours is in it that was not written
                file.close()

    def _rotate(self) -> None:
        """Moves files on by one, up to the first free name; without one the oldest is lost.

        Only as far as needed, and before a file is opened: a move or an opening that fails and is
        tried again takes no file from those that are kept.
        """
        self._close_file()
        places = [self._settings.file]
        if not places[0].exists():
            return
        for n in range(1, self._settings.keep_files + 1):
            places.append(places[0].with_name(f"{places[0].name}.{n}"))
            if not places[-1].exists():
                break
        for newer, older in reversed(list(itertools.pairwise(places))):
            newer.replace(older)
