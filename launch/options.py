"""Read the command lines of `hs-launch`, `hs-launch status` and `hs-launch stop`."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridserve_llm.program import add_version_option

_STOP_TIMEOUT_S = 120.0
_LONGEST_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchOptions:
    """Hold the options of `hs-launch`; None leaves a value to the configuration."""

    config: Path | None
    demo: bool
    dry_run: bool
    json: bool
    host: str | None
    port: int | None
    cpu: bool
    gpus: int | None
    gpu_type: str | None
    explain: bool
    run_folder: Path | None
    allow_uncertified: bool
    allow_unprofitable: bool
    acknowledge_alarm: str | None
    log_level: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusOptions:
    """Hold the options of `hs-launch status`; without a run folder it shows all launches."""

    run_folder: Path | None
    json: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StopOptions:
    """Hold the options of `hs-launch stop`; without a run folder it stops the one that runs."""

    run_folder: Path | None
    timeout: float


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """Read a whole number between bounds, as the type of an argument."""

    lowest: int
    highest: int | None = None

    def __call__(self, text: str) -> int:
        """Return the number; argparse reports the error of any other text."""
        value = int(text) if text.removeprefix("-").isdecimal() else self.lowest - 1
        if value < self.lowest or (self.highest is not None and value > self.highest):
            upto = "or more" if self.highest is None else f"to {self.highest}"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number: allowed are {self.lowest} {upto}"
            )
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Seconds:
    """Read a number of seconds up to the longest, as the type of an argument."""

    longest: float
    is_zero_allowed: bool = False

    def __call__(self, text: str) -> float:
        """Return the seconds; argparse reports the error of any other text."""
        try:
            seconds = float(text)
        except ValueError:
            seconds = -1.0
        if 0 < seconds <= self.longest or (self.is_zero_allowed and seconds == 0):
            return seconds
        lowest = "0" if self.is_zero_allowed else "above 0"
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a number of seconds: allowed are {lowest} to {self.longest:g}"
        )


def read_command_line(
    arguments: Sequence[str] | None,
) -> LaunchOptions | StatusOptions | StopOptions:
    """Return the options in `arguments`, or in this process's own; exits with 2 on wrong usage."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["status"]:
        return StatusOptions(**vars(_status_parser().parse_args(words[1:])))
    if words[:1] == ["stop"]:
        return StopOptions(**vars(_stop_parser().parse_args(words[1:])))
    parser = _launch_parser()
    options = parser.parse_args(words)
    for name in ("json", "explain", "gpu_type"):
        if getattr(options, name) and not options.dry_run:
            parser.error(f"--{name.replace('_', '-')} goes with --dry-run")
    if options.gpu_type is not None and options.cpu:
        parser.error("--gpu-type and --cpu do not go together")
    return LaunchOptions(**vars(options))


def _launch_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hs-launch",
        description="Start a cascade's engines and serve it; Ctrl-C stops all.",
        epilog="hs-launch status and hs-launch stop: a launch that runs in another terminal.",
    )
    add_version_option(parser)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--demo", action="store_true", help="the demo cascade shipped with this")
    what.add_argument("--config", type=Path, metavar="FILE", help="the cascade's YAML file")
    parser.add_argument("--dry-run", action="store_true", help="print the plan; start nothing")
    parser.add_argument("--json", action="store_true", help="with --dry-run: the plan as JSON")
    parser.add_argument(
        "--explain",
        action="store_true",
        help="with --dry-run: why this plan, other loads, and a profile that is off",
    )
    parser.add_argument("--host", help="address to listen on, instead of server.host")
    parser.add_argument(
        "--port",
        type=WholeNumber(0, 65535),
        help="TCP port (0 to 65535; 0 takes a free one), instead of the file's",
    )
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    device.add_argument(
        "--gpus", type=WholeNumber(1), metavar="N", help="use the first N GPUs; default all"
    )
    parser.add_argument(
        "--gpu-type", metavar="TYPE", help="with --dry-run: plan for N GPUs of this type (8)"
    )
    parser.add_argument(
        "--run-folder", type=Path, metavar="DIR", help="logs, sockets, plan.json; default a new one"
    )
    parser.add_argument(
        "--allow-uncertified",
        action="store_true",
        help="serve a certificate's policy though its fingerprint differs",
    )
    parser.add_argument(
        "--allow-unprofitable",
        action="store_true",
        help="serve a cascade that does not pay by its certificate",
    )
    parser.add_argument(
        "--acknowledge-alarm", metavar="NAME", help="lift the watch's alarm; NAME is who decided so"
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="warning"
    )
    return parser


def _status_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hs-launch status", description="Show launches and their engines; exits 0 when ready."
    )
    parser.add_argument(
        "--run-folder", type=Path, metavar="DIR", help="the launch; default all that run"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def _stop_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hs-launch stop", description="Ask a launcher to stop and wait until it is gone."
    )
    parser.add_argument(
        "--run-folder", type=Path, metavar="DIR", help="the launch; default the one that runs"
    )
    parser.add_argument(
        "--timeout",
        type=Seconds(longest=_LONGEST_S, is_zero_allowed=True),
        default=_STOP_TIMEOUT_S,
        metavar="S",
        help="seconds to wait; default %(default)g",
    )
    return parser
