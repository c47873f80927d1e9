"""Where published numbers come from."""

import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

_CPU_INFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """What a reader needs to produce the numbers anew; all in words, nothing is looked up here.

    Attributes:
        command: The command line that was run.
        commit: Of this project; None where it is unknown.
        date: Of the run, ISO 8601.
        hardware: What it ran on; "unknown" where that is not told.
        label_source: Who says which answers are right.
    """

    command: str
    project_version: str
    commit: str | None
    python_version: str
    numpy_version: str
    sklearn_version: str
    date: str
    hardware: str
    label_source: str

    def rows(self) -> tuple[tuple[str, str], ...]:
        """What each entry is, and the entry, in reading order."""
        return (
            ("command", self.command),
            ("labels", self.label_source),
            ("hybridserve-llm", self.project_version),
            ("commit", self.commit or "unknown"),
            ("Python", self.python_version),
            ("numpy", self.numpy_version),
            ("scikit-learn", self.sklearn_version),
            ("hardware", self.hardware),
            ("date", self.date),
        )


def command_line(program: str) -> str:
    """The command line that is running, under the program's own name."""
    return shlex.join([program, *(_by_name(word) for word in sys.argv[1:])])


def commit_of_project() -> str | None:
    """The commit of a working copy, `+` where it was changed since; None outside of one.

    A repository that only holds the environment into which this is installed is not ours.
    """
    if _git("ls-files", Path(__file__).name) is None:
        return None
    commit = _git("rev-parse", "--short", "HEAD")
    return f"{commit}{'+' if _git('status', '--porcelain', '-uno') else ''}" if commit else None


def this_machine() -> str:
    """Architecture, processor and cores of the machine that this runs on."""
    return f"{platform.machine()}, {_processor() or 'unknown processor'}, {os.cpu_count()} cores"


def _processor() -> str | None:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if "model name" in line), None)


def _by_name(word: str) -> str:
    """A path without its folders: a report is read elsewhere."""
    return Path(word).name if word.startswith("/") else word


def _git(*words: str) -> str | None:
    command = ("git", "-C", str(Path(__file__).parent), *words)
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    except OSError:
        return None
    return done.stdout.strip() or None
