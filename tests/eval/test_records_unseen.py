"""`hs-eval records` on files of other kinds: each gives a result, or one clear error."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.cli import main

Row = dict[str, Any]
Change = Callable[[Row], Row | None]

ENERGY = """gpu,params_b,active_params_b,energy_per_token_j,model
H100,1,1,0.01,org/Tiny-1B
H100,70,70,0.7,other/Big-70B-Instruct
"""


@pytest.fixture
def study(
    make_rows: Callable[..., list[Row]],
    write_csv: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> Callable[..., tuple[int, Any]]:
    """Runs it on 120 questions to two models, every row changed or left out by `change`."""

    def run(
        change: Change = lambda row: row, *more: str, skills: dict[str, float] | None = None
    ) -> tuple[int, Any]:
        skills = skills or {"tiny-1b": 0.5, "big-70b": 0.9}
        rows = [changed for row in make_rows(120, skills=skills) if (changed := change(row))]
        energy = tmp_path / "energy.csv"
        energy.write_text(ENERGY)
        command = ["records", str(write_csv(rows)), "--energy", str(energy), "--gpu", "H100"]
        status = main([*command, "--epsilon", "0.1", "--json", *more])
        said = capsys.readouterr()
        return status, json.loads(said.out) if status == 0 else said.err

    return run


def without(*columns: str) -> Change:
    return lambda row: {name: cell for name, cell in row.items() if name not in columns}


def of(model: str, **changes: Any) -> Change:
    return lambda row: row | changes if row["model"] == model else row


def apart(row: Row) -> Row:
    """No question was put to both models."""
    return row | {"split": f"{row['split']} {row['model']}"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda row: dict(reversed(row.items())), id="other column order"),
        pytest.param(without("answer_key"), id="no answer keys"),
        pytest.param(lambda row: row | {"answer_key": ""}, id="empty answer keys"),
        pytest.param(lambda row: row | {"raw_confidence": ""}, id="no score at all"),
        pytest.param(of("tiny-1b", raw_confidence=""), id="no score of one model"),
        pytest.param(lambda row: row | {"raw_confidence": -1}, id="equal scores"),
        pytest.param(lambda row: row | {"prompt_tokens": 5}, id="equal prompts"),
        pytest.param(lambda row: row | {"completion_tokens": 0}, id="no output tokens"),
        pytest.param(lambda row: row | {"correct": 1}, id="all right"),
        pytest.param(lambda row: row | {"correct": 0}, id="all wrong"),
        pytest.param(of("big-70b", correct=0), id="last model always wrong"),
        pytest.param(of("tiny-1b", correct=1), id="small model always right"),
        pytest.param(lambda row: row if row["query_id"] == 0 else None, id="two questions"),
        pytest.param(
            lambda row: row if row["model"] == "big-70b" or row["query_id"] % 3 else None,
            id="questions that one model did not answer",
        ),
    ],
)
def test_a_result_with_every_part(study: Callable[..., Any], change: Change) -> None:
    status, found = study(change)
    assert status == 0
    [row] = found["rows"]
    assert row["chain"][-1] == "big-70b"
    assert row["ratio"] > 0
    assert len(row["rivals"]) == 5
    names = [way["name"] for way in found["fixed"]]
    assert names == ["tiny-1b alone", "big-70b alone", "perfect chain", "oracle"]
    json.dumps(found, allow_nan=False)


def test_ids_alone_name_questions_where_there_is_no_split(study: Callable[..., Any]) -> None:
    def one_split(row: Row) -> Row:
        return without("split")(row | {"query_id": f"{row['split']}{row['query_id']}"})

    status, found = study(one_split)
    assert (status, found["n_test"]) == (0, 120)


def test_what_was_not_scored_is_never_accepted(study: Callable[..., Any]) -> None:
    _, found = study(lambda row: row | {"raw_confidence": ""})
    raw = found["rows"][0]["rivals"][0]
    assert (raw["name"], raw["certified"]) == ("best raw score", False)


def test_another_family_is_read_off_the_line_through_measured_models(
    study: Callable[..., Any],
) -> None:
    status, found = study(skills={"qwen9-10b-chat": 0.5, "big-70b": 0.9})
    assert status == 0
    other = next(one for one in found["per_token"] if one["model"] == "qwen9-10b-chat")
    # 0.01 J at 1e9 and 0.7 J at 70e9 lie on 0.01 x, so 0.1 J at 10e9
    assert other["per_token_j"] == pytest.approx(0.1)
    assert not other["is_measured"]
    assert "interpolated to 10e9" in other["source"]


@pytest.mark.parametrize(
    ("change", "skills", "words"),
    [
        (None, {"gpt-x": 0.5, "big-70b": 0.9}, "give its active parameters, --active-parameters"),
        (None, {"big-70b": 0.9}, "takes at least two tiers, and 'big-70b' alone is there"),
        (lambda row: None if row["model"] == "tiny-1b" else row, None, "'big-70b' alone is there"),
        (lambda row: None, None, "at least two tiers, and none is there"),
        (lambda row: row | {"query_id": 1}, None, "line 6: a second row of model 'tiny-1b'"),
        (apart, None, "no question was answered by all of tiny-1b, big-70b"),
        (without("completion_tokens"), None, "no row of 'tiny-1b' has its completion_tokens"),
        (lambda row: row | {"prompt_tokens": 0, "completion_tokens": 0}, None, "cost nothing"),
        (lambda row: row | {"raw_confidence": 0.9}, None, "a log-probability is at most 0"),
        (lambda row: row | {"model": ""}, None, "line 2: model is empty"),
    ],
)  # fmt: skip
def test_one_clear_error(
    study: Callable[..., Any], change: Change | None, skills: dict[str, float] | None, words: str
) -> None:
    status, said = study(*([change] if change else []), skills=skills)
    assert status == 2
    assert words in said
    assert len(said.splitlines()) == 1


def test_a_size_that_is_told_makes_an_unknown_model_known(study: Callable[..., Any]) -> None:
    told = ("--active-parameters", "gpt-x=10")
    status, found = study(lambda row: row, *told, skills={"gpt-x": 0.5, "big-70b": 0.9})
    assert status == 0
    assert {one["model"] for one in found["per_token"]} == {"gpt-x", "big-70b"}


def test_too_few_questions_for_splits_of_their_own_are_an_error(study: Callable[..., Any]) -> None:
    status, said = study(lambda row: row if row["query_id"] == 0 else None, "--holdout")
    assert status == 2
    assert "too few" in said
