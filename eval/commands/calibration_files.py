"""Write the files of `hs-calibrate`: who answers what, the certificate, the report."""

import csv
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from eval.commands.calibration_options import CalibrationOptions
from eval.recorded.calibration_data import CalibrationData
from eval.recorded.splits import Splits
from eval.reports.calibration_result import CalibrationReport
from eval.reports.provenance import provenance_of
from hybridserve_llm.calibration.artefact import Origin, certificate_of
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.cascade.coverage import sampling_of
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.reporting.page import replace_file
from hybridserve_llm.values.requests import Endpoint


def write_calibration_files(
    options: CalibrationOptions, data: CalibrationData, splits: Splits, report: CalibrationReport
) -> None:
    """Write every file that the options ask for.

    Raises:
        ConfigError: A file cannot be written, or matplotlib is not installed for the report.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    if options.decisions is not None:
        _write_decisions(options.decisions, report)
    if options.certificate is not None:
        origin = replace(
            _origin(data, options, created=now),
            estimand="question_of_group" if report.is_of_groups else "question",
        )
        _write_certificate(options.certificate, report, splits.certify, origin)
    if options.report is not None:
        _write_report(options.report, data, splits, report)


def _write_certificate(
    path: Path, report: CalibrationReport, certify: Outcomes, origin: Origin
) -> None:
    """Write the certificate of `report`; its cascade's cost is that of the test questions.

    Raises:
        ConfigError: The file cannot be written.
    """
    last_cost = float(certify.costs[certify.last])
    certificate = certificate_of(
        report.calibration,
        certify,
        n_fit=report.n_fit,
        mean_cost=last_cost / report.cost_ratio,
        origin=origin,
    )
    try:
        replace_file(path, certificate.to_json())
    except OSError as exc:
        raise ConfigError(f"cannot write certificate {path}: {exc.strerror}") from exc


def _origin(data: CalibrationData, options: CalibrationOptions, *, created: str) -> Origin:
    """Return where the data came from; records of CSV files come from no cascade that is known."""
    header = data.header
    return Origin(
        created=created,
        preset=options.preset,
        labels=data.labels,
        data_sha256=data.data_sha256,
        endpoints=header.endpoints if header else (Endpoint.CHAT.value,),
        sampling=sampling_of(header.sampling) if header else {},
        demands=header.demands if header else ((),),
        fingerprint=header.fingerprint if header else None,
        cost_source=data.cost_source,
    )


def _write_decisions(path: Path, report: CalibrationReport) -> None:
    """Write one row per question of the reported set."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("split", "query_id", "model"))
            writer.writerows((*question, model) for question, model in report.decisions)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc}") from exc


def _write_report(
    folder: Path, data: CalibrationData, splits: Splits, report: CalibrationReport
) -> None:
    try:  # matplotlib is an extra
        from eval.reports.calibration_report import write_calibration_report
    except ModuleNotFoundError as exc:
        raise ConfigError(f"--report needs the extra 'calibrate': no module {exc.name}") from exc
    write_calibration_report(
        folder,
        report,
        splits=splits,
        provenance=provenance_of("hs-calibrate", data.labels),
        remarks=data.remarks(),
    )
