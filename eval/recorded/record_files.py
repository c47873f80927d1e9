"""Read the records of a running server as they grow: what its requests cost.

A server appends to `records.file` and moves a full file on to `file.1`, that one to `file.2`, and
so on (`hybridserve_llm/telemetry/json_lines.py`). So a file is known here by its first line, which
holds a time and a request's id, and not by its name or its inode: both are used again.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

from eval.recorded.line_file import Line, decoded_line
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.files import read_bytes
from hybridserve_llm.values.ledger import Amount, Ledger


class SettledLine(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the part of a `SettledEnergy` that is read here; `reason` says why joules are None."""

    request_id: str
    active_j: Amount | None
    source: str
    reason: str | None


@dataclass(slots=True, kw_only=True)
class _Place:
    """Hold how far a file was read."""

    n_bytes: int = 0
    n_lines: int = 0


class _AnyRecord(msgspec.Struct):
    kind: str


_RECORDS = msgspec.json.Decoder(_AnyRecord)
_LEDGERS = msgspec.json.Decoder(Ledger)
_SETTLED = msgspec.json.Decoder(SettledLine)


class RecordFiles:
    """Read a server's record file, and those that it was moved on to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[bytes, _Place] = {}

    def added(self) -> Iterator[SettledLine]:
        """Yield what was settled in the lines that were added since the last call, oldest first.

        A last line that is half written is left for the next call.

        Raises:
            ConfigError: No file exists, one cannot be read, or a line is no record of a server.
        """
        for path in self._paths():
            try:
                yield from self._added_to(path)
            except FileNotFoundError:  # moved on just now: the next call finds it
                continue
            except OSError as exc:
                raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc

    def _paths(self) -> list[Path]:
        """Return the files that exist, oldest first."""
        found = [self._path] if self._path.exists() else []
        moved_on = (self._path.with_name(f"{self._path.name}.{n}") for n in itertools.count(1))
        found += itertools.takewhile(Path.exists, moved_on)
        if not found:
            raise ConfigError(f"{self._path} does not exist; name the server's records.file")
        return found[::-1]

    def _added_to(self, path: Path) -> Iterator[SettledLine]:
        with path.open("rb") as file:
            first = file.readline()
            place = self._places.setdefault(first, _Place()) if first.endswith(b"\n") else _Place()
            file.seek(place.n_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                place.n_bytes += len(line)
                place.n_lines += 1
                settled = _decoded(line, "energy", _SETTLED, f"{path}, line {place.n_lines}")
                if settled is not None:
                    yield settled


def read_ledgers(path: Path) -> Iterator[Ledger]:
    """Yield the ledger of each request in one record file.

    Raises:
        ConfigError: The file cannot be read, or a line is no record of a server.
    """
    for number, line in enumerate(read_bytes(path).splitlines(), start=1):
        ledger = _decoded(line, "request", _LEDGERS, f"{path}, line {number}")
        if ledger is not None:
            yield ledger


def _decoded(
    line: bytes, kind: str, decoder: msgspec.json.Decoder[Line], where: str
) -> Line | None:
    """Return what a record of this kind holds; None where the line is of another kind."""
    try:
        return decoded_line(line, decoder) if decoded_line(line, _RECORDS).kind == kind else None
    except ConfigError as exc:
        raise ConfigError(f"{where} is no record of a server: {exc}") from exc
