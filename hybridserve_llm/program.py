"""Run a program: turn what it raises into one line of error and an exit status.

    0     done
    2     wrong usage, or a file or an option holds what is not allowed
    3     the wish is clear and cannot be met
    130   stopped with Ctrl-C

Only the standard library and `errors.py` are imported here, so that `--help` and `--version` are
fast. `errors.py` says which error is which.
"""

import argparse
import sys
from collections.abc import Callable
from enum import IntEnum

from hybridserve_llm.errors import ConfigError, HybridServeError, ServingError
from hybridserve_llm.version import __version__


class ExitStatus(IntEnum):
    """List the exit statuses of all programs."""

    DONE = 0
    WRONG_USAGE = 2
    CANNOT_BE_DONE = 3
    INTERRUPTED = 130


def run_program(
    name: str, run: Callable[[], ExitStatus | None], *, stopped: str = "stopped"
) -> ExitStatus:
    """Run `run` and return the exit status of the program.

    An error of this project becomes one line on stderr, `NAME: error: ...`; every other one is a
    fault of ours and passes through. After Ctrl-C the line is `NAME: ` and the text `stopped`.
    """
    try:
        status = run()
    except HybridServeError as exc:
        message = exc.with_detail if isinstance(exc, ServingError) else str(exc)
        print(f"{name}: error: {' '.join(message.split())}", file=sys.stderr)
        is_wrong_usage = isinstance(exc, ConfigError)
        return ExitStatus.WRONG_USAGE if is_wrong_usage else ExitStatus.CANNOT_BE_DONE
    except KeyboardInterrupt:
        print(f"{name}: {stopped}", file=sys.stderr)
        return ExitStatus.INTERRUPTED
    return ExitStatus.DONE if status is None else status


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Add `--version`, which prints the program's name and version and ends it."""
    parser.add_argument(
        "--version",
        action="version",
        version=f"%(prog)s {__version__}",
        help="print the version and exit",
    )
