"""Reading recorded answers: what a file may hold, what it costs, and every complaint."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.recorded.records_csv import Records, outcomes_of, read_records, tier_costs
from hybridserve_llm.errors import ConfigError

Record = Callable[..., dict[str, Any]]
Write = Callable[..., Path]
CHAIN = ("small", "big")


def test_a_question_is_a_split_and_an_id(record: Record, write_csv: Write) -> None:
    rows = [record(7, m, split=s) for s in ("train", "test") for m in CHAIN]
    records = read_records(write_csv(rows))
    assert set(records.answers) == {("train", "7"), ("test", "7")}
    outcomes, _ = outcomes_of(records, CHAIN, (1.0, 10.0))
    assert outcomes.questions == (("train", "7"), ("test", "7"))


def test_a_rows_values(record: Record, write_csv: Write) -> None:
    rows = [
        record(1, "small", correct=0, raw_confidence="-1.25", answer_key="a", group="user1"),
        record(1, "big", correct=1, raw_confidence="", prompt_tokens="", answer_key="", group=""),
    ]
    records = read_records(write_csv(rows))
    assert records.models == ("small", "big")
    small, big = (records.answers["test", "1"][model] for model in CHAIN)
    assert (small.is_right, small.score, small.answer_key, small.group) == (
        False,
        -1.25,
        "a",
        "user1",
    )
    assert (small.prompt_tokens, small.completion_tokens) == (90, 10)
    assert big.is_right
    assert math.isnan(big.score)  # unknown, never a number
    assert math.isnan(big.prompt_tokens)
    assert big.group is None


@pytest.mark.parametrize(
    ("text", "is_right"),
    [("1", True), ("0", False), ("1.0", True), ("0.0", False), ("True", True), (" false ", False)],
)
def test_ways_to_write_correct(record: Record, write_csv: Write, text: str, is_right: bool) -> None:
    records = read_records(write_csv([record(1, "small", correct=text)]))
    assert records.answers["test", "1"]["small"].is_right is is_right


@pytest.mark.parametrize(
    ("text", "score"),
    [("0", 0.0), ("1e-7", 0.0), ("-0.0", 0.0), ("-inf", -1e6), (" -2 ", -2.0)],
)
def test_scores_are_at_most_0_and_finite(
    record: Record, write_csv: Write, text: str, score: float
) -> None:
    # Rounding may lift a logarithm a little above 0.
    records = read_records(write_csv([record(1, "small", raw_confidence=text)]))
    assert records.answers["test", "1"]["small"].score == score


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"correct": "2"}, r"line 3: correct is '2'; allowed: 0 or 1"),
        ({"correct": ""}, r"line 3: correct is ''; allowed: 0 or 1"),
        ({"correct": "yes"}, r"line 3: correct is 'yes'"),
        (
            {"raw_confidence": "0.7"},
            r"line 3: raw_confidence is 0\.7; a log-probability is at most 0",
        ),
        ({"raw_confidence": "inf"}, r"line 3: raw_confidence is inf"),
        ({"raw_confidence": "low"}, r"line 3: raw_confidence is 'low', not a number"),
        ({"prompt_tokens": "many"}, r"line 3: prompt_tokens is 'many', not a number"),
        ({"completion_tokens": "1,5"}, r"line 3: completion_tokens is '1,5', not a number"),
        (
            {"query_id": 1},
            r"line 3: a second row of model 'small' for question '1' of split 'test'",
        ),
    ],
)
def test_a_bad_value_is_named_with_its_line(
    record: Record, write_csv: Write, changes: dict[str, object], complaint: str
) -> None:
    path = write_csv([record(1, "small"), record(2, "small", **changes)])
    with pytest.raises(ConfigError, match=complaint):
        read_records(path)


@pytest.mark.parametrize("column", ["query_id", "model", "correct", "raw_confidence"])
def test_a_missing_column_is_named(record: Record, write_csv: Write, column: str) -> None:
    row = record(1, "small")
    del row[column]
    with pytest.raises(ConfigError, match=f"has no column '{column}'; needed: query_id, model"):
        read_records(write_csv([row]))


@pytest.mark.parametrize("column", ["split", "prompt_tokens", "completion_tokens", "answer_key"])
def test_a_column_that_is_not_there_is_as_one_of_empty_cells(
    record: Record, write_csv: Write, column: str
) -> None:
    empty = [record(i, "small", **{column: ""}) for i in range(2)]
    absent = [{name: cell for name, cell in row.items() if name != column} for row in empty]
    one, other = read_records(write_csv(empty)), read_records(write_csv(absent))
    assert str(one) == str(other)  # a text, since an unknown number equals none


def test_the_order_of_columns_and_others_beside_them_do_not_matter(
    record: Record, write_csv: Write
) -> None:
    row = record(1, "small", group="u")
    turned = {"latency_ms": 5, **dict(reversed(row.items())), "dataset": "d"}
    assert read_records(write_csv([row])) == read_records(write_csv([turned]))


@pytest.mark.parametrize("column", ["query_id", "model"])
def test_a_row_that_names_nothing_is_named(record: Record, write_csv: Write, column: str) -> None:
    path = write_csv([record(1, "small"), record(2, "small") | {column: " "}])
    with pytest.raises(ConfigError, match=f"line 3: {column} is empty"):
        read_records(path)


def test_a_line_that_breaks_off_is_named(record: Record, write_csv: Write) -> None:
    path = write_csv([record(1, "small")])
    path.write_text(path.read_text() + "test,2,small\n")
    with pytest.raises(ConfigError, match="line 3: correct is None"):
        read_records(path)


def test_an_unreadable_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none\.csv: .*No such file"):
        read_records(tmp_path / "none.csv")
    with pytest.raises(ConfigError, match=r"cannot read .*: .*directory"):
        read_records(tmp_path)
    latin = tmp_path / "latin.csv"
    latin.write_bytes("split,größe\n".encode("latin-1"))
    with pytest.raises(ConfigError, match=r"cannot read .*latin\.csv: .*utf-8"):
        read_records(latin)
    empty = tmp_path / "empty.csv"
    empty.touch()
    with pytest.raises(ConfigError, match="has no column 'query_id'"):
        read_records(empty)


def test_a_field_that_is_no_field_is_a_config_error(record: Record, write_csv: Write) -> None:
    # An unclosed quote swallows the rest of a file; csv gives up after 131,072 characters.
    path = write_csv([record(1, "small", answer_key="x" * 140_000)])
    with pytest.raises(ConfigError, match="cannot read"):
        read_records(path)


@pytest.mark.parametrize("value", ["-5", "inf"])
def test_tokens_are_not_negative_and_finite(record: Record, write_csv: Write, value: str) -> None:
    with pytest.raises(ConfigError, match="line 2: prompt_tokens is"):
        read_records(write_csv([record(1, "small", prompt_tokens=value)]))


def test_a_byte_order_mark_is_no_part_of_the_first_column(record: Record, write_csv: Write) -> None:
    path = write_csv([record(1, "small")])
    path.write_text("\ufeff" + path.read_text(), encoding="utf-8")
    assert ("test", "1") in read_records(path).answers


def test_equal_keys_are_equal_answers_and_an_empty_one_equals_none(
    record: Record, write_csv: Write
) -> None:
    models = ("a", "b", "c", "d")
    keys = {"1": ("x", "y", "x", "y"), "2": ("", "", "x", "x"), "3": ("", "", "", "")}
    rows = [
        record(question, model, answer_key=key)
        for question, by_model in keys.items()
        for model, key in zip(models, by_model, strict=True)
    ]
    outcomes, _ = outcomes_of(read_records(write_csv(rows)), models, (1, 2, 3, 4))
    agrees = outcomes.answers[:, :, None] == outcomes.answers[:, None, :]
    pairs = {
        question[1]: {(i, j) for i in range(4) for j in range(i + 1, 4) if found[i, j]}
        for question, found in zip(outcomes.questions, agrees, strict=True)
    }
    assert pairs == {"1": {(0, 2), (1, 3)}, "2": {(2, 3)}, "3": set()}


def test_questions_that_some_tier_did_not_answer_are_left_out_and_counted(
    record: Record, write_csv: Write
) -> None:
    rows = [
        record(1, "small", correct=0),
        record(1, "big"),
        record(2, "small"),
        record(3, "big"),
        record(4, "other"),
        record(5, "big", correct=0, raw_confidence=-0.25, prompt_tokens=9),
        record(5, "small", raw_confidence=""),
    ]
    outcomes, n_incomplete = outcomes_of(read_records(write_csv(rows)), CHAIN, (1.0, 10.0))
    assert n_incomplete == 3
    assert outcomes.tiers == CHAIN
    assert [question for _, question in outcomes.questions] == ["1", "5"]
    assert outcomes.is_right.tolist() == [[False, True], [True, False]]
    assert np.isnan(outcomes.scores).tolist() == [[False, False], [True, False]]
    assert outcomes.scores[1, 1] == -0.25
    assert outcomes.costs.tolist() == [1.0, 10.0]
    # log(1 + prompt tokens), of the last tier
    assert outcomes.prompt_features[:, 0] == pytest.approx([math.log(91), math.log(10)])


def test_the_group_of_a_question(record: Record, write_csv: Write) -> None:
    rows = [record(q, m, group=g) for q, g in ((1, "u"), (2, "")) for m in CHAIN]
    outcomes, _ = outcomes_of(read_records(write_csv(rows)), CHAIN, (1.0, 10.0))
    assert outcomes.groups == ("u", None)


def test_no_question_with_all_answers_is_an_error(record: Record, write_csv: Write) -> None:
    records = read_records(write_csv([record(1, "small"), record(2, "big")]))
    with pytest.raises(ConfigError, match="no question was answered by all of small, big"):
        outcomes_of(records, CHAIN, (1.0, 10.0))


def records_of(record: Record, write_csv: Write, *models: str) -> Records:
    """Two questions: 90 + 10 tokens and 190 + 10, a mean of 150."""
    rows = [record(q, m, prompt_tokens=t) for q, t in ((1, 90), (2, 190)) for m in models]
    return read_records(write_csv(rows))


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("llama3.1-70b", 70),
        ("llama3.2-1b-instruct", 1),
        ("Qwen2.5-0.5B", 0.5),
        ("meta/Llama-3.1-405B-FP8", 405),
        ("qwen3-235b-a22b", 22),  # 22 of 235 are active
        ("Qwen3-30B-A3B", 3),
        ("gemma-2-9b-it", 9),
    ],
)
def test_default_costs_are_tokens_by_active_parameters(
    record: Record, write_csv: Write, model: str, billions: float
) -> None:
    costs, source = tier_costs(records_of(record, write_csv, model), (model,), {})
    assert costs == (pytest.approx(billions * 150),)
    assert source == "tokens x active parameters (1e9), by the models' names"


def test_mean_tokens_are_over_the_rows_that_tell_them(record: Record, write_csv: Write) -> None:
    rows = [record(1, "a-1b"), record(2, "a-1b", prompt_tokens=""), record(3, "b-2b")]
    records = read_records(write_csv([*rows, record(4, "a-1b", completion_tokens=30)]))
    assert records.mean_tokens("a-1b") == 110  # of 100 and 120
    assert math.isnan(read_records(write_csv([record(1, "a", prompt_tokens="")])).mean_tokens("a"))


def test_given_costs_are_taken_as_they_are(record: Record, write_csv: Write) -> None:
    records = records_of(record, write_csv, *CHAIN)
    costs, source = tier_costs(records, CHAIN, {"big": 2.06, "small": 0.012, "other": 9.0})
    assert costs == (0.012, 2.06)
    assert source == "as given, per request"


@pytest.mark.parametrize(
    ("models", "given", "complaint"),
    [
        (
            ("a-1b", "b-8b"),
            {"a-1b": 1.0},
            "no --cost for 'b-8b'; give one for every tier or for none",
        ),
        (("gpt-4o", "b-8b"), {}, "no --cost for 'gpt-4o', and its name does not contain a size"),
        (("mixtral-8x7b", "b-8b"), {}, "no --cost for 'mixtral-8x7b'"),  # neither 8 nor 7
        (("web", "b-8b"), {}, "no --cost for 'web'"),
    ],
)
def test_costs_that_cannot_be_told_are_refused(
    record: Record,
    write_csv: Write,
    models: tuple[str, ...],
    given: dict[str, float],
    complaint: str,
) -> None:
    with pytest.raises(ConfigError, match=complaint):
        tier_costs(records_of(record, write_csv, *models), models, given)


@pytest.mark.parametrize("tokens", ["", "0"])
def test_costs_without_tokens_are_refused(record: Record, write_csv: Write, tokens: str) -> None:
    # Costs of 0 would make every cascade equally cheap.
    rows = [record(1, m, prompt_tokens=tokens, completion_tokens=tokens) for m in ("a-1b", "b-8b")]
    with pytest.raises(ConfigError, match="no --cost for 'a-1b', and no row of it has its token"):
        tier_costs(read_records(write_csv(rows)), ("a-1b", "b-8b"), {})
