"""`hs-eval collect`, and the rows of public question sets that it understands."""

import json
from pathlib import Path
from typing import Any

import pytest

from eval.cli import main
from eval.questions.prompts import read_prompts
from eval.questions.ready_formats import READY_FORMATS
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.values.joules import SettledEnergy

Capture = pytest.CaptureFixture[str]

ROWS: dict[str, dict[str, Any]] = {
    "gsm8k": {"question": "Two and two?", "answer": "2 + 2 = <<2+2=4>>4\n#### 4"},
    "mmlu": {"question": "Blue?", "choices": ["sky", "grass"], "answer": 0, "subject": "colours"},
    "arc": {
        "id": "Mercury_7",
        "question": "Blue?",
        "choices": {"text": ["sky", "grass"], "label": ["1", "2"]},
        "answerKey": "1",
    },
    "triviaqa": {
        "question": "Capital of France?",
        "question_id": "tc_2",
        "answer": {"value": "Paris", "aliases": ["Paris, France", "City of Light"]},
    },
    "humaneval": {
        "task_id": "HumanEval/7",
        "prompt": 'def add(a, b):\n    """ Their sum. """\n',
        "canonical_solution": "    return a + b\n",
        "test": "METADATA = {}\n\n\ndef check(candidate):\n    assert candidate(2, 3) == 5\n",
        "entry_point": "add",
    },
}


def rows_file(folder: Path, *rows: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("gsm8k", "So it is 4.", "5"),
        ("mmlu", "A", "B"),
        ("arc", "1", "2"),
        ("triviaqa", "paris, france", "London"),
    ],
)
def test_a_row_of_a_public_set_becomes_a_graded_prompt(
    tmp_path: Path, name: str, right: str, wrong: str
) -> None:
    path = rows_file(tmp_path, ROWS[name])
    [prompt] = read_prompts(path, line_of=READY_FORMATS[name]).prompts
    assert prompt.grader(right) is True
    assert prompt.grader(wrong) is False
    assert ROWS[name]["question"] in prompt.body({})["messages"][0]["content"]


def test_a_row_of_humaneval_is_run_where_that_is_allowed(tmp_path: Path) -> None:
    row = ROWS["humaneval"]
    path = rows_file(tmp_path, row)
    with pytest.raises(ConfigError, match="line 1: grader 'code' runs what a model wrote; allow"):
        read_prompts(path, line_of=READY_FORMATS["humaneval"])
    [prompt] = read_prompts(path, line_of=READY_FORMATS["humaneval"], run_code=True).prompts
    assert prompt.query_id == "HumanEval/7"
    assert "def add(a, b)" in prompt.body({})["messages"][0]["content"]
    assert prompt.grader(row["canonical_solution"]) is True
    assert prompt.grader("    return a - b\n") is False


def test_a_row_of_humaneval_with_a_pattern_runs_nothing(tmp_path: Path) -> None:
    row = {"prompt": "def add(a, b):\n", "regex": r"return\s+(a\s*\+\s*b|b\s*\+\s*a)"}
    [prompt] = read_prompts(rows_file(tmp_path, row), line_of=READY_FORMATS["humaneval"]).prompts
    assert prompt.grader("Add them:\n```python\ndef add(a, b):\n    return b + a\n```") is True
    assert prompt.grader("```python\nraise SystemExit\n```") is False


