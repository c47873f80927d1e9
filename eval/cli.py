"""`hs-eval`: accuracy and energy, offline, one subcommand a study.

This file alone prints: results to stdout, errors to stderr. A subcommand adds its options to the
parser and names the function that runs it.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from rich.console import Console

from eval.commands.collect import add_collect_options, collected, print_collected
from eval.commands.measure import add_measure_options, measured, print_measured
from eval.commands.records import add_records_options, records_report
from eval.commands.replay import add_replay_options, replay_report
from eval.commands.report import add_report_options, print_run_report, run_report
from eval.commands.simulate import add_simulate, simulate
from eval.commands.simulate_tables import print_simulation
from eval.commands.sweep import add_sweep_options, print_sweep, sweep
from eval.reports.records_report import print_records_report
from eval.reports.replay_report import print_replay_report
from eval.studies.check_simulator import add_check_simulator, check_simulator
from eval.studies.check_simulator_tables import print_check
from eval.studies.planner_fit import planner_fit, print_planner_fit
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
    for name, words, add_options, run in (
        ("collect", "ask every tier of a running cascade", add_collect_options, _collect),
        ("measure", "accuracy and cost of a running cascade", add_measure_options, _measure),
        ("records", "recorded answers with measured joules", add_records_options, _records),
        ("replay", "recorded answers through the server's policy", add_replay_options, _replay),
        ("report", "measured runs as HTML and Markdown", add_report_options, _report),
        ("sweep", "recorded answers at many thresholds", add_sweep_options, _sweep),
        ("simulate", "a planned cascade under a trace", add_simulate, _simulate),
        ("check-simulator", "how far the simulator is off", add_check_simulator, _check_simulator),
    ):
        command = commands.add_parser(name, help=words)
        add_options(command)
        command.set_defaults(run=run)
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
    _shown(result, print_planner_fit, options)


def _collect(options: argparse.Namespace) -> None:
    _shown(collected(options, Console(stderr=True)), print_collected, options)


def _measure(options: argparse.Namespace) -> None:
    _shown(measured(options, Console(stderr=True)), print_measured, options)


def _records(options: argparse.Namespace) -> None:
    with Console(stderr=True).status("fitting, certifying and replaying") as status:
        report = records_report(options, status.update)
    _shown(report, print_records_report, options)


def _replay(options: argparse.Namespace) -> None:
    _shown(replay_report(options), print_replay_report, options)


def _report(options: argparse.Namespace) -> None:
    with Console(stderr=True).status("counting, fitting and drawing"):
        found = run_report(options)
    _shown(found, print_run_report, options)


def _sweep(options: argparse.Namespace) -> None:
    with Console(stderr=True).status("replaying"):
        found = sweep(options)
    _shown(found, print_sweep, options)


class _Result(Protocol):
    """What a study came to."""

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""


ResultT = TypeVar("ResultT", bound=_Result)


def _shown(
    result: ResultT, show: Callable[[ResultT, Console], None], options: argparse.Namespace
) -> None:
    if options.json:
        print(json.dumps(result.as_json()))
    else:
        show(result, Console(width=_TABLE_WIDTH, highlight=False, markup=False))


def _simulate(options: argparse.Namespace) -> None:
    with Console(stderr=True).status("simulating"):
        result = simulate(options)
    for name, cpu_s in result.cpu_s.items():
        rate = len(result.requests) / cpu_s
        print(f"{name}: {cpu_s:.1f} CPU-s, {rate:.0f} requests a CPU-second", file=sys.stderr)
    _shown(result, print_simulation, options)


def _check_simulator(options: argparse.Namespace) -> None:
    with Console(stderr=True).status("beginning") as status:
        result = check_simulator(options, status.update)
    _shown(result, print_check, options)


if __name__ == "__main__":
    sys.exit(main())
