"""Traces of requests in the form of the Azure LLM inference traces.

CSV with a heading and the columns TIMESTAMP, ContextTokens, GeneratedTokens, as published in
github.com/Azure/AzurePublicDataset. A timestamp is a date and time of day, in UTC where it names no
zone, or a number of seconds.
"""

import csv
import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from eval.simulator.workload import Requests, checked_requests
from hybridserve_llm.errors import ConfigError

_TIME, _PROMPT, _OUTPUT = "TIMESTAMP", "ContextTokens", "GeneratedTokens"
_COLUMNS = (_TIME, _PROMPT, _OUTPUT)
_MICROSECOND_DIGITS = 6


def read_azure_trace(path: Path) -> Requests:
    """The requests of the file at `path`, in order of arrival, counted from the first.

    Raises:
        ConfigError: The file cannot be read, lacks a column, holds no request, or a line is not as
            it should be; the message names the line, the value, and what is allowed.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            missing = [name for name in _COLUMNS if name not in (rows.fieldnames or ())]
            if missing:
                raise ConfigError(
                    f"trace {path} has no column {', '.join(missing)}; "
                    f"it needs {', '.join(_COLUMNS)}"
                )
            table = [_row(row, f"trace {path}, line {rows.line_num}") for row in rows]
    except (OSError, UnicodeDecodeError, csv.Error) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else f"not CSV in UTF-8 ({exc})"
        raise ConfigError(f"cannot read trace {path}: {reason}") from exc
    if not table:
        raise ConfigError(f"trace {path} has a heading and no requests; at least one is needed")
    at_s, prompts, outputs = zip(*table, strict=True)
    return checked_requests(
        np.array(at_s, dtype=np.float64),
        np.array(prompts, dtype=np.int64),
        np.array(outputs, dtype=np.int64),
    )


def _row(row: dict[str, str | None], where: str) -> tuple[float, int, int]:
    return (
        _seconds(row[_TIME] or "", where),
        _tokens(_PROMPT, row[_PROMPT] or "", where),
        _tokens(_OUTPUT, row[_OUTPUT] or "", where),
    )


def _tokens(name: str, text: str, where: str) -> int:
    # Nothing has a billion tokens: a longer number is another column, or a broken line.
    if text.strip().isascii() and text.strip().isdigit() and len(text.strip()) <= 9:
        return int(text)
    raise ConfigError(f"{where}: {name} is {text!r}; a whole number from 0 to 999999999 is allowed")


def _seconds(text: str, where: str) -> float:
    """Seconds since 1970 of a date, or the number itself."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = _seconds_of_date(text)
    if math.isfinite(seconds):
        return seconds
    raise ConfigError(
        f"{where}: {_TIME} is {text!r}; a date such as 2023-11-16 18:15:46.68 or a number of "
        "seconds is allowed"
    )


def _seconds_of_date(text: str) -> float:
    """NaN for what is no date; some have seven digits of a second, of which Python reads six."""
    whole, dot, rest = text.strip().partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :]
    try:
        at = datetime.fromisoformat(f"{whole}{dot}{digits[:_MICROSECOND_DIGITS]}{zone}")
    except ValueError:
        return math.nan
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
