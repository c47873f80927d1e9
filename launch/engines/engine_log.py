"""What an engine's log tells: how far its start has come, and why it ended; old logs are kept."""

import contextlib
import itertools
import re
from pathlib import Path

_TAIL_BYTES = 65536
_OLD_LOGS = 5

READY = "ready"
"""The last stage of a start."""

# What vLLM puts before a line: "(EngineCore pid=12) ERROR 11-23 20:35:09 [core.py:133] ".
_PREFIX = re.compile(
    r"^(\([\w-]+( pid=\d+)?\) )?((DEBUG|INFO|WARNING|ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^\]]*\] ?)?"
)
_EXCEPTION = re.compile(
    r"^[A-Za-z_][\w.]*(Error|Exception|Exit|Interrupt|NotFound)\b(: .+)?$"
    r"|^\S+: error: .+$"
    r"|.*\(ModuleNotFoundError: .+\)$"
)
_PYDANTIC_SUFFIX = re.compile(r" \[type=.*")
_MAX_LINE = 300

# Kernels that could not be loaded are a warning to vLLM; it ends later, where it first calls one.
_NO_KERNELS = "'_OpNamespace'"
_MISSING_LIBRARY = re.compile(r"\b[\w.+-]+\.so[.\d]*: cannot open shared object file[^'\")]*")

# vLLM's parent processes report that a child failed; the child's own line says why.
_SECOND_HAND = ("See root cause above", "See stack trace for root cause", "Engine process failed")

_STAGES = (
    ("Application startup complete", READY),
    ("Starting vLLM server", "starting its server"),
    ("KV cache size", "warming up"),
    ("Capturing CUDA graph", "warming up"),
    ("Loading weights took", "making room for the KV cache"),
    ("Starting to load model", "loading weights"),
    ("Initializing a V1 LLM engine", "starting workers"),
    ("non-default args", "reading the model's configuration"),
)


def keep_old_log(path: Path) -> None:
    """Moves the log of an engine's last life to `NAME.1`, that one to `NAME.2`, … up to `NAME.5`.

    So what a crash left is still there when the engine has been started again.
    """
    logs = [path, *(path.with_name(f"{path.name}.{i}") for i in range(1, _OLD_LOGS + 1))]
    for newer, older in reversed(list(itertools.pairwise(logs))):
        with contextlib.suppress(FileNotFoundError):
            newer.replace(older)


def log_tail(path: Path) -> str:
    """The last 64 KiB of the log; empty when there is none."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            return file.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def start_stage(log: str) -> str:
    """How far the start has come, in words, by the lines vLLM 0.22 to 0.33 writes."""
    for phrase, stage in _STAGES:
        if phrase in log:
            return stage
    return "loading vLLM"


def telling_line(log: str) -> str | None:
    """The line that best says why the engine ended: the last that reads as an exception.

    Where that one is about kernels that are not there and the log names the system library that
    they lack, it is the library that is told. Without an exception, the last line that holds
    anything; None when the log is empty.
    """
    lines = [_PREFIX.sub("", line).rstrip() for line in log.splitlines()]
    for i in reversed(range(len(lines))):
        if _EXCEPTION.match(lines[i]) and not any(words in lines[i] for words in _SECOND_HAND):
            missing = _MISSING_LIBRARY.search(log) if _NO_KERNELS in lines[i] else None
            return f"ImportError: {missing.group()}" if missing else _with_details(lines, i)
    return next((line.strip() for line in reversed(lines) if line.strip()), None)


def _with_details(lines: list[str], index: int) -> str:
    """The exception's line; of pydantic's, the indented line after it, which says what is wrong."""
    line = lines[index].strip()
    if "validation error" in line and index + 1 < len(lines):
        line = _PYDANTIC_SUFFIX.sub("", lines[index + 1].strip().removeprefix("Value error, "))
    return line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]}…"