def test_code_is_run_by_the_command_where_that_is_allowed(
    cascade: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cascade.answer = lambda tier, prompt: f"    return a {'+' if tier == 'big' else '-'} b"
    command = ["collect", rows_file(tmp_path, ROWS["humaneval"]), "--format", "humaneval"]
    command += ["--base-url", cascade.base_url, "--attempts", tmp_path / "attempts.jsonl", "--json"]
    assert main([str(part) for part in command]) == 2
    assert "allow it with --run-code" in capsys.readouterr().err
    assert cascade.bodies == []
    assert main([*(str(part) for part in command), "--run-code"]) == 0
    small, big = json.loads(capsys.readouterr().out)["tiers"]
    assert (small["accuracy"], big["accuracy"]) == (0, 1)


def test_ids_of_rows_are_kept(tmp_path: Path) -> None:
    for name, query_id in (("arc", "Mercury_7"), ("triviaqa", "tc_2"), ("gsm8k", "1")):
        path = rows_file(tmp_path, ROWS[name])
        [prompt] = read_prompts(path, line_of=READY_FORMATS[name]).prompts
        assert prompt.query_id == query_id


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        ("gsm8k", {"answer": "4"}, "line 1: answer has no '####'"),
        ("mmlu", {"answer": 2}, "answer = 2: not an index of choices"),
        ("mmlu", {"choices": "sky"}, "choices = 'sky': not a list"),
        ("arc", {"answerKey": "C"}, "answerKey = 'C': not one of the labels"),
        ("arc", {"choices": []}, "not an object with label and text"),
        ("triviaqa", {"answer": "Paris"}, "not an object with value and aliases"),
        ("humaneval", {"regex": "("}, "not a regular expression"),
        ("humaneval", {"test": 7}, "grader code takes an object with prompt, entry_point and test"),
    ],
)
def test_a_row_of_another_form_is_named(
    tmp_path: Path, name: str, changes: dict[str, Any], words: str
) -> None:
    path = rows_file(tmp_path, ROWS[name] | changes)
    with pytest.raises(ConfigError, match=words.replace("[", r"\[")):
        read_prompts(path, line_of=READY_FORMATS[name], run_code=True)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no 'answer' in this row; it has question"):
        read_prompts(rows_file(tmp_path, {"question": "?"}), line_of=READY_FORMATS["gsm8k"])


