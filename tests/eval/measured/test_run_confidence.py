"""What a report says of confidence: certified coverage, and its ranking by kinds of questions."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from eval.cli import main
from eval.recorded.measured_run import MeasuredBlock

Make = Callable[..., Any]
Capture = pytest.CaptureFixture[str]


def reported(run: Path, certificate: Path, text: Path, capsys: Capture) -> dict[str, Any]:
    """The figures; `text` is written as Markdown."""
    arguments = [str(run), "--certificate", str(certificate), "--markdown", str(text)]
    assert main(["report", *arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def of_fresh_questions(path: Path, with_header: Make) -> Path:
    """The run as if its certificate had been made from others."""
    asked = json.loads(path.read_text().splitlines()[0])["asked"] | {"data_sha256": "1" * 64}
    fresh: Path = with_header(path, path.with_name("fresh.jsonl"), asked=asked)
    return fresh


@pytest.mark.slow
def test_coverage_is_certified_on_fresh_questions(
    run_path: Path, tmp_path: Path, capsys: Capture, with_certificate: Make, with_header: Make
) -> None:
    path, certificate = with_certificate(run_path, tmp_path, capsys)
    text = tmp_path / "r.md"
    fresh = of_fresh_questions(path, with_header)
    found = reported(fresh, certificate, text, capsys)["certified_coverage"]
    assert set(found) == {"small"}
    one, two, five, ten = found["small"]
    # At 1 % the first step takes 230 or more, and 180 are right.
    assert (one["risk"], one["share"], one["n_taken"]) == (0.01, 0.0, 0)
    # All 180 right ones pass at 2 % (0.98^180 = 0.03). Of the hard ones those of equal score come
    # together, eight or nine of them, which is too many.
    assert (two["risk"], two["share"], two["n_taken"], two["n_wrong"]) == (0.02, 0.75, 180, 0)
    assert two["p_value"] == pytest.approx(0.98**180)
    assert five["n_taken"] == 180
    # At 10 % one such lot of hard ones passes, and a second does not.
    assert ten["n_taken"] - ten["n_wrong"] == 180
    assert ten["n_wrong"] in (8, 9)
    assert "| 1 % | none | - |" in text.read_text()
    assert "| 2 % | 75.0 % | 0 of 180 |" in text.read_text()
    assert "it is one path, walked once" in " ".join(text.read_text().split())


@pytest.mark.slow
def test_one_question_of_each_group_is_certified_on(
    write_run: Make, tmp_path: Path, capsys: Capture, with_certificate: Make, with_header: Make
) -> None:
    def in_pairs(block: MeasuredBlock) -> MeasuredBlock:
        recorded = tuple(
            replace(a, group=f"user {int(a.query_id[1:]) // 2}") for a in block.recorded
        )
        return replace(block, recorded=recorded)

    run = write_run(tmp_path / "run.jsonl", change=in_pairs)
    path, certificate = with_certificate(run, tmp_path, capsys, n_certify=60)
    text = tmp_path / "r.md"
    fresh = of_fresh_questions(path, with_header)
    one, *_, ten = reported(fresh, certificate, text, capsys)["certified_coverage"]["small"]
    assert one["share"] is None  # 230 questions are needed, and 120 groups are there
    assert "| 1 % | too few questions | - |" in text.read_text()
    assert ten["share"] == ten["n_taken"] / 120
    assert "one random question of each group" in text.read_text()


@pytest.mark.slow
def test_nothing_is_certified_on_questions_that_confidence_was_fitted_on(
    run_path: Path, tmp_path: Path, capsys: Capture, with_certificate: Make
) -> None:
    path, certificate = with_certificate(run_path, tmp_path, capsys)
    found = reported(path, certificate, tmp_path / "r.md", capsys)
    assert found["certified_coverage"] == {}
    assert "No coverage is certified" in (tmp_path / "r.md").read_text()
    assert "Certified coverage, delta" not in (tmp_path / "r.md").read_text()


@pytest.mark.slow
def test_confidence_is_ranked_by_kinds_of_questions_where_both_classes_are_there(
    write_run: Make, tmp_path: Path, capsys: Capture, with_certificate: Make
) -> None:
    def in_kinds(block: MeasuredBlock) -> MeasuredBlock:
        """A few answers are JSON, and a quarter, all of them right, are numbers."""
        kind = dict.fromkeys(range(10), "json") | dict.fromkeys(range(1, 240, 4), "number")
        recorded = tuple(
            replace(a, output_type=kind.get(int(a.query_id[1:]), "short")) for a in block.recorded
        )
        return replace(block, recorded=recorded)

    run = write_run(tmp_path / "run.jsonl", change=in_kinds)
    path, certificate = with_certificate(run, tmp_path, capsys)
    text = tmp_path / "r.md"
    kinds = {row["name"]: row for row in reported(path, certificate, text, capsys)["kinds"]}
    assert kinds["answer: json"]["n"] < 20
    assert kinds["answer: json"]["auroc"] == {"small": None}
    assert kinds["answer: number"]["n"] == 60
    assert kinds["answer: number"]["auroc"] == {"small": None}  # all right
    # Every right answer has the higher score.
    assert kinds["answer: short"]["auroc"] == {"small": 1.0}
    assert "| AUROC small |" in text.read_text()
    (row,) = (one for one in text.read_text().splitlines() if one.startswith("| answer: number"))
    assert row.endswith("| not enough |")


def test_without_a_certificate_kinds_have_no_ranking(
    run_path: Path, tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "r.md"
    assert main(["report", str(run_path), "--markdown", str(text), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["auroc"] for row in found["kinds"]] == [{}] * len(found["kinds"])
    assert "AUROC" not in text.read_text()
