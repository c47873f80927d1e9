"""The files that `hs-calibrate` writes: who answers what, the certificate, the report."""

import argparse
import csv
import platform
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from eval.commands.certificate_file import write_certificate
from eval.recorded.calibration_data import CalibrationData
from eval.recorded.splits import Splits
from eval.reports.calibration_result import Report
from eval.reports.provenance import Provenance, command_line, commit_of_project, this_machine
from hybridserve_llm.calibration.artefact import Origin
from hybridserve_llm.cascade.policies import sampling_of
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.values.requests import Endpoint


def write_files(
    options: argparse.Namespace, data: CalibrationData, splits: Splits, report: Report
) -> None:
    """Every file that was asked for.

    Raises:
        ConfigError: A file cannot be written, or matplotlib is not installed for the report.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if options.decisions is not None:
        _write_decisions(options.decisions, report)
    if options.certificate is not None:
        origin = replace(
            origin_of(data, preset=options.preset, created=now),
            estimand="question_of_group" if report.is_of_groups else "question",
        )
        write_certificate(options.certificate, report, splits.certify, origin)
    if options.report is not None:
        _write_report(options.report, data, splits, report, now=now)


def origin_of(data: CalibrationData, *, preset: str, created: str) -> Origin:
    """Where the data came from; records of CSV files come from no cascade that is known."""
    header = data.header
    return Origin(
        created=created,
        preset="energy" if preset == "energy" else "accuracy",
        labels=data.labels,
        data_sha256=data.data_sha256,
        endpoints=header.endpoints if header else (Endpoint.CHAT.value,),
        sampling=sampling_of(header.sampling) if header else {},
        fingerprint=header.fingerprint if header else None,
        cost_source=data.cost_source,
    )


def _write_decisions(path: Path, report: Report) -> None:
    """One row per question of the reported set."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "query_id", "model"))
            writer.writerows((*question, model) for question, model in report.decisions)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc}") from exc


def _write_report(
    folder: Path, data: CalibrationData, splits: Splits, report: Report, *, now: str
) -> None:
    try:
        from eval.reports.page import write_report
    except ModuleNotFoundError as exc:
        raise ConfigError(f"--report needs the extra 'calibrate': no module {exc.name}") from exc
    write_report(
        folder,
        report,
        splits=splits,
        provenance=_provenance(data, now),
        remarks=data.remarks(),
    )


def _provenance(data: CalibrationData, now: str) -> Provenance:
    by_agreement = "agreement with the last tier; nobody says what is right"
    return Provenance(
        command=command_line("hs-calibrate"),
        project_version=version("hybridserve-llm"),
        commit=commit_of_project(),
        python_version=platform.python_version(),
        numpy_version=version("numpy"),
        sklearn_version=version("scikit-learn"),
        date=now,
        hardware=this_machine(),
        label_source=by_agreement if data.labels == "agreement" else "reference answers",
    )
