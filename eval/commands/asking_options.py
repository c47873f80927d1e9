"""Read the options of every command that asks a running cascade labelled prompts."""

import argparse
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

from eval.commands.option_values import positive
from eval.questions.graders import GRADER_TYPES, GraderSpec, grader_spec
from eval.questions.prompts import SET_BY_COLLECTION
from hybridserve_llm.errors import ConfigError

DEFAULT_CONCURRENCY = 16

ValueT = TypeVar("ValueT")


@dataclass(frozen=True, slots=True, kw_only=True)
class AskingOptions:
    """Hold where the cascade is, what it is sent, and how its answers are graded.

    Attributes:
        api_key_env: Environment variable that holds the API key; None where none is needed.
        grader: The grader of prompts that name none.
        sampling: Fields of the body that are sent with every prompt.
        concurrency: Prompts asked at a time.
    """

    base_url: str
    api_key_env: str | None
    grader: GraderSpec | None
    run_code: bool
    sampling: Mapping[str, Any]
    concurrency: int

    def api_key(self) -> str | None:
        """Return the API key that the environment holds; None where no variable is named.

        Raises:
            ConfigError: The variable is not set.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env)
        if not key:
            raise ConfigError(f"--api-key-env names {self.api_key_env}, which is not set")
        return key


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptsOptions:
    """Hold the file in which attempts are recorded, and the server's records.

    Attributes:
        records: The server's `records.file`, which holds the joules of attempts; None without.
    """

    attempts: Path
    records: Path | None


def add_asking_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `AskingOptions`."""
    command.add_argument("--base-url", required=True, help="http://127.0.0.1:8000/v1")
    command.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable that holds the API key"
    )
    command.add_argument(
        "--grader",
        type=_value_of(_grader),
        help=f"of prompts that name none: {', '.join(GRADER_TYPES)}, or a JSON object",
    )
    command.add_argument(
        "--run-code",
        action="store_true",
        help="let the grader 'code' run what models wrote, in processes with limits; not a jail",
    )
    command.add_argument(
        "--sampling",
        type=_value_of(_sampling),
        default={},
        metavar="JSON",
        help="body fields sent with every prompt; default: none, as a plain client sends",
    )
    command.add_argument(
        "--concurrency", type=positive, default=DEFAULT_CONCURRENCY, help="prompts asked at a time"
    )


def add_attempts_options(command: argparse.ArgumentParser) -> None:
    """Add the options of `AttemptsOptions`."""
    command.add_argument(
        "--attempts",
        type=Path,
        required=True,
        metavar="JSONL",
        help="where attempts are recorded",
    )
    command.add_argument(
        "--records",
        type=Path,
        metavar="FILE",
        help="the server's records.file, to take the joules of attempts from",
    )


def _value_of(read: Callable[[str], ValueT]) -> Callable[[str], ValueT]:
    """Return `read` with its ConfigError turned into argparse's own."""

    def value(text: str) -> ValueT:
        try:
            return read(text)
        except ConfigError as exc:
            raise argparse.ArgumentTypeError(str(exc)) from exc

    return value


def _grader(text: str) -> GraderSpec:
    return grader_spec(_json_object(text) if text.lstrip().startswith("{") else text)


def _sampling(text: str) -> dict[str, Any]:
    sampling = _json_object(text)
    if taken := sorted(SET_BY_COLLECTION & sampling.keys()):
        raise ConfigError(f"{taken[0]} is set by the collection; leave it out")
    return sampling


def _json_object(text: str) -> dict[str, Any]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise ConfigError(f"{text!r} is not a JSON object")
    return value
