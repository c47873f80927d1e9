"""Writing a measured run, so that it can be gone on with after any stop."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from eval.recorded.attempts_file import differing_headers
from eval.recorded.line_file import LineFile
from eval.recorded.measured_run import Block, IdleWindow, MeasuredRun, RunHeader, parse_run
from hybridserve_llm.errors import ConfigError


class RunFile:
    """A run's file that is written; a context manager that closes it."""

    def __init__(self, path: Path, header: RunHeader) -> None:
        """Begins the file, or goes on with it and cuts a torn last line off.

        Raises:
            ConfigError: The file cannot be opened, another process writes it, it holds something
                else, or it was begun with another cascade, other prompts or other settings.
        """
        self.path = path
        self._file = LineFile(path)
        try:
            self.run = self._begin_or_go_on(header)
        except BaseException:
            self._file.close()
            raise

    def _begin_or_go_on(self, header: RunHeader) -> MeasuredRun:
        data = self._file.read()
        if not data:
            self._file.write(asdict(header))
            return MeasuredRun(header=header, blocks=[], idle=[])
        run, n_whole = parse_run(data, self.path)
        if differing := differing_runs([run.header, header]):
            raise ConfigError(
                f"{self.path} was measured with other {differing}; name another file, or go on "
                "with what it was measured with"
            )
        self._file.cut(n_whole)
        return run

    def add(self, line: Block | IdleWindow) -> None:
        """Writes a block or an idle window; `run` holds it then.

        Raises:
            CannotBeDone: It cannot be written, e.g. as the disk is full.
        """
        self._file.write(asdict(line))
        if isinstance(line, Block):
            self.run.blocks.append(line)
        else:
            self.run.idle.append(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def differing_runs(headers: Sequence[RunHeader], *, same_prompts: bool = True) -> str:
    """What of a first header and those after it differs, in words; empty where nothing does."""
    first = headers[0]
    for other in headers[1:]:
        found = differing_headers(first.asked, other.asked, same_prompts=same_prompts)
        keys = ("served_model_name", "hardware", "concurrency", "block_questions", "is_streamed")
        found += [
            f"{key} ({getattr(first, key)!r} there, {getattr(other, key)!r} now)"
            for key in keys
            if getattr(first, key) != getattr(other, key)
        ]
        found += _differing_policies(first, other)
        if found:
            return ", ".join(found)
    return ""


def _differing_policies(there: RunHeader, now: RunHeader) -> list[str]:
    """What the two cascades decided by, where it differs; what only one file tells is no matter."""
    found = []
    old, new = there.certificate, now.certificate
    if old is None or new is None:
        is_same = old is new
    else:
        is_same = all(old[key] == new[key] for key in old.keys() & new.keys())
    if not is_same:
        found.append(f"certificate ({_made(old)} there, {_made(new)} now)")
    if None not in (there.state, now.state) and there.state != now.state:
        found.append(f"state ({there.state} there, {now.state} now)")
    if None not in (there.thresholds, now.thresholds) and there.thresholds != now.thresholds:
        found.append("thresholds of the cascade")
    return found


def _made(certificate: dict[str, Any] | None) -> str:
    return "none" if certificate is None else f"made {certificate.get('created')}"
