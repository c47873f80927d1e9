"""Define the frames that a front end and its bookkeeper send each other over a socket.

    front end                                bookkeeper, a process of its own
       │── Assignment ──────────────────────────>│  what to meter, where to write
       │<───────────────────────── BooksReport ──│  ready, or why not
       │── WorkBatch, ten times a second ───────>│  replicas' work, requests that ended
       │<────────────── BooksReport, as settled ─│  totals, histograms of joules, counts
       │── end of file ─────────────────────────>│  settles what it can, writes all, ends

A frame is four bytes of length and a value in MessagePack.
"""

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from hybridserve_llm.books.energy_report import EnergyReport
from hybridserve_llm.books.meter_sites import Metered
from hybridserve_llm.books.notes import Notes
from hybridserve_llm.telemetry.counts import TalliedJoules
from hybridserve_llm.telemetry.json_lines import JsonLinesSettings

T = TypeVar("T")
HEAD = struct.Struct("<I")


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """Hold a bookkeeper's task.

    Attributes:
        energy_json: The section `energy` of the configuration.
        metered: The devices to meter; None where nothing is metered.
        records: Where records go; None where nowhere.
    """

    energy_json: str
    metered: Metered | None
    records: JsonLinesSettings | None


class WorkBatch(NamedTuple):
    """Hold all that happened up to `at_s` (monotonic) since the last batch.

    Attributes:
        notes: Of `energy.notes.WorkNotes`.
        packs: Requests that ended, in order; each a list of `FinishedRequest` in MessagePack.
    """

    at_s: float
    notes: Notes
    packs: list[msgspec.Raw]


@dataclass(frozen=True, slots=True, kw_only=True)
class BooksReport:
    """Report how the books stand.

    Attributes:
        energy: The books; None where nothing is metered.
        joules: What users' requests cost that were settled since the last report.
        n_lines: Ledgers' lines taken since the start, those that were dropped included.
        n_settled: Requests settled since the start, shadows left out.
        n_dropped: Records that were not written, of those taken.
        fault: Why it cannot begin; it ends then.
    """

    energy: EnergyReport | None
    joules: tuple[TalliedJoules, ...] = ()
    n_lines: int = 0
    n_settled: int = 0
    n_dropped: int = 0
    fault: str | None = None


def frame_of(value: Assignment | WorkBatch | BooksReport) -> bytes:
    """Return the frame that holds the value."""
    body = msgspec.msgpack.encode(value, enc_hook=_plain)
    return HEAD.pack(len(body)) + body


def length_of(head: bytes) -> int:
    """Return how many bytes the value behind these four bytes has."""
    (length,) = HEAD.unpack(head)
    return int(length)


def value_of(body: bytes, kind: type[T]) -> T:
    """Return the value of a frame.

    Raises:
        msgspec.DecodeError: The bytes hold another value.
    """
    return msgspec.msgpack.decode(body, type=kind, dec_hook=_from_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise NotImplementedError(f"{type(value).__name__} has no place in a frame")


def _from_plain(kind: type[Any], value: Any) -> Any:
    if kind is Path:
        return Path(value)
    raise NotImplementedError(f"{kind.__name__} has no place in a frame")
