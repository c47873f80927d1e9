"""`hs-eval report`: measured runs as one HTML file that needs nothing else, and as Markdown."""

import argparse
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from eval.commands.option_values import natural
from eval.commands.replay import certified_policy
from eval.recorded.measured_run import RunHeader, read_run
from eval.recorded.run_outcomes import PooledRun, pooled
from eval.reports.provenance import Provenance, command_line, commit_of_project, this_machine
from eval.rivals.policy_replay import ServedPolicy
from hybridserve_llm.config.certificate import Certificate, load_certificate
from hybridserve_llm.errors import ConfigError

if TYPE_CHECKING:
    from eval.reports.run_figures import RunFigures

_TITLE = "Cascade report"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """What was counted, in words and as JSON, and the files that hold it."""

    figures: "RunFigures"
    headline: str
    written: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """One JSON object; absent is null."""
        return {
            "headline": self.headline,
            "written": [str(path) for path in self.written],
            **self.figures.as_json(),
        }


def add_report_options(command: argparse.ArgumentParser) -> None:
    """The command line of `hs-eval report`."""
    command.description = (
        "Write what measured runs of one cascade came to: accuracy, cost, decisions, latency and "
        "confidence, beside other ways to answer the same questions."
    )
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="files of hs-eval measure"
    )
    command.add_argument(
        "--certificate", type=Path, metavar="JSON", help="the cascade's, to replay and judge it"
    )
    command.add_argument("--html", type=Path, metavar="FILE", help="the page to write")
    command.add_argument("--markdown", type=Path, metavar="FILE", help="the same without drawings")
    command.add_argument("--seed", type=natural, default=0, help="of intervals and halves")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def run_report(options: argparse.Namespace) -> RunReport:
    """The report that the options ask for; writes its files.

    Raises:
        ConfigError: A file cannot be used or written, the runs are of different cascades, or the
            certificate is not of this one; or matplotlib is not installed.
        CannotBeDone: Neither joules nor CPU-seconds were measured.
    """
    try:  # matplotlib is an extra
        from eval.reports.page import html_page, markdown_page, replace_file
        from eval.reports.run_figures import run_figures
        from eval.reports.run_text import headline, sections
    except ModuleNotFoundError as exc:
        raise ConfigError(f"report needs the extra 'calibrate': no module {exc.name}") from exc
    run = pooled([read_run(path) for path in options.runs])
    figures = run_figures(run, _served(options.certificate, run), seed=options.seed)
    provenance = _provenance(run.header)
    policy = load_certificate(options.certificate).policy if options.certificate else None
    parts = sections(figures, run.headers, provenance, policy)
    data = {"figures": figures.as_json(), "provenance": dict(provenance.rows())}
    texts = {
        options.html: html_page(parts, data, title=_TITLE),
        options.markdown: markdown_page(parts, title=_TITLE),
    }
    written = tuple(path for path in texts if path is not None)
    for path in written:
        replace_file(path, texts[path])
    return RunReport(figures=figures, headline=headline(figures), written=written)


def print_run_report(report: RunReport, console: Console) -> None:
    """The headline, and where the rest is."""
    console.print(report.headline)
    for path in report.written:
        console.print(f"Written: {path}", soft_wrap=True)


def _served(path: Path | None, run: PooledRun) -> ServedPolicy | None:
    """The certificate's policy; None where none was given.

    Raises:
        ConfigError: It is not the certificate of the cascade that was measured.
    """
    if path is None:
        return None
    certificate = load_certificate(path)
    fingerprint = run.header.asked.fingerprint or {}
    own = certificate.fingerprint.hash if certificate.fingerprint else None
    if own is not None and fingerprint.get("hash") not in (None, own):
        raise ConfigError(
            f"{path} is for the cascade {own}, and the run is of {fingerprint.get('hash')}"
        )
    _check_is_its_certificate(path, certificate, run.header)
    return certified_policy(path, certificate, strict=False)


def _check_is_its_certificate(path: Path, certificate: Certificate, header: RunHeader) -> None:
    """A fingerprint does not tell certificates of one cascade apart; what the run told does."""
    told = header.certificate
    if told is None:
        raise ConfigError(
            f"{path}: the cascade of the run had no certificate; leave --certificate out here, "
            "hs-eval replay shows what the certificate would have decided"
        )
    for key in ("created", "data_sha256"):
        ours = getattr(certificate, key)
        if told.get(key) != ours:
            raise ConfigError(
                f"{path} is not the certificate that the run's cascade had: {key} is {ours}, "
                f"and the run tells {told.get(key)}"
            )
    if header.state == "last_tier_only":
        raise ConfigError(
            f"{path}: the cascade of the run sent everything to its last tier, and decided "
            "nothing by its certificate; leave --certificate out"
        )


def _provenance(header: RunHeader) -> Provenance:
    by_agreement = "agreement with the last tier; nobody says what is right"
    labels = header.asked.labels
    return Provenance(
        command=command_line("hs-eval"),
        project_version=version("hybridserve-llm"),
        commit=commit_of_project(),
        python_version=platform.python_version(),
        numpy_version=version("numpy"),
        sklearn_version=version("scikit-learn"),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware=this_machine(),
        label_source=by_agreement if labels == "agreement" else "reference answers",
    )
