"""Keep files of JSON lines that grow line by line, so that what was written outlives any stop."""

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec

from hybridserve_llm.errors import CannotBeDone, ConfigError

Line = TypeVar("Line")
_PLACE = re.compile(r"(?s)(.*) - at `\$\.?(.*)`")


def whole_lines(data: bytes) -> list[bytes]:
    """Return the lines of `data` that end; what follows the last newline is torn, or nothing."""
    return data.split(b"\n")[:-1]


def decoded_line(line: bytes, decoder: msgspec.json.Decoder[Line]) -> Line:
    """Return what `decoder` makes of the line's JSON.

    Raises:
        ConfigError: The line is not JSON, or not that of its type; the message names the key.
    """
    try:
        return decoder.decode(line)
    except msgspec.DecodeError as exc:
        raise ConfigError(fault_in(exc)) from exc


def fault_in(error: msgspec.DecodeError) -> str:
    """Return msgspec's message with the place of the fault first: `score: Expected …`."""
    found = _PLACE.fullmatch(str(error))
    return f"{found[2]}: {found[1]}" if found and found[2] else str(error)


class LineFile:
    """Hold an open file that no other process writes meanwhile.

    Every line is handed to the operating system whole before `write` returns, so at most the line
    being written is torn by a kill.
    """

    def __init__(self, path: Path) -> None:
        """Open the file, or make it.

        Raises:
            ConfigError: It cannot be opened, or another process writes it.
        """
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as exc:
            raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise ConfigError(f"{path} is being written by another process") from None
        if not os.path.samestat(os.fstat(self._file.fileno()), path.stat()):
            self._file.close()  # opened just before its writer put another in its place
            raise ConfigError(f"{path} is being written by another process")

    def read(self) -> bytes:
        """Return all that the file holds."""
        self._file.seek(0)
        return self._file.read()

    def cut_torn_line(self) -> None:
        """Cut off what follows the last newline."""
        self._file.truncate(self.read().rfind(b"\n") + 1)

    def write(self, value: object) -> None:
        """Add a line that holds `value` as JSON.

        Raises:
            CannotBeDone: It cannot be written, e.g. as the disk is full.
        """
        line = msgspec.json.encode(value) + b"\n"
        try:
            while line:  # a raw write may take a part, e.g. when a signal comes
                line = line[os.write(self._file.fileno(), line) :]
        except OSError as exc:
            raise CannotBeDone(f"cannot write {self.path}: {exc.strerror}") from exc

    def replace(self, values: Iterable[object]) -> None:
        """Put these lines in place of all lines of the file, at once and for good.

        They go to a file next to it, which then takes its name, so the file is always the old
        one or the new one. It stays locked.

        Raises:
            CannotBeDone: They cannot be written; the file is as it was.
        """
        path = self.path.resolve()  # a link stays one
        try:
            new = LineFile(path.with_name(f"{path.name}.new"))
        except ConfigError as exc:
            raise CannotBeDone(str(exc)) from exc
        try:
            new._file.truncate(0)
            for value in values:
                new.write(value)
            os.fsync(new._file.fileno())
            shutil.copymode(path, new.path)
            new.path.replace(path)
        except (OSError, CannotBeDone) as exc:
            new.close()
            with contextlib.suppress(OSError):
                new.path.unlink()
            raise CannotBeDone(f"cannot write {self.path} anew: {exc}") from exc
        self._file.close()
        self._file = new._file

    def close(self) -> None:
        """Close the file, so that others may write it."""
        self._file.close()
