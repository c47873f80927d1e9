"""A file of JSON lines that grows line by line, so that what was written outlives any stop."""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from hybridserve_llm.errors import CannotBeDone, ConfigError


class LineFile:
    """An open file that no other process writes meanwhile.

    Every line is handed to the operating system whole before `write` returns, so at most the line
    being written is torn by a kill.
    """

    def __init__(self, path: Path) -> None:
        """Opens the file, or makes it.

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
        """All that it holds."""
        self._file.seek(0)
        return self._file.read()

    def cut(self, n_bytes: int) -> None:
        """Keeps the first `n_bytes`."""
        self._file.truncate(n_bytes)

    def write(self, value: Mapping[str, Any]) -> None:
        """Adds a line.

        Raises:
            CannotBeDone: It cannot be written, e.g. as the disk is full.
        """
        line = orjson.dumps(value) + b"\n"
        try:
            while line:  # a raw write may take a part, e.g. when a signal comes
                line = line[os.write(self._file.fileno(), line) :]
        except OSError as exc:
            raise CannotBeDone(f"cannot write {self.path}: {exc.strerror}") from exc

    def replace(self, values: Iterable[Mapping[str, Any]]) -> None:
        """Puts these lines in place of all that are there, at once and for good.

        They go to a file beside it, which then takes its name: whatever happens, the file is the
        old one or the new one. It stays locked.

        Raises:
            CannotBeDone: They cannot be written; the file is as it was.
        """
        path = self.path.resolve()  # a link stays one
        try:
            new = LineFile(path.with_name(f"{path.name}.new"))
        except ConfigError as exc:
            raise CannotBeDone(str(exc)) from exc
        try:
            new.cut(0)
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
        """Lets others write it."""
        self._file.close()
