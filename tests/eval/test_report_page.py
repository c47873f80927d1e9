"""The written report: valid structure, nothing from outside, and honest words."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.recorded.records_csv import outcomes_of, read_records
from eval.recorded.splits import Splits, disjoint_splits
from eval.reports.calibration_drawings import risk
from eval.reports.calibration_figures import ReportData, report_data
from eval.reports.calibration_result import Report, report_of
from eval.reports.calibration_tables import beside_last, ways_of_answering
from eval.reports.calibration_text import counted_on, promised, verdict
from eval.reports.page import write_report
from eval.reports.provenance import Provenance
from hybridserve_llm.calibration.certify import Promise, calibrate
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.errors import ConfigError

CHAIN, COSTS = ("small-1b", "mid-8b", "big-70b"), (1.0, 8.0, 70.0)
HOSTILE = '_a|$b</script><script>"x"</script>-->'
PROVENANCE = Provenance(
    command="hs-calibrate records a.csv --cost 'x=1'",
    project_version="0.1.0",
    commit=None,
    python_version="3.11.9",
    numpy_version="2.3.5",
    sklearn_version="1.6.0",
    date="2026-01-02",
    hardware="2 cores",
    label_source="the column correct",
)


def reported(splits: Splits) -> Report:
    promise = Promise(loss="net", epsilon=0.05, delta=0.1)
    calibration = calibrate(splits.fit, splits.certify, promise)
    return report_of(calibration, splits, cost_source="as given", n_incomplete=3, seed=0)


@pytest.fixture(scope="module")
def splits(cascade_csv: Path) -> Splits:
    return disjoint_splits(outcomes_of(read_records(cascade_csv), CHAIN, COSTS)[0], 300, 500, 0)


@pytest.fixture(scope="module")
def report(splits: Splits) -> Report:
    return reported(splits)


@pytest.fixture(scope="module")
def data(report: Report, splits: Splits) -> ReportData:
    return report_data(report, splits)


@pytest.fixture(scope="module")
def written(
    report: Report, splits: Splits, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("report") / "new" / "folder"
    remarks = ["A word on the data."]
    return write_report(folder, report, splits=splits, provenance=PROVENANCE, remarks=remarks)


@pytest.fixture(scope="module")
def tiny() -> Splits:
    """Two tiers, the first without scores and with a hostile name; five test questions."""
    rng = np.random.default_rng(0)
    is_right = rng.random((305, 2)) < (0.4, 0.9)
    outcomes = Outcomes(
        tiers=(HOSTILE, "big"),
        is_right=is_right,
        scores=np.stack([np.full(305, np.nan), np.full(305, -0.5)], axis=1),
        answers=np.where(is_right, 0, 1),
        costs=np.array([1.0, 10.0]),
        prompt_features=np.zeros((305, 1)),
        prompt_feature_names=("length",),
        answer_features=np.empty((305, 2, 0)),
        answer_feature_names=(),
        questions=tuple(range(305)),
        draws=np.zeros(305),
        groups=(None,) * 305,
    )
    return disjoint_splits(outcomes, 100, 200, seed=0)


class Page(HTMLParser):
    """What a page holds; unbalanced tags are a failure."""

    VOID = ("meta", "path", "use", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.tags)


def check_page(text: str) -> Page:
    page = Page(text)
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert text.startswith('<!doctype html>\n<html lang="en">')
    assert page.count("title") == 1 + 4  # of the page and of its four figures
    assert page.count("figure") == page.count("figcaption") == page.count("desc") == 4
    assert page.count("table") == page.count("caption") > 0
    assert all(a.get("scope") in ("row", "col") for tag, a in page.tags if tag == "th")
    assert [a.get("type") for tag, a in page.tags if tag == "script"] == ["application/json"]
    for _, attributes in page.tags:
        assert "src" not in attributes
        for name in ("href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#")
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    return page


def embedded(text: str) -> dict[str, Any]:
    found = re.search(r'id="report-data">\n(.*)\n</script>', text)
    assert found is not None
    value: dict[str, Any] = json.loads(found.group(1))
    return value


def test_one_page_that_needs_nothing_else(written: tuple[Path, Path], report: Report) -> None:
    page, markdown = written
    text = page.read_text(encoding="utf-8")
    words = " ".join(check_page(text).words)
    assert report.headline() in words
    assert "A word on the data." in words
    assert [path.name for path in sorted(page.parent.iterdir())] == [page.name, markdown.name]


def test_every_number_can_be_read_from_the_page(
    written: tuple[Path, Path], report: Report, data: ReportData
) -> None:
    found = embedded(written[0].read_text(encoding="utf-8"))
    assert found["figures"] == json.loads(json.dumps(data.as_json()))
    assert found["report"] == json.loads(json.dumps(report.as_json()))
    assert found["provenance"]["commit"] == "unknown"
    assert found["provenance"]["command"] == PROVENANCE.command


def test_markdown_holds_the_same_tables(written: tuple[Path, Path]) -> None:
    page, markdown = (path.read_text(encoding="utf-8") for path in written)
    cells = re.findall(r"<t[hd](?: [^>]*)?>(.*?)</t[hd]>", page)
    rows = [row for row in markdown.splitlines() if row.startswith("|") and "---" not in row]
    in_markdown = [cell.strip() for row in rows for cell in row[1:-1].split(" | ")]
    assert [cell.replace("\\", "") for cell in in_markdown] == [
        cell.replace("&gt;", ">").replace("&#x27;", "'") for cell in cells
    ]
    assert markdown.count("\n## ") == page.count("<h2>") == 7
    assert markdown.startswith("# Calibration report\n\n## Result\n\n**")


def test_the_promise_in_words(report: Report, data: ReportData) -> None:
    text = " ".join(block.markdown() for block in promised(report, data))
    chosen = report.calibration.chosen
    assert chosen is not None
    assert "With probability at least 90.0 %, the cascade's accuracy is at most 5.00 points" in text
    assert "below that of big-70b alone: epsilon = 0.05, delta = 0.1, net loss" in text
    assert f"of n = 500 certify questions, {chosen.n_lost} were lost" in text
    assert f"p = {chosen.p_value:.3g}" in text
    assert "Not promised:" in text


def test_the_promise_on_harm_in_words(report: Report, data: ReportData) -> None:
    promise = Promise(loss="harm", epsilon=0.02, delta=0.05)
    changed = replace(report, calibration=replace(report.calibration, promise=promise))
    text = " ".join(b.markdown() for b in promised(changed, data))
    assert "With probability at least 95.0 %, at most 2.0 % of the questions get a wrong" in text
    assert "on the test questions the harm loss is" in text


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ((-0.01, 0.02), "All of it is within epsilon."),
        ((0.021, 0.03), "above epsilon: the promise is not kept here."),
        ((0.01, 0.03), "does not tell"),
        (None, "does not tell"),
    ],
)
def test_the_check_on_test_questions(interval: tuple[float, float] | None, said: str) -> None:
    assert said in verdict(interval, 0.02)


def test_which_questions_are_counted(data: ReportData) -> None:
    assert "200 test questions; none of them was used to fit or to certify" in counted_on(data)
    assert "7 of them were drawn to fit or to certify too" in counted_on(replace(data, n_seen=7))


def test_tables_hold_the_figures(report: Report, data: ReportData) -> None:
    names = [row[0] for row in ways_of_answering(data).rows]
    assert names[:3] == ["small-1b alone", "mid-8b alone", "big-70b alone"]
    assert names[3] == f"cascade: {' > '.join(report.chain)}"
    assert names[4:] == ["perfect chain", "oracle"]
    rows = {row[0]: row[1] for row in beside_last(data).rows}
    assert rows["times cheaper"] == f"{report.cost_ratio:.2f}"
    assert rows["harm rate"] == f"{100 * report.test_harm:.1f} %"


@pytest.fixture(scope="module")
def tiny_report(tiny: Splits) -> Report:
    return reported(tiny)


def test_nothing_certified_five_questions_no_score_and_a_hostile_name(
    tiny_report: Report, tiny: Splits, tmp_path: Path
) -> None:
    assert not tiny_report.certified
    page, markdown = write_report(tmp_path, tiny_report, splits=tiny, provenance=PROVENANCE)
    text = page.read_text(encoding="utf-8")
    words = " ".join(check_page(text).words)
    assert "Nothing. No policy that is cheaper than big alone could be certified" in words
    assert "cascade: nothing certified" in words
    assert "by construction" in words
    assert "not enough" in words
    assert f"{HOSTILE} alone" in words
    assert embedded(text)["figures"]["reliabilities"][0]["ece"] is None
    assert r"| \_a\|\$b\</script>\<script>" in markdown.read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_written(report: Report, splits: Splits, tmp_path: Path) -> None:
    occupied = tmp_path / "file"
    occupied.write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"cannot write the report to .*file.*another folder"):
        write_report(occupied, report, splits=splits, provenance=PROVENANCE)
    assert occupied.read_text(encoding="utf-8") == "mine"


def test_a_page_that_cannot_be_replaced_leaves_nothing_behind(
    tiny_report: Report, tiny: Splits, tmp_path: Path
) -> None:
    (tmp_path / "calibration-report.html").mkdir()
    with pytest.raises(ConfigError, match="cannot write the report"):
        write_report(tmp_path, tiny_report, splits=tiny, provenance=PROVENANCE)
    assert [path.name for path in tmp_path.iterdir()] == ["calibration-report.html"]


@pytest.mark.parametrize(
    ("accept_at_most", "said"),
    [(None, "none of them is accepted"), (0.99, "All of them are accepted: the threshold is 0.99")],
)
def test_a_threshold_that_is_not_drawn_is_told(
    data: ReportData, accept_at_most: float | None, said: str
) -> None:
    drawing = risk(replace(data, risks=replace(data.risks, accept_at_most=accept_at_most)))
    assert said in drawing.caption
