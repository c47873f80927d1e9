"""Writing a measured run, so that it can be gone on with after any stop."""

import fcntl
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

import orjson

from eval.attempts_file import differing_headers
from eval.measured_run import Block, IdleWindow, MeasuredRun, RunHeader, parse_run
from hybridserve_llm.errors import CannotBeDone, ConfigError


class RunFile:
    """A run's file that is written; a context manager that closes it."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begins the file, or goes on with it and cuts a torn last line off.

        Raises:
            ConfigError: The file cannot be opened, another process writes it, it holds something
                else, or it was begun with another cascade, other prompts or other settings.
        """
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
        except OSError as exc:
            raise ConfigError(f"cannot write {path}: {exc.strerror}") from exc
        try:
            self.run = self._begin_or_go_on(header)
        except BaseException:
            self._file.close()
            raise

    def _begin_or_go_on(self, header: RunHeader) -> MeasuredRun:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"{self.path} is being written by another process") from None
        self._file.seek(0)
        data = self._file.read()
        if not data:
            self._write(asdict(header))
            return MeasuredRun(header=header, blocks=[], idle=[])
        run, n_whole = parse_run(data, self.path)
        if differing := differing_runs([run.header, header]):
            raise ConfigError(
                f"{self.path} was measured with other {differing}; name another file, or go on "
                "with what it was measured with"
            )
        self._file.truncate(n_whole)
        return run

    def add(self, line: Block | IdleWindow) -> None:
        """Writes a block or an idle window; `run` holds it then.

        Raises:
            CannotBeDone: It cannot be written, e.g. as the disk is full.
        """
        self._write(asdict(line))
        if isinstance(line, Block):
            self.run.blocks.append(line)
        else:
            self.run.idle.append(line)

    def _write(self, value: dict[str, Any]) -> None:
        line = orjson.dumps(value) + b"\n"
        try:
            while line:  # a raw write may take a part, e.g. when a signal comes
                line = line[os.write(self._file.fileno(), line) :]
        except OSError as exc:
            raise CannotBeDone(f"cannot write {self.path}: {exc.strerror}") from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def differing_runs(headers: Sequence[RunHeader], *, same_prompts: bool = True) -> str:
    """What of a first header and those after it differs, in words; empty where nothing does."""
    first = headers[0]
    for other in headers[1:]:
        found = differing_headers(first.asked, other.asked, same_prompts=same_prompts)
        keys = ("hardware", "concurrency", "block_questions")
        found += [
            f"{key} ({getattr(first, key)!r} there, {getattr(other, key)!r} now)"
            for key in keys
            if getattr(first, key) != getattr(other, key)
        ]
        if found:
            return ", ".join(found)
    return ""
