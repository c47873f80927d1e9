"""What a server did, from its own records, beside what a replay of recorded answers does."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from eval.policy_replay import Steps
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.records import Verdict

Way = tuple[tuple[str, str], ...]
"""Tier and decision of each attempt."""

_ENDED = frozenset({Verdict.FAIL.value, Verdict.ABORT.value})


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Requests that the server answered and the replay decided, joined by their ids.

    Attributes:
        n_failed: Requests left out, as a tier failed or the client went away.
        n_unknown: Requests left out, as no question has their id.
        differing: Ids of the questions that were decided otherwise.
    """

    n_compared: int
    n_failed: int
    n_unknown: int
    differing: tuple[str, ...]


def compare(path: Path, ways: Sequence[Steps], outcomes: Outcomes) -> Comparison:
    """The requests in `path`, as `records.file` of a server holds them, beside `ways`.

    A request is the question whose id it was sent under (header `x-request-id`).

    Raises:
        ConfigError: The file cannot be read, holds no requests, or two questions have one id.
    """
    ids = [str(question[1]) for question in _named(outcomes)]
    if len(set(ids)) < len(ids):
        raise ConfigError("ids repeat in these records; requests cannot be told apart by them")
    replayed = {
        query_id: tuple((outcomes.tiers[step.tier], step.verdict.value) for step in steps)
        for query_id, steps in zip(ids, ways, strict=True)
    }
    served = _served(path)
    known = {key: way for key, way in served.items() if key in replayed}
    whole = {key: way for key, way in known.items() if not _ENDED & {verdict for _, verdict in way}}
    return Comparison(
        n_compared=len(whole),
        n_failed=len(known) - len(whole),
        n_unknown=len(served) - len(known),
        differing=tuple(key for key, way in whole.items() if way != replayed[key]),
    )


def _named(outcomes: Outcomes) -> list[tuple[Any, Any]]:
    """Questions as (split, id), which both forms of records name them by."""
    return [question for question in outcomes.questions if isinstance(question, tuple)]


def _served(path: Path) -> Mapping[str, Way]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    found: dict[str, Way] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = orjson.loads(line)
            if record["kind"] == "request":
                way = tuple((one["tier"], one["decision"]) for one in record["attempts"])
                found[record["request_id"]] = way
        except (ValueError, KeyError, TypeError) as exc:
            raise ConfigError(f"{path}, line {number} is no record of a server: {exc}") from exc
    if not found:
        raise ConfigError(f"{path} holds no request")
    return found
