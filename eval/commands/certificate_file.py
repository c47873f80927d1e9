"""Writes the certificate of a calibration to disk, whole or not at all."""

import os
from pathlib import Path

from eval.reports.calibration_result import Report
from hybridserve_llm.calibration.artefact import Origin, certificate_of
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError


def write_certificate(path: Path, report: Report, certify: Outcomes, origin: Origin) -> None:
    """Writes the certificate of `report`; its cascade's cost is that of the test questions.

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
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_text(certificate.to_json(), encoding="utf-8")
        os.replace(partial, path)
    except OSError as exc:
        raise ConfigError(f"cannot write certificate {path}: {exc.strerror}") from exc
