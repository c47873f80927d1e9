"""Reading labelled prompts: what a line may hold, and every complaint."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from eval.questions.graders import Agrees, Exact, Numeric
from eval.questions.prompts import read_prompts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.values.requests import Endpoint

ASKED = {"prompt": "2 + 2?", "reference": "4"}


def jsonl(tmp_path: Path, *lines: dict[str, Any] | str) -> Path:
    path = tmp_path / "prompts.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def test_a_prompt_becomes_a_user_turn(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ASKED)
    found = read_prompts(path, Exact())
    (prompt,) = found.prompts
    assert prompt.question == (None, "1")
    assert prompt.group is None
    assert prompt.endpoint is Endpoint.CHAT
    assert prompt.body({}) == {"messages": [{"role": "user", "content": "2 + 2?"}]}
    assert prompt.grader("4") is True
    assert found.labels == "reference"
    assert found.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_all_that_a_line_may_say(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    line = {
        "messages": messages,
        "reference": 4,
        "grader": {"type": "numeric", "absolute_tolerance": 0.5},
        "id": "sum",
        "split": "train",
        "group": "user 1",
        "request": {"max_tokens": 5},
    }
    (prompt,) = read_prompts(jsonl(tmp_path, line)).prompts
    assert prompt.question == ("train", "sum")
    assert prompt.group == "user 1"
    # The line's own fields win over those of all.
    assert prompt.body({"temperature": 0, "max_tokens": 9}) == {
        "messages": messages,
        "max_tokens": 5,
        "temperature": 0,
    }
    assert prompt.grader("about 4.4") is True


def csv_of(tmp_path: Path, **cells: str) -> Path:
    path = tmp_path / "prompts.csv"
    quoted = ('"' + cell.replace('"', '""') + '"' for cell in cells.values())
    path.write_text(",".join(cells) + "\n" + ",".join(quoted) + "\n", encoding="utf-8")
    return path


def test_cells_of_a_table_hold_json_where_a_text_would_not_do(tmp_path: Path) -> None:
    path = csv_of(
        tmp_path,
        messages='[{"role": "user", "content": "As JSON?"}]',
        reference='{"a": 1}',
        request='{"max_tokens": 5}',
        grader='{"type": "json", "fenced": true}',
    )
    (prompt,) = read_prompts(path).prompts
    assert prompt.body({})["max_tokens"] == 5
    assert prompt.grader('```json\n{"a": 1}\n```') is True
    several = csv_of(tmp_path, prompt="Capital?", reference='["Paris", "Paris, France"]')
    assert read_prompts(several, Exact()).prompts[0].grader("paris") is True
    pattern = csv_of(tmp_path, prompt="Digit?", reference="[0-9]", grader="regex")
    assert read_prompts(pattern).prompts[0].grader("7") is True
    cut = csv_of(tmp_path, prompt="Which?", reference="[cut", grader="exact")
    assert read_prompts(cut).prompts[0].grader("[cut") is True
    wrong = csv_of(tmp_path, prompt="Q", reference="1", request="{max_tokens: 5}", grader="exact")
    with pytest.raises(ConfigError, match=r"line 2: request = '\{max_tokens: 5\}': not JSON"):
        read_prompts(wrong)


def test_a_completions_prompt(tmp_path: Path) -> None:
    line = {**ASKED, "endpoint": "completions"}
    (prompt,) = read_prompts(jsonl(tmp_path, line), Exact()).prompts
    assert prompt.endpoint is Endpoint.COMPLETIONS
    assert prompt.body({"max_tokens": 1}) == {"prompt": "2 + 2?", "max_tokens": 1}


def test_a_file_may_ask_both_endpoints(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {**ASKED, "endpoint": "completions"}, ASKED, ASKED)
    assert read_prompts(path, Exact()).endpoints == (Endpoint.CHAT, Endpoint.COMPLETIONS)


def test_a_lines_own_grader_comes_first(tmp_path: Path) -> None:
    path = jsonl(tmp_path, ASKED, {**ASKED, "grader": "regex"})
    exact, regex = read_prompts(path, Exact()).prompts
    assert (exact.grader("it is 4"), regex.grader("it is 4")) == (False, True)


def test_a_null_is_a_reference(tmp_path: Path) -> None:
    line = {"prompt": "?", "reference": None, "grader": "json"}
    (prompt,) = read_prompts(jsonl(tmp_path, line)).prompts
    assert prompt.grader("null") is True


def test_blank_lines_and_a_byte_order_mark_are_passed_over(tmp_path: Path) -> None:
    path = jsonl(tmp_path, "\ufeff" + json.dumps(ASKED), "", ASKED)
    assert [p.query_id for p in read_prompts(path, Exact()).prompts] == ["1", "3"]


def test_numbers_may_name_things(tmp_path: Path) -> None:
    line = {**ASKED, "id": 7, "split": 1, "group": 12}
    (prompt,) = read_prompts(jsonl(tmp_path, line), Exact()).prompts
    assert (prompt.question, prompt.group) == (("1", "7"), "12")


def test_an_id_may_repeat_in_another_split(tmp_path: Path) -> None:
    lines = [{**ASKED, "id": "a", "split": split} for split in ("train", "test")]
    assert len(read_prompts(jsonl(tmp_path, *lines), Exact()).prompts) == 2


def test_agreement_needs_no_reference_and_takes_all_lines(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"prompt": "a"}, {"prompt": "b", "reference": "not looked at"})
    found = read_prompts(path, Agrees())
    assert found.labels == "agreement"
    assert found.prompts[1].grader("not looked at") is None


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (("{",), "line 1: not JSON"),
        (("[1]",), r"line 1: \[1\] is not a JSON object"),
        (("", '"x"'), "line 2: 'x' is not a JSON object"),
        (({"reference": "4"},), "line 1: one of 'prompt' and 'messages' is needed, and not both"),
        (({**ASKED, "messages": [{"role": "user"}]},), "and not both"),
        (({**ASKED, "prompt": ""},), "line 1: prompt = ''"),
        (({**ASKED, "prompt": 3},), "line 1: prompt = 3: Input should be a valid string"),
        (({"messages": [], "reference": 1},), r"messages = \[\]"),
        (({"messages": [{"content": "x"}], "reference": 1},), "every entry of 'messages' needs a"),
        (
            ({"messages": [{"role": "user"}], "endpoint": "completions", "reference": 1},),
            "endpoint 'completions' takes a 'prompt'",
        ),
        (({**ASKED, "endpoint": "embeddings"},), "endpoint = 'embeddings'"),
        (({**ASKED, "answer": 4},), "line 1: unknown key 'answer'; allowed: prompt, messages"),
        (({**ASKED, "grader": "fuzzy"},), "line 1: grader = 'fuzzy': allowed types"),
        (({**ASKED, "grader": "numeric", "reference": "four"},), "line 1: reference = 'four'"),
        (({"prompt": "?"},), "line 1: no reference, and grader 'exact' needs one"),
        (({**ASKED, "request": {"model": "x"}},), "line 1: request.model is set by the collection"),
        (({**ASKED, "request": {"n": 2}},), "request.n is set by the collection"),
        (({**ASKED, "request": {"top_p": 1}},), "line 1: request.top_p: give it to all prompts, "),
        (({**ASKED, "id": "2"}, ASKED), "line 2: id '2' of split None is that of line 1 already"),
        ((), "holds no prompt"),
        (("", "  "), "holds no prompt"),
        ((ASKED, {"prompt": "?", "grader": "agrees"}), "1 of 2 prompts have the grader 'agrees'"),
    ],
)
def test_lines_that_are_not_allowed(tmp_path: Path, lines: tuple[Any, ...], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as refused:
        read_prompts(jsonl(tmp_path, *lines), Exact())
    assert "prompts.jsonl" in str(refused.value)


def test_a_grader_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 2: no grader; give the line one, or all of them"):
        read_prompts(jsonl(tmp_path, {**ASKED, "grader": "exact"}, ASKED))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*none.jsonl: No such file"):
        read_prompts(tmp_path / "none.jsonl", Numeric())
