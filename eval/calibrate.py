"""`hs-calibrate`: from labelled answers to a certified policy.

`hs-calibrate prompts FILE` asks the tiers of a running cascade first; `hs-calibrate records FILE`
takes answers that were recorded. This file alone prints: results to stdout, errors to stderr.
"""

import argparse
import json
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

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
from eval.reports.calibration_result import Report, report_of
from hybridserve_llm.calibration.certify import Promise, calibrate, calibrate_knee
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError, HybridServeError

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


def _calibrated(data: CalibrationData, splits: Splits, options: argparse.Namespace) -> Report:
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
    return report_of(
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


def _print_report(report: Report, data: CalibrationData) -> None:
    """The result in words and two tables, at 80 columns."""
    console = Console(width=_TABLE_WIDTH, highlight=False, markup=False)
    console.print(report.headline(), soft_wrap=False)
    tiers = Table(
        box=None, header_style="bold", title="on the test questions", title_justify="left"
    )
    for heading in ("tier", "cost", "accuracy", "answers", "asked"):
        tiers.add_column(heading, justify="left" if heading == "tier" else "right")
    for tier in report.tiers:
        tiers.add_row(
            tier.name,
            f"{tier.cost:.4g}",
            f"{tier.accuracy:.3f}",
            f"{tier.answered:.1%}",
            f"{tier.asked:.1%}",
        )
    console.print(tiers)
    chains = Table(
        box=None,
        header_style="bold",
        title="chains, as judged on the fit questions",
        title_justify="left",
    )
    chains.add_column("chain")
    chains.add_column("expected cost", justify="right")
    chains.add_column("of the last tier alone", justify="right")
    for chain in report.chains[:6]:
        gate = "gate > " if chain.has_gate else ""
        name = gate + " > ".join(chain.tiers)
        chains.add_row(name, f"{chain.mean_cost:.4g}", f"{chain.cost_share:.1%}")
    console.print(chains)
    for line in (*report.remarks(), *data.remarks()):
        console.print(line, soft_wrap=False)
