"""The records of a running server, read as they grow: what its requests cost.

A server appends to `records.file` and moves a full file on to `file.1`, that one to `file.2`, and
so on (`hybridserve_llm/telemetry/json_lines.py`). So a file is known here by its first line, which
holds a time and a request's id, and not by its name or its inode: both are used again.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import orjson
from pydantic import TypeAdapter

from eval.recorded.attempts import Amount
from hybridserve_llm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledLine:
    """What one request cost, as far as it is read here; `reason` says why joules are None."""

    request_id: str
    active_j: Amount | None
    source: str
    reason: str | None


@dataclass(slots=True, kw_only=True)
class _Place:
    """How far a file was read."""

    n_bytes: int = 0
    n_lines: int = 0


_LINE = TypeAdapter(SettledLine)


class RecordFiles:
    """A server's record file, and those that it was moved on to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._places: dict[bytes, _Place] = {}

    def added(self) -> Iterator[SettledLine]:
        """What was settled in the lines that were added since the last call, oldest first.

        A last line that is half written is left for the next call.

        Raises:
            ConfigError: No file is there, one cannot be read, or a line is no record of a server.
        """
        for path in self._paths():
            try:
                yield from self._added_to(path)
            except FileNotFoundError:  # moved on just now: the next call finds it
                continue
            except OSError as exc:
                raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc

    def _paths(self) -> list[Path]:
        """The files that are there, oldest first."""
        found = [self._path] if self._path.exists() else []
        moved_on = (self._path.with_name(f"{self._path.name}.{n}") for n in itertools.count(1))
        found += itertools.takewhile(Path.exists, moved_on)
        if not found:
            raise ConfigError(f"{self._path} is not there; name the server's records.file")
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
                try:
                    settled = _settled(line)
                except ValueError as exc:  # of orjson and of pydantic too
                    fault = " ".join(str(exc).split())
                    raise ConfigError(
                        f"{path}, line {place.n_lines} is no record of a server: {fault:.200}"
                    ) from exc
                if settled is not None:
                    yield settled


def _settled(line: bytes) -> SettledLine | None:
    """What the line says a request cost; None where it is a record of another kind.

    Raises:
        ValueError: It is no record.
    """
    value = orjson.loads(line)
    if not isinstance(value, dict) or "kind" not in value:
        raise ValueError("it is not an object with a kind")
    return _LINE.validate_python(value) if value["kind"] == "energy" else None
