"""Run `hs-calibrate records`: calibrate from answers that were recorded."""

import argparse
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from eval.commands.calibration import CalibrationResult, calibrated, print_calibration
from eval.commands.calibration_options import CalibrationOptions, add_calibration_options
from eval.commands.command import Command, options_from


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrateRecordsOptions:
    """Hold the options of `hs-calibrate records`; `file` has the answers."""

    file: Path
    calibration: CalibrationOptions


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file",
        type=Path,
        help="CSV, one row per question and model, or the attempts that `prompts` recorded",
    )
    add_calibration_options(command)


def _read(values: argparse.Namespace) -> CalibrateRecordsOptions:
    return CalibrateRecordsOptions(
        file=values.file, calibration=options_from(CalibrationOptions, values)
    )


def _run(options: CalibrateRecordsOptions, _: Console) -> CalibrationResult:
    options.calibration.check()
    return calibrated(options.file, options.calibration)


COMMAND = Command(
    description="Calibrate from recorded answers of all tiers.",
    add_options=_add_options,
    read=_read,
    run=_run,
    show=print_calibration,
    status=lambda result: result.status,
    json_help="one JSON object on stdout",
)
