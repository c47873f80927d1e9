"""`hs-eval`: accuracy and energy, offline, one subcommand a study.

This file alone prints: results to stdout, errors to stderr. A subcommand adds its options to the
parser and names the function that runs it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from eval.planner_fit import planner_fit, print_planner_fit
from eval.records_command import add_records_options, records_report
from eval.records_report import print_records_report
from hybridserve_llm.errors import ConfigError, HybridServeError

_EXIT_CONFIG, _EXIT_CANNOT, _EXIT_INTERRUPTED = 2, 3, 130
_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hs-eval`.

    Exit status 0 done, 2 wrong usage or file, 3 cannot be done, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    run: Callable[[argparse.Namespace], None] = options.run
    try:
        run(options)
    except HybridServeError as exc:
        print(f"hs-eval: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return _EXIT_CONFIG if isinstance(exc, ConfigError) else _EXIT_CANNOT
    except KeyboardInterrupt:
        print("hs-eval: stopped", file=sys.stderr)
        return _EXIT_INTERRUPTED
    return 0


def _parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="hs-eval", description="Accuracy and energy of cascades, offline."
    )
    commands = top.add_subparsers(dest="command", required=True)
    _add_planner_fit(commands.add_parser("planner-fit", help="fit and judge the planner's model"))
    records = commands.add_parser("records", help="recorded answers with measured joules")
    add_records_options(records)
    records.set_defaults(run=_records)
    return top


def _add_planner_fit(command: argparse.ArgumentParser) -> None:
    command.description = (
        "Fit the model of step time and power to measured runs, and say how far it is off on "
        "models it was not fitted to, before and after two measured points."
    )
    command.add_argument(
        "--measurements", type=Path, required=True, metavar="CSV", help="one row a run"
    )
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")
    command.set_defaults(run=_planner_fit)


def _planner_fit(options: argparse.Namespace) -> None:
    with Console(stderr=True).status("leaving every model out once"):
        result = planner_fit(options.measurements)
    if options.json:
        print(json.dumps(result.as_json()))
        return
    print_planner_fit(result, Console(width=_TABLE_WIDTH, highlight=False, markup=False))


def _records(options: argparse.Namespace) -> None:
    with Console(stderr=True).status("fitting, certifying and replaying"):
        report = records_report(options)
    if options.json:
        print(json.dumps(report.as_json()))
        return
    print_records_report(report, Console(width=_TABLE_WIDTH, highlight=False, markup=False))


if __name__ == "__main__":
    sys.exit(main())
