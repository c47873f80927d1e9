"""Run `hs-eval report`: write measured runs as one HTML file, and as Markdown."""

import argparse
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from eval.commands.command import Command, options_from
from eval.commands.option_values import natural
from eval.recorded.measured_run import RunHeader, read_run
from eval.recorded.run_outcomes import PooledRun, pooled
from eval.reports.provenance import provenance_of
from eval.rivals.given_policies import certified_policy
from hybridserve_llm.config.certificate import Certificate, load_certificate
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.reporting.blocks import Paragraph, print_blocks
from hybridserve_llm.reporting.page import html_page, markdown_page, replace_file

if TYPE_CHECKING:
    from eval.reports.run_figures import RunFigures

_TITLE = "Cascade report"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportOptions:
    """Hold the options of `hs-eval report`.

    Attributes:
        runs: Files of `hs-eval measure`.
        certificate: The cascade's certificate, to replay and judge it; None without.
        html: The page to write; `markdown` is the same without drawings.
        seed: Seed of intervals and halves.
    """

    runs: list[Path]
    certificate: Path | None
    html: Path | None
    markdown: Path | None
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunReport:
    """Hold what was counted, in words and as JSON, and the files that hold it."""

    figures: "RunFigures"
    headline: str
    written: tuple[Path, ...]

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object; absent is null."""
        return {
            "headline": self.headline,
            "written": [str(path) for path in self.written],
            **self.figures.as_json(),
        }


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "runs", type=Path, nargs="+", metavar="RUN", help="files of hs-eval measure"
    )
    command.add_argument(
        "--certificate", type=Path, metavar="JSON", help="the cascade's, to replay and judge it"
    )
    command.add_argument("--html", type=Path, metavar="FILE", help="the page to write")
    command.add_argument("--markdown", type=Path, metavar="FILE", help="the same without drawings")
    command.add_argument("--seed", type=natural, default=0, help="of intervals and halves")


def _run(options: ReportOptions, console: Console) -> RunReport:
    with console.status("counting, fitting and drawing"):
        return _run_report(options)


def _run_report(options: ReportOptions) -> RunReport:
    """Make the report that the options ask for, and write its files.

    Raises:
        ConfigError: A file cannot be used or written, the runs are of different cascades, or the
            certificate is not of this one; or matplotlib is not installed.
        CannotBeDone: Neither joules nor CPU-seconds were measured.
    """
    try:  # matplotlib is an extra
        from eval.reports.run_figures import run_figures
        from eval.reports.run_report import headline, run_sections
    except ModuleNotFoundError as exc:
        raise ConfigError(f"report needs the extra 'calibrate': no module {exc.name}") from exc
    run = pooled([read_run(path) for path in options.runs])
    certificate = _own_certificate(options.certificate, run)
    served, policy = None, None
    if options.certificate is not None and certificate is not None:
        served = certified_policy(options.certificate, certificate, strict=False)
        policy = certificate.policy
    figures = run_figures(run, served, seed=options.seed)
    provenance = provenance_of("hs-eval", run.header.asked.labels)
    parts = run_sections(figures, run.headers, provenance, policy)
    data = {"figures": figures.as_json(), "provenance": dict(provenance.rows())}
    texts = {
        options.html: html_page(_TITLE, parts, data),
        options.markdown: markdown_page(_TITLE, parts),
    }
    written = tuple(path for path in texts if path is not None)
    for path in written:
        _write(path, texts[path])
    return RunReport(figures=figures, headline=headline(figures), written=written)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc}; name another file") from exc


def print_run_report(report: RunReport, console: Console) -> None:
    """Print the headline, and where the rest is."""
    written = [Paragraph(f"Written: {path}", keeps_line=True) for path in report.written]
    print_blocks([Paragraph(report.headline), *written], console)


def _own_certificate(path: Path | None, run: PooledRun) -> Certificate | None:
    """Return the certificate of the cascade that was measured; None where none was given.

    Raises:
        ConfigError: It is not the certificate of that cascade.
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
    return certificate


def _check_is_its_certificate(path: Path, certificate: Certificate, header: RunHeader) -> None:
    """Check that the run's cascade had this certificate.

    All certificates of one cascade have the same fingerprint; the run's header holds more.
    """
    of_run = header.certificate
    if of_run is None:
        raise ConfigError(
            f"{path}: the cascade of the run had no certificate; leave --certificate out here, "
            "hs-eval replay shows what the certificate would have decided"
        )
    for key in ("created", "data_sha256"):
        ours = getattr(certificate, key)
        if of_run.get(key) != ours:
            raise ConfigError(
                f"{path} is not the certificate that the run's cascade had: {key} is {ours}, "
                f"and that of the run is {of_run.get(key)}"
            )
    if header.state == "last_tier_only":
        raise ConfigError(
            f"{path}: the cascade of the run sent everything to its last tier, and decided "
            "nothing by its certificate; leave --certificate out"
        )


COMMAND = Command(
    description="Write what measured runs of one cascade came to: accuracy, cost, decisions, "
    "latency and confidence, next to other ways to answer the same questions.",
    add_options=_add_options,
    read=partial(options_from, ReportOptions),
    run=_run,
    show=print_run_report,
)
