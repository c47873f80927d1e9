"""`hs-eval records`: recorded answers with measured joules, as JSON and as tables."""

import contextlib
import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cli import main
from eval.recorded.question_tokens import QuestionTokens
from eval.recorded.records_csv import outcomes_of, read_records
from eval.rivals.prompt_router import router_paths
from hybridserve_llm.errors import ConfigError

JOULES = {"org/Small-1B": 0.01, "org/Mid-8B-Instruct": 0.08, "org/Big-70B": 0.7}


@pytest.fixture(scope="session")
def energy_csv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("energy") / "runs.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "gpu", "energy_per_token_j"])
        writer.writerows((model, "H100", joules) for model, joules in JOULES.items())
    return path


@pytest.fixture(scope="session")
def options(cascade_csv: Path, energy_csv: Path) -> list[str]:
    """Of the study of 1,000 questions that three models answered with 90 + 10 tokens each."""
    return ["records", str(cascade_csv), "--energy", str(energy_csv), "--gpu", "H100"]


@pytest.fixture(scope="module")
def result(options: list[str]) -> dict[str, Any]:
    """Run the command once for all tests that read its JSON; none of them changes it."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main([*options, "--epsilon", "0.02", "0.05", "--json"]) == 0
    printed: dict[str, Any] = json.loads(out.getvalue())
    return printed


def test_json_tells_what_each_epsilon_saves(result: dict[str, Any]) -> None:
    strict, lax = result["rows"]
    assert [strict["epsilon"], lax["epsilon"]] == [0.02, 0.05]
    for row in (strict, lax):
        assert row["certified"]
        assert row["chain"][-1] == "big-70b"
        # 100 tokens, prompt tokens as dear as output tokens, at 0.7 J
        assert row["energy_last_j"] == pytest.approx(70)
        assert row["ratio"] == pytest.approx(row["energy_last_j"] / row["energy_j"])
        assert row["accuracy_difference"] == pytest.approx(row["accuracy"] - row["accuracy_last"])
        low, high = row["saved_j_interval"]
        assert low <= row["energy_last_j"] - row["energy_j"] <= high
    assert lax["ratio"] > strict["ratio"] > 1


def test_a_question_pays_for_every_tier_that_was_asked(result: dict[str, Any]) -> None:
    # Every request has 100 tokens, so joules follow from how often each tier was asked.
    of_tier = {"small-1b": 1.0, "mid-8b": 8.0, "big-70b": 70.0}
    for row in result["rows"]:
        for way in (row, *row["rivals"], row["random_at_equal_energy"]):
            expected = sum(share * of_tier[name] for name, share in way["asked"].items())
            assert way["energy_j"] == pytest.approx(expected)


def test_ideal_ways_and_tiers_alone_stand_beside(result: dict[str, Any]) -> None:
    fixed = {way["name"]: way for way in result["fixed"]}
    assert list(fixed) == [
        "small-1b alone", "mid-8b alone", "big-70b alone", "perfect chain", "oracle",
    ]  # fmt: skip
    assert fixed["small-1b alone"]["ratio"] == pytest.approx(70)
    assert fixed["oracle"]["energy_j"] < fixed["perfect chain"]["energy_j"]
    assert all(row["ratio"] < fixed["perfect chain"]["ratio"] for row in result["rows"])


def test_random_escalation_costs_as_much_and_is_right_less_often(result: dict[str, Any]) -> None:
    for row in result["rows"]:
        random = row["random_at_equal_energy"]
        assert random["energy_j"] == pytest.approx(row["energy_j"])
        assert random["accuracy"] < row["accuracy"]


def test_every_baseline_is_there(result: dict[str, Any]) -> None:
    assert [way["name"] for way in result["rows"][0]["rivals"]] == [
        "best raw score",
        "one calibrated score",
        "length only",
        "router on the prompt",
        "random routing",
    ]


def test_prompts_may_count_less(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [*options, "--epsilon", "0.05", "--prompt-weight", "0", "--holdout", "--json"]
    assert main(arguments) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["rows"][0]["energy_last_j"] == pytest.approx(7)  # 10 output tokens at 0.7 J
    assert (result["n_fit"], result["n_certify"], result["n_test"]) == (250, 500, 250)


def test_what_is_not_certified_asks_the_last_tier_for_everything(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    # 20 questions cannot certify 2 % at delta 0.1: that takes ln(0.1) / ln(0.98) = 114.
    assert main([*options, "--epsilon", "0.02", "--n-certify", "20", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)["rows"]
    assert not row["certified"]
    assert row["chain"] == ["big-70b"]
    assert (row["ratio"], row["accuracy"]) == (1.0, row["accuracy_last"])
    assert row["accuracy_difference_interval"] is None


@pytest.mark.slow
def test_tables_fit_80_columns(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*options, "--epsilon", "0.05"]) == 0
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= 80
    assert "big-70b: 0.7 J, measured as org/Big-70B" in printed
    assert "perfect chain" in printed


def test_an_unknown_gpu_ends_with_status_2(
    options: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*options[:-1], "B200"]) == 2
    assert "the measurements are of H100" in capsys.readouterr().err


def test_unknown_tokens_are_the_models_mean_and_none_at_all_an_error(
    write_csv: Callable[..., Path], record: Callable[..., Any]
) -> None:
    rows = [record(0, "a", completion_tokens=""), record(1, "a", completion_tokens=30)]
    tokens = QuestionTokens.of_records(read_records(write_csv(rows)), ["a"])
    assert tokens.completion.tolist() == [[30], [30]]
    with pytest.raises(ConfigError, match="no row of 'a' has its completion_tokens"):
        QuestionTokens.of_records(read_records(write_csv(rows[:1])), ["a"])


def test_a_router_sends_the_prompts_that_look_easy(
    write_csv: Callable[..., Path], record: Callable[..., Any]
) -> None:
    # The small model is right on prompts of 10 tokens and wrong on those of 1,000.
    rows = [
        record(i, model, prompt_tokens=length, correct=int(model == "big" or length == 10))
        for i in range(200)
        for length in [10 if i % 2 else 1000]
        for model in ("small", "big")
    ]
    outcomes, _ = outcomes_of(read_records(write_csv(rows)), ["small", "big"], [1.0, 10.0])
    [path] = router_paths(outcomes, "net")
    answering = [way.replay(outcomes).answering for way in path.ways]
    assert (answering[0] == 1).all()
    assert (answering[-1] == 0).all()
    short = np.exp(outcomes.prompt_features[:, 0]) < 100
    assert any(((chosen == 0) == short).all() for chosen in answering)
