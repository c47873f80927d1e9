"""Calibrate from recorded answers, and write the files: the end of both commands."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.commands.calibration_files import write_calibration_files
from eval.commands.calibration_options import CalibrationOptions
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
from hybridserve_llm.program import ExitStatus
from hybridserve_llm.reporting.blocks import print_blocks


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationResult:
    """Hold the report of a calibration, and the data that it was made from."""

    report: CalibrationReport
    data: CalibrationData

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        return {**self.report.as_json(), **self.data.as_json()}

    @property
    def status(self) -> ExitStatus:
        """Return the exit status: 3 where nothing could be certified."""
        return ExitStatus.DONE if self.report.certified else ExitStatus.CANNOT_BE_DONE


def print_calibration(result: CalibrationResult, console: Console) -> None:
    """Print the result in words and two tables, at 80 columns."""
    print_blocks(calibration_in_terminal(result.report, result.data.remarks()), console)


def calibrated(path: Path, options: CalibrationOptions) -> CalibrationResult:
    """Calibrate from the answers in a file, and write the files that were asked for.

    Raises:
        ConfigError: The file cannot be used, an option does not fit it, or a file cannot be
            written.
        CannotBeDone: There are too few questions.
    """
    data = read_calibration_data(path, options.chain, dict(options.cost))
    splits = _splits(options, data.outcomes)
    report = _report(data, splits, options)
    write_calibration_files(options, data, splits, report)
    return CalibrationResult(report=report, data=data)


def _report(
    data: CalibrationData, splits: Splits, options: CalibrationOptions
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


def _splits(options: CalibrationOptions, outcomes: Outcomes) -> Splits:
    if not options.bootstrap:
        return disjoint_splits(outcomes, options.n_fit, options.n_certify, options.seed)
    return bootstrap_splits(
        outcomes,
        options.n_fit or DEFAULT_N_FIT,
        options.n_certify or DEFAULT_N_CERTIFY,
        options.seed,
    )
