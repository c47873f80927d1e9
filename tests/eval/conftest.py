"""Small files of recorded answers."""

import csv
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

COLUMNS = (
    "split",
    "query_id",
    "model",
    "correct",
    "raw_confidence",
    "prompt_tokens",
    "completion_tokens",
    "answer_key",
)

Row = dict[str, Any]


def recorded(query_id: object, model: str, /, **changes: object) -> Row:
    """One row: right, with a score of -0.5, 90 + 10 tokens and the answer "yes"."""
    row = {
        "split": "test",
        "query_id": query_id,
        "model": model,
        "correct": 1,
        "raw_confidence": -0.5,
        "prompt_tokens": 90,
        "completion_tokens": 10,
        "answer_key": "yes",
    }
    return row | changes


def written(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    """Writes rows as CSV; the columns are those of the first row, or of the format without any."""
    rows = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys() if rows else COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
    return path


def cascade_rows(n: int, *, skills: Mapping[str, float], seed: int = 0) -> list[Row]:
    """Questions of difficulty d ~ U(0, 1): right with probability p = sigmoid(8 (skill - d)).

    The score is the logarithm of p, seen through noise. Ids repeat in the two splits.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        difficulty = rng.random()
        for model, skill in skills.items():
            p_right = 1 / (1 + np.exp(-8 * (skill - difficulty)))
            is_right = rng.random() < p_right
            seen = np.clip(p_right + rng.normal(0.0, 0.05), 0.01, 0.99)
            rows.append(
                recorded(
                    i // 2,
                    model,
                    split=("train", "test")[i % 2],
                    correct=int(is_right),
                    raw_confidence=f"{np.log(seen):.4f}",
                    answer_key="right" if is_right else f"wrong{rng.integers(3)}",
                )
            )
    return rows


@pytest.fixture(scope="session")
def record() -> Callable[..., Row]:
    """`recorded`, for tests."""
    return recorded


@pytest.fixture
def write_csv(tmp_path: Path) -> Callable[[Iterable[Mapping[str, Any]]], Path]:
    """Writes rows to a file of its own and gives its path."""
    written_so_far: list[Path] = []

    def write(rows: Iterable[Mapping[str, Any]]) -> Path:
        path = written(tmp_path / f"records{len(written_so_far)}.csv", rows)
        written_so_far.append(path)
        return path

    return write


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[Row]]:
    """`cascade_rows`, for tests."""
    return cascade_rows


@pytest.fixture(scope="session")
def cascade_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1,000 questions to three models; accepting the small answers that look right pays."""
    rows = cascade_rows(1000, skills={"small-1b": 0.5, "mid-8b": 0.8, "big-70b": 1.0})
    return written(tmp_path_factory.mktemp("records") / "cascade.csv", rows)
