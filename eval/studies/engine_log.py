"""Logs of requests that a real vLLM served, one JSON object a line.

The form is that of LLMServingSim's validation logs (github.com/casys-kaist/LLMServingSim): lengths
`input_toks` and `output_toks`, and times `queued_ts`, `first_token_ts` and `last_token_ts` in
seconds of one clock. Other keys are not read.
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.simulator.workload import Floats, Requests, checked_requests
from hybridserve_llm.errors import ConfigError

_LENGTHS = ("input_toks", "output_toks")
_TIMES = ("queued_ts", "first_token_ts", "last_token_ts")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLog:
    """n requests in order of arrival, and what became of them.

    Attributes:
        ttft_s: Seconds to the first token, [n].
        latency_s: Seconds to the last, [n].
    """

    requests: Requests
    ttft_s: Floats
    latency_s: Floats


def read_engine_log(path: Path) -> EngineLog:
    """The requests of the file at `path`.

    Raises:
        ConfigError: The file cannot be read, has no requests, or a line is not as it should be; the
            message names the line, the value, and what is allowed.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not UTF-8 text"
        raise ConfigError(f"cannot read log {path}: {reason}") from exc
    rows = [
        _row(line, f"log {path}, line {number}")
        for number, line in enumerate(lines, start=1)
        if line.strip()
    ]
    if not rows:
        raise ConfigError(f"log {path} has no requests; at least one is needed")
    rows.sort(key=lambda row: row[2])
    prompts, outputs, queued, first, last = (np.array(column) for column in zip(*rows, strict=True))
    return EngineLog(
        requests=checked_requests(queued, prompts.astype(np.int64), outputs.astype(np.int64)),
        ttft_s=first - queued,
        latency_s=last - queued,
    )


def _row(line: str, where: str) -> tuple[float, ...]:
    try:
        row: Any = json.loads(line)
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{where}: not JSON: {exc}") from exc
    if not isinstance(row, dict):
        raise ConfigError(f"{where}: {line.strip()[:40]!r} is not a JSON object")
    lengths = tuple(_number(row, name, where) for name in _LENGTHS)
    if any(length < 1 or length != int(length) for length in lengths):
        raise ConfigError(
            f"{where}: {_LENGTHS[0]} and {_LENGTHS[1]} are {lengths[0]:g} and {lengths[1]:g}; "
            "whole numbers of at least 1 are allowed"
        )
    times = tuple(_number(row, name, where) for name in _TIMES)
    if not times[0] <= times[1] <= times[2]:
        raise ConfigError(f"{where}: {', '.join(_TIMES)} are not in order of time")
    return *lengths, *times


def _number(row: dict[str, Any], name: str, where: str) -> float:
    value = row.get(name)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        return float(value)
    raise ConfigError(f"{where}: {name} is {value!r}; a finite number is allowed")
