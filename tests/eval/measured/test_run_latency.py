"""Seconds to the first token in the report of a run that was asked as streams."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from eval.cli import main
from eval.recorded.measured_run import Block, ServedAnswer

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def in_streams(block: Block) -> Block:
    """The small tier's first token comes after 0.1 s, the giant's after 0.2 s, or 0.05 s alone."""

    def ttft_s(answer: ServedAnswer) -> float:
        return {("small",): 0.1, ("small", "giant"): 0.2, ("giant",): 0.05}[
            tuple(attempt.tier for attempt in answer.attempts)
        ]

    return replace(block, answers=tuple(replace(a, ttft_s=ttft_s(a)) for a in block.answers))


def test_first_tokens_are_told_by_who_answered(
    write_run: Make, tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "r.md"
    path = write_run(tmp_path / "run.jsonl", change=in_streams)
    assert main(["report", str(path), "--markdown", str(text), "--json"]) == 0
    found = {one["name"]: one for one in json.loads(capsys.readouterr().out)["first_tokens"]}
    assert {name: (one["n"], one["median_s"]) for name, one in found.items()} == {
        "giant alone": (240, 0.05),
        "cascade": (240, 0.1),
        "cascade, answered below giant": (180, 0.1),
        "cascade, answered by giant": (60, 0.2),
    }
    assert found["cascade"]["p95_s"] == pytest.approx(0.2)  # a quarter is the giant's
    assert "its first token, at the client" in text.read_text()
    assert "were asked as streams" in text.read_text()


def test_answers_without_a_token_are_left_out(
    write_run: Make, tmp_path: Path, capsys: Capture
) -> None:
    def empty_at_times(block: Block) -> Block:
        answers = in_streams(block).answers
        return replace(
            block, answers=(*(replace(a, ttft_s=None) for a in answers[:5]), *answers[5:])
        )

    path = write_run(tmp_path / "run.jsonl", change=empty_at_times)
    assert main(["report", str(path), "--json"]) == 0
    found = {one["name"]: one["n"] for one in json.loads(capsys.readouterr().out)["first_tokens"]}
    assert found["giant alone"] == 240 - 12 * 5  # of each of twelve blocks


def test_a_run_of_whole_answers_has_no_first_tokens(
    run_path: Path, tmp_path: Path, capsys: Capture
) -> None:
    text = tmp_path / "r.md"
    assert main(["report", str(run_path), "--markdown", str(text), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["first_tokens"] == []
    assert "first token" not in text.read_text()
