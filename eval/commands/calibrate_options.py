"""The command line of `hs-calibrate`: what each option is, and which values are allowed."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import orjson

from eval.commands.option_values import cost, natural, positive, share
from eval.questions.graders import GRADER_TYPES, GraderSpec, grader_spec
from eval.questions.prompts import SET_BY_COLLECTION
from eval.recorded.splits import DEFAULT_N_CERTIFY, DEFAULT_N_FIT
from hybridserve_llm.errors import ConfigError

DEFAULT_CONCURRENCY = 16

Parsed = TypeVar("Parsed")


def parser() -> argparse.ArgumentParser:
    """The parser; it ends the program with status 2 where an option is not allowed."""
    top = argparse.ArgumentParser(
        prog="hs-calibrate", description="Fit and certify when a cascade takes a small answer."
    )
    commands = top.add_subparsers(dest="command", required=True)
    shared = _calibration_options()
    _add_records(commands.add_parser("records", help="from recorded answers", parents=[shared]))
    _add_prompts(commands.add_parser("prompts", help="from labelled prompts", parents=[shared]))
    return top


def check_options(options: argparse.Namespace) -> None:
    """Passes where the options go together.

    Raises:
        ConfigError: Two of them do not.
    """
    if options.bootstrap and options.certificate is not None:
        raise ConfigError(
            "--certificate does not go with --bootstrap: the same questions would be fitted and "
            "certified on, and nothing would be promised"
        )
    if options.keep_all_tiers and options.preset == "energy":
        raise ConfigError("--keep-all-tiers goes with --preset accuracy only")


def _add_records(command: argparse.ArgumentParser) -> None:
    command.description = "Calibrate from recorded answers of all tiers."
    command.add_argument(
        "file",
        type=Path,
        help="CSV, one row per question and model, or the attempts that `prompts` recorded",
    )


def _add_prompts(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Ask every tier of a running cascade every labelled prompt, record the attempts, and "
        "calibrate from them. After a stop the same command goes on."
    )
    command.add_argument("file", type=Path, help="JSONL, one labelled prompt a line; or CSV")
    add_asking_options(command)


def add_asking_options(command: argparse.ArgumentParser, *, keeps_attempts: bool = True) -> None:
    """What asking a cascade takes, `hs-eval collect` too.

    `keeps_attempts` adds the file of attempts, and the server's records that tell their joules.
    """
    command.add_argument("--base-url", required=True, help="http://127.0.0.1:8000/v1")
    command.add_argument(
        "--api-key-env", metavar="NAME", help="environment variable that holds the API key"
    )
    if keeps_attempts:
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


def _calibration_options() -> argparse.ArgumentParser:
    """What both commands take."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--chain", type=names_in, help="the tiers, cheapest first, a,b,c; default: all"
    )
    shared.add_argument(
        "--preset",
        choices=("accuracy", "energy"),
        default="accuracy",
        help="accuracy keeps the loss within epsilon; energy takes the knee of cost against loss "
        "and certifies what it loses",
    )
    shared.add_argument(
        "--epsilon", type=share, default=0.02, help="greatest loss of preset accuracy, e.g. 0.02"
    )
    shared.add_argument("--delta", type=share, default=0.1, help="chance that it is exceeded")
    shared.add_argument("--loss", choices=("net", "harm"), default="net")
    shared.add_argument(
        "--keep-all-tiers",
        action="store_true",
        help="drop no tier, though one may not pay; for preset accuracy",
    )
    shared.add_argument(
        "--cost", type=cost, action="append", default=[], metavar="MODEL=X", help="per request"
    )
    shared.add_argument("--n-fit", type=positive, help=f"default {DEFAULT_N_FIT}")
    shared.add_argument("--n-certify", type=positive, help=f"default {DEFAULT_N_CERTIFY}")
    shared.add_argument(
        "--bootstrap", action="store_true", help="draw both with replacement; test on the file"
    )
    shared.add_argument("--decisions", type=Path, metavar="CSV", help="who answers each question")
    shared.add_argument("--certificate", type=Path, metavar="JSON", help="what a cascade serves by")
    shared.add_argument(
        "--report", type=Path, metavar="DIR", help="folder for report.html and report.md"
    )
    shared.add_argument("--seed", type=natural, default=0)
    shared.add_argument("--json", action="store_true", help="one JSON object on stdout")
    return shared


def _value_of(read: Callable[[str], Parsed]) -> Callable[[str], Parsed]:
    """`read`, with its ConfigError as argparse's own."""

    def value(text: str) -> Parsed:
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


def names_in(text: str) -> tuple[str, ...]:
    """The names in `a,b,c`."""
    return tuple(name.strip() for name in text.split(","))
