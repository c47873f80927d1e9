"""A file of JSON lines that only grows, so that what was written outlives any stop."""

import fcntl
import os
from collections.abc import Mapping
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

    def close(self) -> None:
        """Lets others write it."""
        self._file.close()
