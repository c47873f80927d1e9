"""Regret to the oracle: what the best choice in hindsight would have gained, by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cli import main
from eval.judging.oracle_regret import best_accuracy, least_cost
from eval.recorded.measured_run import CASCADE, Block

Make = Callable[..., Path]
Capture = pytest.CaptureFixture[str]


def reported(path: Path, capsys: Capture) -> dict[str, Any]:
    assert main(["report", str(path), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)["regret"]
    return found


@pytest.mark.parametrize(
    ("n_forwarded", "accuracy"), [(0, 0.5), (1, 0.75), (2, 0.75), (3, 0.75), (4, 0.5)]
)
def test_exactly_so_many_are_forwarded_and_those_that_gain_most_first(
    n_forwarded: int, accuracy: float
) -> None:
    # Forwarding gains 0, -1, 1 and 0.
    kept, last = np.array([True, True, False, False]), np.array([True, False, True, False])
    assert best_accuracy(kept, last, n_forwarded) == accuracy


@pytest.mark.parametrize(
    ("n_right", "cost"), [(0, 1.0), (1, 1.0), (2, 7 / 4), (3, 16 / 4), (4, None)]
)
def test_the_least_cost_buys_the_cheapest_right_answers(n_right: int, cost: float | None) -> None:
    # One question is right at 1; further right answers cost 3 and 9 more; one has none.
    is_right = np.array([[True, True], [False, True], [False, True], [False, False]])
    costs = np.array([[1.0, 10.0], [1.0, 10.0], [1.0, 4.0], [1.0, 10.0]])
    assert least_cost(is_right, costs, n_right) == cost


def test_a_cascade_that_decides_as_the_oracle_pays_for_the_tiers_below_alone(
    run_path: Path, capsys: Capture
) -> None:
    found = reported(run_path, capsys)
    assert (found["forwarded"], found["oracle_accuracy"], found["regret"]) == (0.25, 1.0, 0.0)
    assert found["regret_interval"] is None  # no draw differs
    # 0.1 for the easy questions and 1.0 for the hard quarter; the cascade pays 0.1 for these too.
    assert found["oracle_cost"] == pytest.approx(0.75 * 0.1 + 0.25 * 1.0)
    assert found["extra_cost"] == pytest.approx(0.25 * 0.1)
    # The share of hard ones has a standard error of sqrt(0.25 * 0.75 / 240) = 2.8 points.
    half = 1.96 * 0.028 * 0.1
    assert found["extra_cost_interval"] == pytest.approx([0.025 - half, 0.025 + half], abs=0.001)


def test_a_cascade_that_forwards_the_wrong_questions_regrets_it(
    write_run: Make, tmp_path: Path, capsys: Capture
) -> None:
    def worse(block: Block) -> Block:
        """Every eighth question is answered wrongly by the small tier, though forwarding helps."""
        if block.way != CASCADE:
            return block
        answers = tuple(
            replace(a, correct=False) if int(a.query_id[1:]) % 8 == 1 else a for a in block.answers
        )
        return replace(block, answers=answers)

    found = reported(write_run(tmp_path / "run.jsonl", change=worse), capsys)
    assert (found["oracle_accuracy"], found["regret"]) == (1.0, pytest.approx(1 / 8))
    # Standard error sqrt(1/8 * 7/8 / 240) = 2.1 points.
    assert found["regret_interval"] == pytest.approx([1 / 8 - 0.042, 1 / 8 + 0.042], abs=0.01)
    # 7/8 of the questions right: the easy 3/4 at 0.1, half of the hard quarter at 1.0.
    assert found["oracle_cost"] == pytest.approx(0.875 * 0.1 + 0.125 * 1.0)
    assert found["extra_cost"] == pytest.approx(0.35 - 0.2125)


def test_the_report_shows_both_distances(run_path: Path, tmp_path: Path) -> None:
    text, page = tmp_path / "r.md", tmp_path / "r.html"
    assert main(["report", str(run_path), "--markdown", str(text), "--html", str(page)]) == 0
    for words in (
        "Regret to the oracle, which knows who is right; 25.0 % of the questions are forwarded",
        "accuracy of the best choice, as many forwarded",
    ):
        assert words in text.read_text()
        assert words in page.read_text()
    assert "| that minus the cascade's | 0.00 points | not enough |" in text.read_text()
    assert "| the cascade's CPU-s a request beyond that | 0.025 | 0.0" in text.read_text()
