"""`hs-calibrate`: from labelled answers to a certified policy.

`hs-calibrate prompts FILE` asks the tiers of a running cascade first; `hs-calibrate records FILE`
takes answers that were recorded. This file alone prints: results to stdout, errors to stderr.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console

from eval.commands.calibrate_options import check_options, parser
from eval.commands.calibrate_prompts import how_to_go_on, record_attempts
from eval.commands.calibration_files import write_files
from eval.recorded.calibration_data import CalibrationData, read_calibration_data
from eval.recorded.splits import (
    DEFAULT_N_CERTIFY,
    DEFAULT_N_FIT,
    Splits,
    bootstrap_splits,
    disjoint_splits,
)
from eval.reports.calibration_result import CalibrationReport, calibration_report
from eval.reports.calibration_tables import calibration_in_terminal
from hybridserve_llm.calibration.certify import Promise, calibrate, calibrate_knee
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError, HybridServeError
from hybridserve_llm.reporting.blocks import print_blocks

_EXIT_CONFIG, _EXIT_CANNOT, _EXIT_INTERRUPTED = 2, 3, 130
_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hs-calibrate`.

    Exit status 0 certified, 2 wrong usage, 3 nothing certifiable or the cascade does not answer,
    130 interrupted.
    """
    options = parser().parse_args(arguments)
    try:
        check_options(options)
        path = options.file
        if options.command == "prompts":
            path = record_attempts(options, console=Console(stderr=True))
        data = read_calibration_data(path, options.chain, dict(options.cost))
        splits = _splits(options, data.outcomes)
        report = _calibrated(data, splits, options)
        write_files(options, data, splits, report)
    except HybridServeError as exc:
        print(f"hs-calibrate: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return _EXIT_CONFIG if isinstance(exc, ConfigError) else _EXIT_CANNOT
    except KeyboardInterrupt:
        hint = f"; {how_to_go_on(options.attempts)}" if options.command == "prompts" else ""
        print(f"hs-calibrate: stopped{hint}", file=sys.stderr)
        return _EXIT_INTERRUPTED
    if options.json:
        print(json.dumps({**report.as_json(), **data.as_json()}))
    else:
        _print_report(report, data)
    return 0 if report.certified else _EXIT_CANNOT


def _calibrated(
    data: CalibrationData, splits: Splits, options: argparse.Namespace
) -> CalibrationReport:
    fit, certify, seed = splits.fit, splits.certify, options.seed
    if options.preset == "energy":
        calibration = calibrate_knee(
            fit, certify, loss=options.loss, delta=options.delta, seed=seed
        )
    else:
        promise = Promise(loss=options.loss, epsilon=options.epsilon, delta=options.delta)
        calibration = calibrate(
            fit, certify, promise, seed=seed, keeps_all_tiers=options.keep_all_tiers
        )
    return calibration_report(
        calibration,
        splits,
        cost_source=data.cost_source,
        n_incomplete=data.n_unanswered,
        seed=options.seed,
    )


def _splits(options: argparse.Namespace, outcomes: Outcomes) -> Splits:
    if not options.bootstrap:
        return disjoint_splits(outcomes, options.n_fit, options.n_certify, options.seed)
    return bootstrap_splits(
        outcomes,
        options.n_fit or DEFAULT_N_FIT,
        options.n_certify or DEFAULT_N_CERTIFY,
        options.seed,
    )


def _print_report(report: CalibrationReport, data: CalibrationData) -> None:
    """Print the result in words and two tables, at 80 columns."""
    console = Console(width=_TABLE_WIDTH, highlight=False, markup=False)
    print_blocks(calibration_in_terminal(report, data.remarks()), console)
