"""`hs-calibrate records`: what it prints, what it writes, and the status it ends with."""

import argparse
import contextlib
import csv
import io
import json
import os
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eval.calibrate import COMMANDS, main

Capture = pytest.CaptureFixture[str]
Make = Callable[..., Any]

FAST = ("--loss", "harm", "--epsilon", "0.05", "--n-fit", "200", "--n-certify", "400")
ISSUE_KEYS = {
    "chain",
    "epsilon",
    "delta",
    "loss",
    "certified",
    "policy",
    "n_fit",
    "n_certify",
    "n_test",
    "test_harm",
    "test_accuracy",
    "test_accuracy_last",
    "acceptance",
    "cost_ratio",
}
MODELS = ["small-1b", "mid-8b", "big-70b"]


def as_json(capsys: Capture, *arguments: object, status: int = 0) -> dict[str, Any]:
    """The object that `--json` prints: on one line, alone on stdout, and nothing on stderr."""
    assert main(["records", *map(str, arguments), "--json"]) == status
    captured = capsys.readouterr()
    assert captured.err == ""
    (line,) = captured.out.splitlines()
    found: dict[str, Any] = json.loads(line, parse_constant=pytest.fail)  # neither NaN nor Infinity
    return found


@pytest.fixture(scope="module")
def fast(cascade_csv: Path) -> dict[str, Any]:
    """What `--json` prints of one calibration that many tests look at."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["records", str(cascade_csv), *FAST, "--json"]) == 0
    found: dict[str, Any] = json.loads(out.getvalue(), parse_constant=pytest.fail)
    return found


def test_json_holds_what_the_issue_lists(fast: dict[str, Any]) -> None:
    found = fast
    assert found.keys() >= ISSUE_KEYS
    assert found["certified"] is True
    assert (found["epsilon"], found["delta"], found["loss"]) == (0.05, 0.1, "harm")
    assert (found["n_fit"], found["n_certify"], found["n_test"]) == (200, 400, 400)
    assert found["chain"][-1] == "big-70b"
    assert len(found["chain"]) > 1
    assert set(found["chain"]) <= set(MODELS)
    assert list(found["acceptance"]) == MODELS
    assert sum(found["acceptance"].values()) == pytest.approx(1.0)
    assert found["cost_ratio"] > 1.05
    assert found["p_value"] <= 0.1
    # Losing is losing accuracy, unless rescued.
    assert found["test_accuracy"] >= found["test_accuracy_last"] - found["test_harm"] - 1e-12
    assert found["test_net_loss"] == found["test_accuracy_last"] - found["test_accuracy"]


def test_the_cost_ratio_is_the_last_tier_over_every_tier_asked(fast: dict[str, Any]) -> None:
    found = fast
    # 100 tokens a request, by 1, 8 and 70 billion parameters.
    assert found["cost"] == {"small-1b": 100.0, "mid-8b": 800.0, "big-70b": 7000.0}
    mean_cost = sum(found["cost"][model] * found["asked"][model] for model in MODELS)
    assert found["cost_ratio"] == pytest.approx(7000.0 / mean_cost)


def test_the_policy_names_a_rule_for_every_state_that_is_reached(fast: dict[str, Any]) -> None:
    found = fast
    states = [tuple(rule["asked"]) for rule in found["policy"]]
    assert states[0] == (found["chain"][0],)
    assert len(set(states)) == len(states)
    for rule in found["policy"]:
        assert rule["else_ask"]
        for band in rule["else_ask"]:
            reached = (*rule["asked"], band["tier"])
            assert band["tier"] == "big-70b" or reached in states


def test_net_is_the_default_loss_at_2_percent(cascade_csv: Path, capsys: Capture) -> None:
    found = as_json(
        capsys, cascade_csv, "--n-fit", 200, "--n-certify", 300, "--chain", "mid-8b,big-70b"
    )
    assert (found["epsilon"], found["delta"], found["loss"]) == (0.02, 0.1, "net")
    assert found["seed"] == 0


def test_the_same_seed_gives_the_same_output_twice(cascade_csv: Path, capsys: Capture) -> None:
    one, same, other = (as_json(capsys, cascade_csv, *FAST, "--seed", s) for s in (3, 3, 4))
    assert one == same
    assert one["test_accuracy"] != other["test_accuracy"]


def test_the_bootstrap_reports_on_the_whole_file(cascade_csv: Path, capsys: Capture) -> None:
    found = as_json(capsys, cascade_csv, *FAST, "--bootstrap")
    assert (found["n_fit"], found["n_certify"], found["n_test"]) == (200, 400, 1000)


@pytest.mark.parametrize("bootstrap", [True, False])
def test_decisions_say_who_answers_each_reported_question(
    cascade_csv: Path, capsys: Capture, tmp_path: Path, bootstrap: bool
) -> None:
    out = tmp_path / "decisions.csv"
    options = ["--bootstrap"] if bootstrap else []
    found = as_json(capsys, cascade_csv, *FAST, *options, "--decisions", out)
    with out.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "query_id", "model"]
    assert len(rows) == found["n_test"]
    asked = {(split, query_id) for split, query_id, _ in rows}
    assert len(asked) == len(rows)
    # Ids repeat in both splits of the file; 0 ... 499 in each.
    everything = {(split, str(i)) for split in ("train", "test") for i in range(500)}
    assert asked == everything if bootstrap else asked < everything
    answers = Counter(model for _, _, model in rows)
    shares = {model: answers[model] / len(rows) for model in MODELS}
    assert shares == pytest.approx(found["acceptance"])


def test_decisions_and_truth_give_the_reported_accuracy(
    cascade_csv: Path, capsys: Capture, tmp_path: Path
) -> None:
    out = tmp_path / "decisions.csv"
    found = as_json(capsys, cascade_csv, *FAST, "--decisions", out)
    with cascade_csv.open(newline="") as file:
        correct = {
            (row["split"], row["query_id"], row["model"]): row["correct"] == "1"
            for row in csv.DictReader(file)
        }
    with out.open(newline="") as file:
        answers = [(row["split"], row["query_id"], row["model"]) for row in csv.DictReader(file)]
    right = [correct[answer] for answer in answers]
    last_right = [correct[split, query_id, "big-70b"] for split, query_id, _ in answers]
    harms = [last and not ours for ours, last in zip(right, last_right, strict=True)]
    assert found["test_accuracy"] == pytest.approx(sum(right) / len(right))
    assert found["test_accuracy_last"] == pytest.approx(sum(last_right) / len(right))
    assert found["test_harm"] == pytest.approx(sum(harms) / len(right))
    assert found["test_harm"] > 0  # something was risked


@pytest.mark.parametrize("flags", [(), ("--bootstrap",)])
def test_where_nothing_is_certifiable_the_last_tier_answers_all(
    cascade_csv: Path, capsys: Capture, tmp_path: Path, flags: tuple[str, ...]
) -> None:
    # 113 questions are too few for epsilon = 0.02 (notes/confidence.md section 5: 114).
    out = tmp_path / "decisions.csv"
    found = as_json(
        capsys,
        cascade_csv,
        *("--loss", "harm", "--n-fit", 200, "--n-certify", 113, "--decisions", out, *flags),
        status=3,
    )
    assert found.keys() >= ISSUE_KEYS
    assert found["certified"] is False
    assert found["chain"] == ["big-70b"]
    assert found["cost_ratio"] == 1
    assert found["policy"] == []
    assert found["p_value"] is None
    assert found["test_harm"] == 0
    assert found["test_accuracy"] == found["test_accuracy_last"]
    assert found["acceptance"] == {"small-1b": 0, "mid-8b": 0, "big-70b": 1}
    assert {line.split(",")[2] for line in out.read_text().splitlines()[1:]} == {"big-70b"}


@pytest.mark.parametrize("last_cost", ["0.012", "0.032", "2.06"])
def test_a_cascade_that_saves_nothing_is_not_certified(
    make_rows: Make, write_csv: Make, capsys: Capture, last_cost: str
) -> None:
    # The small model is never right. The mean of 400 costs may differ from the cost by rounding.
    path = write_csv(make_rows(800, skills={"small-1b": -5.0, "big-70b": 1.0}))
    costs = ("--cost", "small-1b=0.01", "--cost", f"big-70b={last_cost}")
    found = as_json(capsys, path, *FAST, *costs, status=3)
    assert found["certified"] is False
    assert found["cost_ratio"] == 1


def test_given_costs_order_the_chain_and_are_reported(cascade_csv: Path, capsys: Capture) -> None:
    costs = [f"--cost={model}={cost}" for model, cost in zip(MODELS, (3, 2, 9), strict=True)]
    found = as_json(capsys, cascade_csv, *FAST, *costs)
    assert list(found["cost"].items()) == [("mid-8b", 2.0), ("small-1b", 3.0), ("big-70b", 9.0)]
    assert found["cost_source"] == "as given, per request"


def test_a_chain_may_leave_models_of_the_file_out(cascade_csv: Path, capsys: Capture) -> None:
    found = as_json(capsys, cascade_csv, *FAST, "--chain", "mid-8b,big-70b")
    assert list(found["acceptance"]) == ["mid-8b", "big-70b"]
    assert {tuple(entry["chain"]) for entry in found["chains"]} == {
        ("mid-8b", "big-70b"),
        ("big-70b",),
    }


def test_the_words_fit_80_columns(cascade_csv: Path, capsys: Capture) -> None:
    assert main(["records", str(cascade_csv), *FAST]) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    for word in ("certified", "small-1b", "mid-8b", "big-70b", "accuracy", "lost", "Seed of"):
        assert word in out


def test_unequal_groups_are_what_the_certificate_is_about(
    make_rows: Make, write_csv: Make, capsys: Capture, tmp_path: Path
) -> None:
    skills = dict(zip(MODELS, (0.5, 0.7, 0.95), strict=True))
    rows = make_rows(1000, skills=skills)
    for row in rows:  # four questions of each of 25 users, and 900 of nobody
        row["group"] = f"u{int(row['query_id']) // 2}" if int(row["query_id"]) < 50 else ""
    path, certificate = write_csv(rows), tmp_path / "certificate.json"
    main(["records", str(path), "--certificate", str(certificate), *FAST])
    words = " ".join(capsys.readouterr().out.split())
    assert "for a random question of a random group" in words
    assert json.loads(certificate.read_text())["estimand"] == "question_of_group"


def test_the_words_where_nothing_is_certifiable(
    make_rows: Make, write_csv: Make, capsys: Capture
) -> None:
    skills = {f"a-rather-long-name-of-a-model-that-has-{b}b": 0.8 for b in (1, 8, 70)}
    rows = make_rows(200, skills=skills)
    path = write_csv([*rows, {**rows[0], "query_id": "alone"}])
    assert main(["records", str(path), "--loss", "harm"]) == 3
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    words = " ".join(out.split())
    assert "Nothing that pays is certifiable at epsilon 0.02, delta 0.1 (harm loss)" in words
    assert "Left out, not answered by every tier: 1 questions." in words


@pytest.mark.parametrize("mark", ["[int4]", "[/b]"])
def test_names_with_brackets_are_printed_as_they_are(
    make_rows: Make, write_csv: Make, capsys: Capture, mark: str
) -> None:
    path = write_csv(make_rows(200, skills={f"small-1b{mark}": 0.5, "big-70b": 1.0}))
    assert main(["records", str(path), "--loss", "harm"]) in (0, 3)
    assert f"small-1b{mark}" in capsys.readouterr().out


def complaint(capsys: Capture, *arguments: object) -> str:
    """The one line on stderr of a call that ends with status 2 and prints nothing."""
    assert main(["records", *map(str, arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("hs-calibrate: error: ")
    return line


@pytest.mark.parametrize("json_too", [[], ["--json"]])
def test_a_file_that_is_not_there(capsys: Capture, tmp_path: Path, json_too: list[str]) -> None:
    line = complaint(capsys, tmp_path / "none.csv", *json_too)
    assert "cannot read" in line
    assert "none.csv" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--chain", "tiny,big-70b"), "--chain: no model 'tiny'; small-1b, mid-8b, big-70b"),
        (("--chain", "big-70b"), "--chain big-70b: at least two tiers, each once"),
        (("--chain", "big-70b,big-70b"), "at least two tiers, each once"),
        (("--chain", ""), "--chain: no model ''"),
        (("--cost", "tiny=1"), "--cost tiny: no such model; small-1b, mid-8b, big-70b"),
        (("--cost", "big-70b=1"), "no --cost for 'small-1b'; give one for every tier or for none"),
        (("--n-fit", "900"), "1000 questions in 1000 groups are too few for 900 to fit"),
        (("--decisions", "/no/such/folder/out.csv"), "cannot write /no/such/folder/out.csv"),
    ],
)
def test_wishes_that_the_file_does_not_allow(
    cascade_csv: Path, capsys: Capture, arguments: tuple[str, ...], words: str
) -> None:
    assert words in complaint(capsys, cascade_csv, *FAST[:4], *arguments)


def test_one_model_is_no_cascade(make_rows: Make, write_csv: Make, capsys: Capture) -> None:
    path = write_csv(make_rows(50, skills={"only-8b": 0.5}))
    assert "at least two tiers" in complaint(capsys, path)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_questions_is_too_few(
    make_rows: Make, write_csv: Make, capsys: Capture, n: int
) -> None:
    path = write_csv(make_rows(n, skills={"small-1b": 0.5, "big-70b": 1.0}))
    assert "too few" in complaint(capsys, path)


@pytest.mark.parametrize(
    "arguments", [("--n-fit", 1, "--bootstrap"), ("--n-fit", 1), ("--n-fit", 2, "--n-certify", 1)]
)
def test_a_fit_split_that_tells_nothing_certifies_nothing(
    cascade_csv: Path, capsys: Capture, arguments: tuple[object, ...]
) -> None:
    assert as_json(capsys, cascade_csv, *arguments, status=3)["cost_ratio"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--epsilon", "1.5"), "argument --epsilon: 1.5 is not between 0 and 1"),
        (("--epsilon", "0"), "argument --epsilon: 0 is not between 0 and 1"),
        (("--delta", "nan"), "argument --delta: nan is not between 0 and 1"),
        (("--loss", "regret"), "argument --loss: invalid choice: 'regret'"),
        (("--n-fit", "0"), "argument --n-fit: 0 is not at least 1"),
        (("--n-certify", "few"), "argument --n-certify"),
        (("--cost", "big-70b"), "argument --cost"),
        (("--cost", "=1"), "argument --cost: '=1' is not MODEL=X with X above 0"),
        (("--cost", "big-70b=-1"), "argument --cost: 'big-70b=-1' is not MODEL=X with X above 0"),
        (("--cost", "big-70b=nan"), "argument --cost: 'big-70b=nan' is not MODEL=X"),
        (("--seed", "-1"), "argument --seed"),
    ],
)
def test_flags_that_are_never_allowed_end_with_status_2(
    cascade_csv: Path, capsys: Capture, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["records", str(cascade_csv), "=".join(arguments)])
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err.splitlines()[-1]


def test_a_command_is_needed(capsys: Capture) -> None:
    with pytest.raises(SystemExit) as ended:
        main([])
    assert ended.value.code == 2
    assert "command" in capsys.readouterr().err


def test_records_may_come_through_a_pipe(
    cascade_csv: Path, fast: dict[str, Any], capsys: Capture, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    content = cascade_csv.read_bytes()
    writing = threading.Thread(target=lambda: pipe.write_bytes(content), daemon=True)
    writing.start()
    piped = as_json(capsys, pipe, *FAST)
    writing.join()
    assert piped == fast


def test_every_option_has_its_row_in_the_page() -> None:
    options = {"--version"}  # of the program itself
    for entry in COMMANDS.entries.values():
        parser = argparse.ArgumentParser()
        entry.load().fill(parser)
        options |= {name for name in parser._option_string_actions if name.startswith("--")}
    page = (Path(__file__).parents[2] / "docs/calibrate.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(--[\w-]+)", page, flags=re.MULTILINE)) == options
