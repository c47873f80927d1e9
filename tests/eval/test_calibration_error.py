"""The excess of calibration error over that of a perfect calibrator."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.recorded.recorded_costs import outcomes_at
from eval.studies.calibration_error import StateError, main, shown_states, state_errors, table
from hybridserve_llm.calibration.outcomes import Outcomes

Capture = pytest.CaptureFixture[str]
COSTS = {"small-1b": 1.0, "mid-8b": 8.0, "big-70b": 70.0}


@pytest.fixture
def outcomes(cascade_csv: Path) -> Outcomes:
    return outcomes_at(cascade_csv, COSTS)


def test_each_tier_is_shown_alone_and_after_all_before_it(outcomes: Outcomes) -> None:
    assert shown_states(outcomes) == [(0,), (1,), (0, 1)]


def test_confidence_of_a_world_that_is_as_modelled_has_little_excess(outcomes: Outcomes) -> None:
    rows = state_errors(outcomes, "f", n_fit=300, n_splits=3, seed=0)
    assert [row.state for row in rows] == [("small-1b",), ("mid-8b",), ("small-1b", "mid-8b")]
    for row in rows:
        # Of 700 labels in 15 bins; with p (1 - p) at most 1/4 a bin's mean is off by at most
        # 0.8 * 0.5 / sqrt(47) = 0.058 on average.
        assert 0.01 < row.perfect_error < 0.06
        assert row.excess == pytest.approx(row.error - row.perfect_error)
        assert row.excess < 0.03
        assert row.excess_standard_error is not None
        assert (row.n_fit, row.n_judged) == (300, 700)


def test_a_score_that_tells_nothing_of_other_rows_is_in_excess(
    write_csv: Callable[..., Path], record: Callable[..., Any]
) -> None:
    # Right answers are three in four; the models are fitted on too few rows to know that.
    rng = np.random.default_rng(0)
    rows = [
        record(i, model, correct=int(rng.random() < 0.75), raw_confidence=f"{-rng.random():.4f}")
        for i in range(620)
        for model in COSTS
    ]
    few, many = (
        state_errors(outcomes_at(write_csv(rows), COSTS), "f", n_fit=n, n_splits=4, seed=0)
        for n in (20, 300)
    )
    assert np.mean([row.excess for row in few]) > np.mean([row.excess for row in many]) + 0.01


def test_splits_can_be_repeated_and_one_has_no_standard_error(outcomes: Outcomes) -> None:
    first, again = (
        state_errors(outcomes, "f", n_fit=300, n_splits=1, seed=seed) for seed in (5, 5)
    )
    assert first == again
    assert first[0].excess_standard_error is None


def test_too_few_rows_to_judge_on_are_refused(cascade_csv: Path, capsys: Capture) -> None:
    # 15 bins of 20 are 300 rows; 1,000 - 701 leaves 299.
    assert main([str(cascade_csv), "--n-fit", "701", "--splits", "1"]) == 2
    assert "1000 questions are too few to fit on 701 and judge on 300" in capsys.readouterr().err


def test_json_is_one_list_of_states(cascade_csv: Path, capsys: Capture) -> None:
    assert main([str(cascade_csv), "--splits", "1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["state"] for row in found] == [["small-1b"], ["mid-8b"], ["small-1b", "mid-8b"]]
    assert all(row["n_fit"] == 300 for row in found)


def test_the_table_has_a_block_for_each_file() -> None:
    row = StateError(
        file="a.csv",
        state=("small", "big"),
        n_fit=300,
        n_judged=700,
        error=0.05,
        perfect_error=0.04,
        excess=0.01,
        excess_standard_error=None,
    )
    text = table([row, row, StateError(**{**as_dict(row), "file": "b.csv"})])
    assert text.count("fitted on 300, judged on 700") == 2
    assert text.count("small > big 0.0500  0.0400  +0.0100") == 3


def as_dict(row: StateError) -> dict[str, Any]:
    return {name: getattr(row, name) for name in StateError.__slots__}
