"""Writes the calibration report: one HTML file that needs nothing else, and its Markdown twin."""

import html
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

from eval.recorded.splits import Splits
from eval.reports.blocks import Section
from eval.reports.calibration_figures import ReportData, report_data
from eval.reports.calibration_result import Report
from eval.reports.calibration_text import sections
from eval.reports.provenance import Provenance
from hybridserve_llm.errors import ConfigError

HTML_NAME, MARKDOWN_NAME = "calibration-report.html", "calibration-report.md"
_TITLE = "Calibration report"
_PAGE = Template(
    """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
body { max-width: 860px; margin: 2rem auto; padding: 0 1rem; background: #fff; color: #111;
  font: 16px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 1rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .6rem; border-bottom: 1px solid #bbb; }
.headline { font-size: 1.1rem; padding: .8rem 1rem; border-left: 5px solid #0072b2;
  background: #eef5fa; }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .94rem; min-width: 28rem; }
caption { text-align: left; font-weight: 600; padding-bottom: .3rem; }
th, td { padding: .28rem .8rem; border-bottom: 1px solid #ddd; text-align: right;
  vertical-align: top; font-variant-numeric: tabular-nums; }
th[scope=row], th:first-child, .words td, .words th { text-align: left; }
th[scope=row] { font-weight: 400; min-width: 8rem; }
thead th { border-bottom: 2px solid #666; }
td { white-space: nowrap; }
.words td { white-space: normal; overflow-wrap: anywhere; }
figure { margin: 1.4rem 0; break-inside: avoid; }
figure svg { display: block; width: 100%; height: auto; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
figcaption { font-size: .94rem; color: #333; }
@media print {
  html { font-size: 12px; }
  body { font-size: 1rem; margin: 0; max-width: none; }
  h2 { break-after: avoid; }
  figure svg { width: 80%; }
  .table, tr, .headline { break-inside: avoid; }
  .headline { background: none; }
}
</style>
</head>
<body>
<main>
<h1>$title</h1>
$sections
</main>
<script type="application/json" id="report-data">
$data
</script>
</body>
</html>
"""
)


def write_report(
    folder: Path,
    report: Report,
    *,
    splits: Splits,
    provenance: Provenance,
    remarks: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Writes the report of `report`, which came from `splits`; gives the HTML and Markdown paths.

    `remarks` are sentences on the data that a reader has to know first. The folder is made where it
    is missing. Each file is there whole or not at all.

    Raises:
        ConfigError: The folder cannot be made or written to.
    """
    page, text = folder / HTML_NAME, folder / MARKDOWN_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        data = report_data(report, splits)
        parts = sections(report, data, provenance, remarks)
        _replace(page, html_page(parts, as_json(report, data, provenance)))
        _replace(text, markdown_page(parts))
    except OSError as exc:
        raise ConfigError(
            f"cannot write the report to {folder}: {exc}; name another folder"
        ) from exc
    return page, text


def as_json(report: Report, data: ReportData, provenance: Provenance) -> dict[str, Any]:
    """Every number of the report, drawn ones included."""
    return {
        "report": report.as_json(),
        "figures": data.as_json(),
        "provenance": dict(provenance.rows()),
    }


def html_page(parts: tuple[Section, ...], data: dict[str, Any], *, title: str = _TITLE) -> str:
    """The page; `data` stands in it as JSON that no script reads."""
    return _PAGE.substitute(
        title=html.escape(title),
        sections="\n".join(part.html() for part in parts),
        data=json.dumps(data, allow_nan=False).replace("<", "\\u003c"),
    )


def markdown_page(parts: tuple[Section, ...], *, title: str = _TITLE) -> str:
    """The same without drawings."""
    return "\n\n".join([f"# {title}", *(part.markdown() for part in parts)]) + "\n"


def replace_file(path: Path, text: str) -> None:
    """Puts a whole new file in the place of `path`, so that no reader meets half of one.

    Raises:
        ConfigError: It cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _replace(path, text)
    except OSError as exc:
        raise ConfigError(f"cannot write {path}: {exc}; name another file") from exc


def _replace(path: Path, text: str) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError:
        Path(name).unlink(missing_ok=True)
        raise