def test_csv_has_the_same_keys_as_columns(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text('prompt,reference,grader,group\n"Two\nlines?",4,numeric,\nMore?,yes,exact,u1\n')
    first, second = read_prompts(path).prompts
    assert first.body({})["messages"][0]["content"] == "Two\nlines?"
    assert first.grader("it is 4") is True
    assert (first.group, second.group) == (None, "u1")


def test_a_csv_row_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("prompt,reference\na,b,c\n")
    with pytest.raises(ConfigError, match="is not CSV in UTF-8"):
        read_prompts(path)


def test_every_tier_is_asked_once_and_a_second_run_asks_nothing(
    cascade: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cascade.answer = lambda tier, prompt: "4" if tier == "big" or "Two" in prompt else "5"
    cascade.changes = {"energy_j": 2.0, "energy_source": "meter"}
    rows = [{"question": f"{word} and two?", "answer": "#### 4"} for word in ("Two", "2")]
    command = ["collect", rows_file(tmp_path, *rows), "--format", "gsm8k", "--json"]
    command += ["--base-url", cascade.base_url, "--attempts", tmp_path / "attempts.jsonl"]
    for _ in range(2):
        assert main([str(part) for part in command]) == 0
        small, big = json.loads(capsys.readouterr().out)["tiers"]
        assert (small["n_answered"], small["n_failed"], small["accuracy"]) == (2, 0, 0.5)
        assert (big["accuracy"], big["energy_j"]) == (1.0, 2.0)
    assert len(cascade.bodies) == 4
    replay = ["replay", str(tmp_path / "attempts.jsonl"), "--accept", "small=-0.5", "--json"]
    assert main(replay) == 0
    assert json.loads(capsys.readouterr().out)["cost_source"] == "joules per request (meter)"


class Books:
    """Writes what a cascade's requests cost, as its server does: 1 J of small, 20 J of big."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def settle(self, request_id: str, tier: str) -> None:
        energy = SettledEnergy(
            request_id=request_id,
            booking="calibration",
            tier=tier,
            component="gpu",
            active_j=1.0 if tier == "small" else 20.0,
            loaded_j=None,
            source="nvml_energy",
            reason=None,
            edge_j=0.1,
            flags=(),
            tiers={},
            components={},
        )
        with self.path.open("a") as file:
            file.write(json.dumps({"kind": "energy", "time_s": 1.0, **energy._asdict()}) + "\n")


def test_a_policy_is_priced_in_joules_from_the_servers_records(
    cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    cascade.settles = Books(tmp_path / "records.jsonl").settle
    (tmp_path / "records.jsonl").touch()
    cascade.changes = lambda tier, prompt: {"score": -0.1 if prompt in "ab" else -3.0}
    rows = [{"prompt": p, "reference": f"big says {p}", "grader": "exact"} for p in "abcd"]
    attempts = tmp_path / "attempts.jsonl"
    command = ["collect", rows_file(tmp_path, *rows), "--base-url", cascade.base_url, "--json"]
    command += ["--attempts", attempts, "--records", tmp_path / "records.jsonl"]
    assert main([str(part) for part in command]) == 0
    small, big = json.loads(capsys.readouterr().out)["tiers"]
    assert (small["energy_j"], small["n_metered"]) == (1.0, 4)
    assert (big["energy_j"], big["n_metered"]) == (20.0, 4)
    assert main(["replay", str(attempts), "--accept", "small=-0.5", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # All four pay 1 J for the small tier, the two unsure ones 20 J more.
    assert (found["cost"], found["cost_last"]) == (1 + 20 / 2, 20)
    assert found["cost_source"] == "joules per request (nvml_energy)"


def test_joules_of_an_earlier_run_are_filled_in_without_asking_again(
    cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    records = tmp_path / "records.jsonl"
    cascade.settles = Books(records).settle
    command = ["collect", rows_file(tmp_path, {"prompt": "a"}, {"prompt": "b"})]
    command += ["--grader", "agrees", "--base-url", cascade.base_url]
    command += ["--attempts", tmp_path / "attempts.jsonl"]
    assert main([str(part) for part in command]) == 0
    assert "small: 2 answered, 0 failed, not graded, joules unknown" in capsys.readouterr().out
    records.rename(tmp_path / "records.jsonl.1")  # the server has moved it on
    assert main([str(part) for part in (*command, "--records", records)]) == 0
    captured = capsys.readouterr()
    assert "small: 2 answered, 0 failed, not graded, 1 J a request" in captured.out
    assert "big: 2 answered, 0 failed, not graded, 20 J a request" in captured.out
    assert len(cascade.bodies) == 4
    assert "waiting" not in captured.err


def test_records_that_are_not_there_end_it_before_anything_is_asked(
    cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    command = ["collect", rows_file(tmp_path, {"prompt": "a"}), "--base-url", cascade.base_url]
    command += ["--grader", "agrees", "--attempts", tmp_path / "attempts.jsonl"]
    command += ["--records", tmp_path / "none.jsonl"]
    assert main([str(part) for part in command]) == 2
    assert "none.jsonl is not there; name the server's records.file" in capsys.readouterr().err
    assert cascade.bodies == []


def test_a_summary_tells_how_many_joules_are_known(
    cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    cascade.changes = lambda tier, prompt: {"energy_j": 2.0 if prompt == "a" else None}
    command = ["collect", rows_file(tmp_path, {"prompt": "a"}, {"prompt": "b"})]
    command += ["--grader", "agrees", "--base-url", cascade.base_url]
    command += ["--attempts", tmp_path / "attempts.jsonl"]
    assert main([str(part) for part in command]) == 0
    assert "small: 2 answered, 0 failed, not graded, joules of 1 known" in capsys.readouterr().out


def test_a_summary_says_what_is_unknown(
    cascade: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["collect", rows_file(tmp_path, {"prompt": "a"}, {"prompt": "b"})]
    command += ["--grader", "agrees", "--base-url", cascade.base_url]
    command += ["--attempts", tmp_path / "attempts.jsonl"]
    assert main([str(part) for part in command]) == 0
    assert "small: 2 answered, 0 failed, not graded, joules unknown" in capsys.readouterr().out
