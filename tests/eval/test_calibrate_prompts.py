"""`hs-calibrate prompts` as a whole, and `hs-calibrate records` on the attempts it recorded."""

import csv
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from eval.calibrate import main

Capture = pytest.CaptureFixture[str]

N = 120
SIZES = ("--loss", "harm", "--epsilon", "0.05", "--n-fit", "40", "--n-certify", "60")


def is_hard(prompt: str) -> bool:
    """Every fourth question is one that the small tier gets wrong, and is unsure of."""
    return int(prompt) % 4 == 0


def taught(cascade: Any) -> Any:
    """A cascade whose giant is always right, at 1 and 20 joules a request."""
    cascade.answer = lambda tier, prompt: (
        "wrong" if tier == "small" and is_hard(prompt) else f"{prompt}!"
    )
    cascade.changes = lambda tier, prompt: {
        "score": -3.0 if is_hard(prompt) else -0.1,
        "energy_j": 1.0 if tier == "small" else 20.0,
        "energy_source": "meter",
    }
    return cascade


def prompts_file(folder: Path, n: int = N, **more: Any) -> Path:
    path = folder / "prompts.jsonl"
    lines = [{"prompt": str(i), "reference": f"{i}!"} | more for i in range(n)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def run(tmp_path: Path, cascade: Any) -> Callable[..., int]:
    """Runs `hs-calibrate prompts` on 120 prompts and a cascade that was `taught`."""
    taught(cascade)

    def run(*arguments: object, file: Path | None = None) -> int:
        paths = ("--base-url", cascade.base_url, "--attempts", tmp_path / "attempts.jsonl")
        command = ["prompts", file or prompts_file(tmp_path), *paths, *SIZES, *arguments]
        return main([str(part) for part in command])

    return run


def test_prompts_are_asked_and_calibrated(
    run: Callable[..., int], cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    assert run("--grader", "exact", "--json") == 0
    captured = capsys.readouterr()
    (line,) = captured.out.splitlines()
    found = json.loads(line)
    assert len(cascade.bodies) == 2 * N
    assert found["certified"] is True
    assert found["chain"] == ["small", "big"]
    assert (found["n_fit"], found["n_certify"], found["n_test"]) == (40, 60, 20)
    assert found["labels"] == "reference"
    assert (found["n_incomplete"], found["n_ungraded"]) == (0, 0)
    assert found["cost"] == {"small": 1.0, "big": 20.0}
    assert found["cost_source"] == "joules per request (meter)"
    assert found["tier_accuracy"]["big"] == 1.0
    assert found["test_accuracy"] == 1.0  # what is hard is told by the score
    assert captured.err.splitlines()[0] == f"small: 0 of {N}"
    assert captured.err.splitlines()[-1] == f"big: {N} of {N}"


def test_costs_are_joules_of_the_servers_records(
    run: Callable[..., int], cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    records = tmp_path / "records.jsonl"
    records.touch()
    usual = cascade.changes
    cascade.changes = lambda tier, prompt: (
        usual(tier, prompt)
        | {
            "energy_j": None,
            "energy_source": None,
        }
    )

    def settle(request_id: str, tier: str) -> None:
        active_j = 2.0 if tier == "small" else 30.0
        told = {"kind": "energy", "request_id": request_id, "active_j": active_j}
        with records.open("a") as file:
            file.write(json.dumps(told | {"source": "rapl", "reason": None}) + "\n")

    cascade.settles = settle
    assert run("--grader", "exact", "--records", records, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["cost"] == {"small": 2.0, "big": 30.0}
    assert found["cost_source"] == "joules per request (rapl)"


def test_recorded_attempts_give_the_same_result(
    run: Callable[..., int], cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    run("--grader", "exact", "--json")
    from_prompts = capsys.readouterr().out
    attempts = tmp_path / "attempts.jsonl"
    renamed = attempts.rename(tmp_path / "recorded.csv")  # the first line tells, not the name
    assert main(["records", str(renamed), *SIZES, "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == from_prompts
    assert captured.err == ""
    assert len(cascade.bodies) == 2 * N


def test_the_order_in_which_answers_come_changes_nothing(
    run: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    run("--grader", "exact", "--json")
    one = capsys.readouterr().out
    path = tmp_path / "attempts.jsonl"
    header, *lines = path.read_text().splitlines(keepends=True)
    path.write_text(header + "".join(reversed(lines)))
    main(["records", str(path), *SIZES, "--json"])
    assert capsys.readouterr().out == one


def test_a_second_run_asks_nothing(run: Callable[..., int], cascade: Any, capsys: Capture) -> None:
    run("--grader", "exact", "--json")
    one = capsys.readouterr()
    assert run("--grader", "exact", "--json") == 0
    other = capsys.readouterr()
    assert other.out == one.out
    assert len(cascade.bodies) == 2 * N
    assert other.err.splitlines() == [f"small: {N} of {N}", f"big: {N} of {N}"]


def test_the_words(run: Callable[..., int], capsys: Capture) -> None:
    assert run("--grader", '{"type": "exact"}') == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "small > big: certified harm loss <= 0.05" in " ".join(out.split())
    assert "Cost: joules per request (meter)." in out


@pytest.mark.usefixtures("hears_ctrl_c")
def test_ctrl_c_leaves_a_file_to_go_on_with(
    run: Callable[..., int], cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    cascade.hold_after = 150

    def press() -> None:
        cascade.is_holding.wait()
        os.kill(os.getpid(), signal.SIGINT)

    pressing = threading.Thread(target=press, daemon=True)
    pressing.start()
    assert run("--grader", "exact") == 130
    pressing.join()
    captured = capsys.readouterr()
    assert captured.out == ""
    last = captured.err.splitlines()[-1]
    assert last.startswith("hs-calibrate: stopped; what was answered is in ")
    assert last.endswith("attempts.jsonl, and the same command goes on from there")
    n_there = len((tmp_path / "attempts.jsonl").read_text().splitlines()) - 1
    assert 150 - 16 < n_there <= 150
    cascade.hold_after = None
    cascade.bodies.clear()
    assert run("--grader", "exact") == 0
    assert len(cascade.bodies) == 2 * N - n_there


def test_without_labels(run: Callable[..., int], tmp_path: Path, capsys: Capture) -> None:
    path = prompts_file(tmp_path, reference=None)
    assert run("--grader", "agrees", "--json", file=path) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["labels"] == "agreement"
    assert found["tier_accuracy"]["big"] == 1.0  # it agrees with itself
    assert found["test_harm"] == 0.0
    assert main(["records", str(tmp_path / "attempts.jsonl"), *SIZES]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "No labels: right means agreeing with the last tier" in words


def test_failed_and_ungraded_questions_are_counted(
    run: Callable[..., int], cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    fault = {"error": {"message": "too long", "type": "t", "param": None, "code": None}}
    cascade.reply = lambda tier, prompt, n: (
        web.json_response(fault, status=400) if prompt == "1" else None
    )
    usual = cascade.answer
    cascade.answer = lambda tier, prompt: "10:30" if prompt == "2" else usual(tier, prompt)
    path = prompts_file(tmp_path, N + 2)
    assert run("--grader", "numeric", "--json", file=path) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert (found["n_incomplete"], found["n_ungraded"]) == (1, 1)
    assert found["n_test"] == 20
    assert "small: 1 failed, the first: HTTP 400: too long" in captured.err
    assert main(["records", str(tmp_path / "attempts.jsonl"), *SIZES]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "Left out, not answered by every tier: 1 questions." in words
    assert "Left out, as the grader could not decide: 1 questions." in words


def test_decisions_name_split_and_id(
    run: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    decisions = tmp_path / "decisions.csv"
    run("--grader", "exact", "--decisions", decisions, file=prompts_file(tmp_path, split="s"))
    with decisions.open(newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["split", "query_id", "model"]
    assert len(rows) == 20
    for split, query_id, model in rows:
        assert split == "s"
        # The id is the line's number, and the line's prompt its number from 0.
        assert model == ("big" if is_hard(str(int(query_id) - 1)) else "small")


def test_a_key_is_taken_from_the_environment(
    run: Callable[..., int], cascade: Any, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.setenv("HS_KEY", "secret")
    run("--grader", "exact", "--api-key-env", "HS_KEY")
    assert {headers["authorization"] for headers in cascade.headers} == {"Bearer secret"}


def test_a_chain_of_some_tiers(run: Callable[..., int], cascade: Any, capsys: Capture) -> None:
    cascade.tiers = {"small": 1, "mid": 8, "big": 70}
    assert run("--grader", "exact", "--chain", "small,big", "--json") == 0
    assert json.loads(capsys.readouterr().out)["chain"] == ["small", "big"]
    assert {tier for tier, _ in cascade.asked} == {"small", "big"}


def complaint(run: Callable[..., int], capsys: Capture, *arguments: object, **more: Any) -> str:
    """The one line on stderr of a call that ends with status 2 and prints nothing."""
    assert run(*arguments, **more) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    return line.removeprefix("hs-calibrate: error: ")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--chain", "small,huge"), "--chain: no model 'huge'; small, big"),
        (("--chain", "big,small"), "goes through its tiers in the order small,big"),
        (("--chain", "big"), "--chain big: at least two tiers, each once"),
        (("--cost", "huge=1"), "--cost huge: no such model; small, big"),
        (("--n-fit", "90"), "120 questions in 120 groups are too few for 90 to fit, 60 to certify"),
        (("--n-certify", "40"), "40 of 120 prompts are there to certify on; harm <= 0.05 at delta"),
        (("--api-key-env", "HS_NO_KEY"), "--api-key-env names HS_NO_KEY, which is not set"),
    ],
)
def test_wishes_that_are_refused_before_anything_is_asked(
    run: Callable[..., int],
    cascade: Any,
    capsys: Capture,
    arguments: tuple[str, ...],
    words: str,
) -> None:
    assert words in complaint(run, capsys, "--grader", "exact", *arguments)
    assert cascade.bodies == []


def test_too_few_prompts_to_certify_such_a_harm(run: Callable[..., int], capsys: Capture) -> None:
    # ln 0.1 / ln 0.95 = 44.9
    line = complaint(run, capsys, "--grader", "exact", "--n-certify", 44)
    assert line.endswith(
        "44 of 120 prompts are there to certify on; harm <= 0.05 at delta 0.1 takes at least 45"
    )
    assert run("--grader", "exact", "--n-certify", 45) in (0, 3)


def test_another_prompts_file_does_not_fit_the_attempts(
    run: Callable[..., int], cascade: Any, tmp_path: Path, capsys: Capture
) -> None:
    run("--grader", "exact")
    capsys.readouterr()
    line = complaint(run, capsys, "--grader", "exact", file=prompts_file(tmp_path, N + 1))
    assert "was recorded with other prompts (data_sha256: " in line
    cascade.fingerprint = {"hash": "f2", "parts": {"scorer": "s2"}}
    line = complaint(run, capsys, "--grader", "exact", file=prompts_file(tmp_path))
    assert 'with other fingerprint of the cascade (scorer was "s1", is "s2")' in line
    assert len(cascade.bodies) == 2 * N


def test_the_prompts_file_is_never_written(
    run: Callable[..., int], tmp_path: Path, capsys: Capture
) -> None:
    path = prompts_file(tmp_path)
    before = path.read_bytes()
    line = complaint(run, capsys, "--grader", "exact", "--attempts", path)
    assert "prompts.jsonl is not a file of attempts" in line
    assert path.read_bytes() == before


def test_labelled_prompts_are_no_records(tmp_path: Path, capsys: Capture) -> None:
    assert main(["records", str(prompts_file(tmp_path))]) == 2
    assert "holds prompts without answers; hs-calibrate prompts asks" in capsys.readouterr().err


def test_a_server_that_goes_away_ends_with_status_3(
    run: Callable[..., int], cascade: Any, capsys: Capture
) -> None:
    fault = {"error": {"message": "who are you", "type": "t", "param": None, "code": None}}
    cascade.reply = lambda tier, prompt, n: web.json_response(fault, status=401) if n > 50 else None
    assert run("--grader", "exact") == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "error: tier 'small': HTTP 401: who are you; what was answered is in" in captured.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--grader", "fuzzy"), "argument --grader: grader = 'fuzzy': allowed types: exact"),
        (("--grader", "{"), "argument --grader: '{' is not a JSON object"),
        (("--grader", '{"type": "regex", "x": 1}'), "grader regex: x = 1: Extra inputs"),
        (("--sampling", "0"), "argument --sampling: '0' is not a JSON object"),
        (("--sampling", '{"n": 2}'), "argument --sampling: n is set by the collection"),
        (("--concurrency", "0"), "argument --concurrency: 0 is not at least 1"),
    ],
)
def test_flags_that_are_never_allowed(
    run: Callable[..., int], capsys: Capture, arguments: tuple[str, ...], words: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(*arguments)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("missing", ["--base-url", "--attempts"])
def test_what_has_no_default(tmp_path: Path, capsys: Capture, missing: str) -> None:
    given = {"--base-url": "http://127.0.0.1:1/v1", "--attempts": "a.jsonl"}
    options = [part for name, value in given.items() if name != missing for part in (name, value)]
    with pytest.raises(SystemExit):
        main(["prompts", str(prompts_file(tmp_path)), *options])
    assert f"the following arguments are required: {missing}" in capsys.readouterr().err
