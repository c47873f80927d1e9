"""The record sink: a file with one line of JSON per request and one for what it cost.

    {"kind": "request", "time_s": …, "request_id": …, "latency_s": …, "tier": …, "attempts": […]}
    {"kind": "energy",  "time_s": …, "request_id": …, "active_j": …, "loaded_j": …, …}

The second comes seconds after the first; the request's id joins them. No prompt and no answer is
written. A line is made at once, while what it tells of is at hand: objects that wait cost the
front end more, as by then the processor's caches have lost them. Writing happens in a thread behind
a bounded queue: a request never waits for a disk, and a record that finds the queue full, or that
the disk refuses, is dropped and counted.
"""

import dataclasses
import logging
import operator
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridserve_llm.interfaces import Clock
from hybridserve_llm.records import Attempt, Ledger, SettledEnergy

log = logging.getLogger(__name__)

_DISK_PATIENCE_S = 10.0
_LOOK_INTERVAL_S = 0.1
_BUFFER_BYTES = 64 * 1024
"""Every write lets go of the interpreter's lock, which is dear to get back: few and large ones."""


_LEDGER_FIELDS = tuple(field.name for field in dataclasses.fields(Ledger))
_ledger_values = operator.attrgetter(*_LEDGER_FIELDS)


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonLinesSettings:
    """Where to write, and how much to keep: `file`, then `file.1` (the newest) to `file.N`."""

    file: Path
    max_file_bytes: int
    keep_files: int
    queue_size: int


class DroppedRecords(Collector):
    """How many records were dropped, in Prometheus' words."""

    def __init__(self, n_dropped: Callable[[], int]) -> None:
        self._n_dropped = n_dropped

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """The one counter."""
        dropped = CounterMetricFamily(
            "hybridserve_records_dropped",
            "Records that were not written: the queue was full, or the disk refused",
        )
        dropped.add_metric([], self._n_dropped())
        yield dropped


class JsonLinesSink:
    """A RecordSink that writes; `close` waits until all that was taken is on disk."""

    def __init__(self, settings: JsonLinesSettings, *, clock: Clock) -> None:
        """Starts the writer.

        Raises:
            OSError: The file cannot be opened for appending.
        """
        self.n_dropped = 0
        self._settings = settings
        self._clock = clock
        # A deque's append and popleft need no lock, and nobody is woken for a record: the writer
        # looks by itself. Waking a thread for each cost more than writing it.
        self._waiting: deque[bytes] = deque()
        self._stopping = threading.Event()
        self._file = settings.file.open("ab", buffering=_BUFFER_BYTES)
        self._file_bytes = self._file.tell()
        self._has_failed = False
        self._thread = threading.Thread(target=self._write_all, name="records", daemon=True)
        self._thread.start()

    def attempt_finished(self, request_id: str, attempt: Attempt) -> None:
        """Nothing: attempts are in their request's ledger."""

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """Takes the ledger."""
        self._put(
            {
                "kind": "request",
                "time_s": self._clock.wall_s(),
                "request_id": ledger.request_id,
                "latency_s": latency_s,
                **dict(zip(_LEDGER_FIELDS, _ledger_values(ledger), strict=True)),
            }
        )

    def request_settled(self, energy: SettledEnergy) -> None:
        """Takes what the request cost."""
        line = {"kind": "energy", "time_s": self._clock.wall_s(), **energy._asdict()}
        line["components"] = {name: part._asdict() for name, part in energy.components.items()}
        self._put(line)

    def close(self) -> None:
        """Writes what waits and ends; gives up on a disk that hangs for 10 s."""
        self._stopping.set()
        self._thread.join(timeout=_DISK_PATIENCE_S)

    def _put(self, line: dict[str, Any]) -> None:
        """Kind, time and id first; orjson writes the dataclasses inside."""
        if len(self._waiting) >= self._settings.queue_size:
            self.n_dropped += 1
            return
        self._waiting.append(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def _write_all(self) -> None:
        is_last = False
        while not is_last:
            is_last = self._stopping.wait(_LOOK_INTERVAL_S)
            self._write_waiting()
        self._file.close()

    def _write_waiting(self) -> None:
        while self._waiting:
            line = self._waiting.popleft()
            try:
                self._write(line)
                self._has_failed = False
            except OSError as exc:
                self.n_dropped += 1
                if not self._has_failed:
                    log.error("records: %s cannot be written: %s", self._settings.file, exc)  # noqa: TRY400 - the disk's fault, not ours: no traceback
                self._has_failed = True

    def _write(self, line: bytes) -> None:
        if self._file_bytes >= self._settings.max_file_bytes:
            self._rotate()
        self._file.write(line)
        self._file_bytes += len(line)  # counted here: asking the file is a system call for each
        if not self._waiting:
            self._file.flush()

    def _rotate(self) -> None:
        """Moves every file on by one; the oldest is lost."""
        self._file.close()
        file = self._settings.file
        for n in range(self._settings.keep_files, 0, -1):
            older = file.with_name(f"{file.name}.{n}")
            newer = file if n == 1 else file.with_name(f"{file.name}.{n - 1}")
            if newer.exists():
                newer.replace(older)
        self._file = file.open("ab", buffering=_BUFFER_BYTES)
        self._file_bytes = self._file.tell()
