"""Read the command line of `hs-profile`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridserve_llm.program import add_version_option
from launch.options import Seconds, WholeNumber

_HIGHEST_CONCURRENCY = 4096
_LONGEST_WINDOW_S = 3600.0
_HIGHEST_TOP_LOGPROBS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileOptions:
    """Hold the options of `hs-profile`.

    Attributes:
        config: The cascade's file; None with `demo`.
        tiers: Names of the tiers to measure; empty for all that are started from here.
        concurrency: Requests in flight at the points of the table, rising, each once.
        check: Requests in flight at points that are measured too, and predicted from the table.
        top_logprobs: Alternatives per token that are asked for; None for no log-probabilities.
        out: Folder of the profiles.
        command: The command as it was given, for the profile's source.
    """

    config: Path | None
    demo: bool
    tiers: tuple[str, ...]
    concurrency: tuple[int, ...]
    check: tuple[int, ...]
    prompt_tokens: int
    output_tokens: int
    top_logprobs: int | None
    window_s: float
    repeats: int
    out: Path
    json: bool
    cpu: bool
    gpus: int | None
    run_folder: Path | None
    log_level: str
    command: tuple[str, ...]


def read_profile_options(arguments: Sequence[str]) -> ProfileOptions:
    """Return the options in `arguments`; exits with 2 on wrong usage."""
    parser = _parser()
    values = vars(parser.parse_args(arguments))
    if not values["demo"] and values["config"] is None:
        parser.error("one of --demo and --config is needed")
    outside = [c for c in values["check"] if not 1 <= c <= values["concurrency"][-1]]
    again = sorted(set(values["check"]) & set(values["concurrency"]))
    if values["check"] and (outside or again or values["concurrency"][0] != 1):
        parser.error(
            "--check takes points that --concurrency leaves out, between 1, which "
            "--concurrency has to begin with, and its last"
        )
    values["tiers"] = tuple(dict.fromkeys(values.pop("tier")))
    if values["top_logprobs"] < 0:
        values["top_logprobs"] = None
    return ProfileOptions(command=("hs-profile", *arguments), **values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hs-profile",
        description="Measure each tier's engine at a few loads and write a profile of it.",
    )
    add_version_option(parser)
    _add_subject(parser)
    _add_load(parser)
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("profiles"),
        metavar="DIR",
        help="where TIER.json goes; default %(default)s",
    )
    parser.add_argument("--json", action="store_true", help="what was measured as JSON on stdout")
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    device.add_argument(
        "--gpus", type=WholeNumber(1), metavar="N", help="use the first N GPUs; default all"
    )
    parser.add_argument(
        "--run-folder", type=Path, metavar="DIR", help="logs and sockets; default a new one"
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="warning"
    )
    return parser


def _add_subject(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--demo", action="store_true", help="the demo cascade shipped with this")
    what.add_argument("--config", type=Path, metavar="FILE", help="the cascade's YAML file")
    parser.add_argument(
        "--tier",
        action="append",
        default=[],
        metavar="NAME",
        help="measure this tier; may be repeated; default all that are started from here",
    )


def _add_load(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--concurrency",
        type=_concurrencies,
        default=(1, 2, 4, 8, 16),
        metavar="N,N,…",
        help="requests in flight at the table's points; default 1,2,4,8,16",
    )
    parser.add_argument(
        "--check",
        type=_concurrencies,
        default=(),
        metavar="N,N,…",
        help="measure these points too, and compare them with what the table predicts",
    )
    parser.add_argument(
        "--prompt-tokens", type=WholeNumber(1), default=64, metavar="N", help="default %(default)s"
    )
    parser.add_argument(
        "--output-tokens", type=WholeNumber(2), default=32, metavar="N", help="default %(default)s"
    )
    parser.add_argument(
        "--top-logprobs",
        type=WholeNumber(-1, _HIGHEST_TOP_LOGPROBS),
        default=5,
        metavar="N",
        help="alternatives per token, as the cascade asks for; -1 for no log-probabilities; "
        "default %(default)s",
    )
    parser.add_argument(
        "--window-s",
        type=Seconds(longest=_LONGEST_WINDOW_S),
        default=5.0,
        metavar="S",
        help="seconds of one measurement; default %(default)g",
    )
    parser.add_argument(
        "--repeats",
        type=WholeNumber(1),
        default=3,
        metavar="N",
        help="windows per point; default 3",
    )


def _concurrencies(text: str) -> tuple[int, ...]:
    read = WholeNumber(1, _HIGHEST_CONCURRENCY)
    values = tuple(read(part) for part in text.split(","))
    if list(values) != sorted(set(values)):
        raise argparse.ArgumentTypeError(f"{text!r} must rise, each number once")
    return values
