"""Joules per token: matched by name, else read off the line of dense models; faults are named."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from eval.recorded.measured_energy import read_energy_runs, token_energies
from eval.recorded.model_names import active_billions, known_facts_like, same_model
from hybridserve_llm.errors import ConfigError


def run(model: str, size: float, per_token_j: object, **changes: object) -> dict[str, Any]:
    """A dense model's run of task chat on an H100, at a batch of 64."""
    values = {
        "model": model,
        "gpu": "H100",
        "task": "chat",
        "params_b": size,
        "active_params_b": size,
        "avg_batch_size": 64,
        "energy_per_token_j": per_token_j,
    }
    return values | changes


def written(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path = folder / "energy.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys())
        writer.writeheader()
        writer.writerows(rows)
    return path


TWO_SIZES = [run("org/Llama-3.1-8B-Instruct", 8, 0.1), run("org/Llama-3.1-32B", 32, 0.2)]


def energies(
    folder: Path, rows: Sequence[Mapping[str, Any]], *models: str, **changes: Any
) -> dict[str, float]:
    options: dict[str, Any] = {"gpu": "H100", "task": None, "sizes_b": {}}
    found = token_energies(read_energy_runs(written(folder, rows)), models, **options | changes)
    return {each.model: each.per_token_j for each in found.of_model}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("llama3.1-405b", "meta-llama/Llama-3.1-405B-Instruct-FP8", True),
        ("llama3.1-8b", "meta-llama/Llama-3.1-8B", True),
        ("llama3.1-70b", "meta-llama/Llama-3.3-70B-Instruct", False),
        ("gemma-3-12b", "google/gemma-3-12b-it", True),
        ("meta-llama/Meta-Llama-3.1-70B-Instruct", "llama3.1-70b", True),
        ("accounts/host/models/llama-v3p1-405b-instruct", "Llama-3.1-405B", True),
        ("Llama-3.1-8B-Instruct-quantized.w8a8", "llama3.1-8b", False),  # who knows what it is
        ("Llama-3.1-8B-Instruct-w8a8", "llama3.1-8b", True),
        ("llama3.1-8b", "meta-llama/Llama-3.1-80B", False),
        ("qwen2.5-32b", "Qwen/Qwen2.5-Coder-32B-Instruct", False),
    ],
)
def test_names_are_compared_without_organisation_tuning_and_precision(
    one: str, other: str, expected: bool
) -> None:
    assert same_model(one, other) is expected


def test_a_mixture_tells_its_active_size_and_a_bare_name_none() -> None:
    assert active_billions("Qwen3-235B-A22B") == 22
    assert active_billions("gpt-4o") is None
    assert active_billions("llama3.1-8b") == 8
    # Its name tells all parameters; 5.1e9 and an embedding of 201,088 x 2,880 (0.58e9) take part in
    # a token.
    assert active_billions("gpt-oss-120b") == pytest.approx(5.7, abs=0.1)


def test_the_catalogue_is_found_by_a_records_name() -> None:
    found = known_facts_like("llama3.1-405b")
    assert found is not None
    assert found[0] == "meta-llama/Llama-3.1-405B-Instruct-FP8"  # the smallest that fits


def test_the_best_run_of_the_model_itself_is_taken(tmp_path: Path) -> None:
    rows = [*TWO_SIZES, run("org/Llama-3.1-8B-Instruct", 8, 0.05, avg_batch_size=256)]
    assert energies(tmp_path, rows, "llama3.1-8b") == {"llama3.1-8b": 0.05}


def test_a_size_between_is_read_off_the_line_of_logarithms(tmp_path: Path) -> None:
    # From 8 to 32 (two doublings) joules double, so one doubling is a factor of sqrt(2).
    found = energies(tmp_path, TWO_SIZES, "other-16b", "other-4b")
    assert found["other-16b"] == pytest.approx(0.1 * 2**0.5)
    assert found["other-4b"] == pytest.approx(0.1 / 2**0.5)


def test_a_mixture_of_experts_does_not_bend_the_line(tmp_path: Path) -> None:
    rows = [*TWO_SIZES, run("org/moe", 400, 9.0, active_params_b=16)]
    assert energies(tmp_path, rows, "other-16b")["other-16b"] == pytest.approx(0.1 * 2**0.5)


def test_what_was_read_off_says_so(tmp_path: Path) -> None:
    runs = read_energy_runs(written(tmp_path, TWO_SIZES))
    found = token_energies(runs, ["x-16b", "x-4b"], gpu="h100-80gb", task=None, sizes_b={})
    between, below = found.of_model
    assert not between.is_measured
    assert "interpolated to 16e9 active parameters from 2 dense models" in between.source
    assert "extrapolated to 4e9" in below.source


def test_where_none_was_measured_the_task_of_most_dense_models_is_taken(tmp_path: Path) -> None:
    essay = [run(f"org/a-{size}b", size, float(size), task="essay") for size in (1, 4)]
    chat = [run(f"org/b-{size}b", size, size / 10) for size in (1, 4, 8)]
    # On the line through the chats a token of 2e9 parameters takes 0.2 J, through the essays 2 J.
    assert energies(tmp_path, essay + chat, "x-2b")["x-2b"] == pytest.approx(0.2)


def test_the_task_of_most_models_is_taken(tmp_path: Path) -> None:
    rows = [run("org/a-8b", 8, 9.0, task="essay"), run("org/a-8b", 8, 0.1), run("b-32b", 32, 0.2)]
    assert energies(tmp_path, rows, "a-8b", "b-32b") == {"a-8b": 0.1, "b-32b": 0.2}
    assert energies(tmp_path, rows, "a-8b", task="essay") == {"a-8b": 9.0}


def test_power_and_rate_stand_in_for_joules(tmp_path: Path) -> None:
    row = run("a-8b", 8, "", avg_power_w=500, output_tokens_per_s=1000)
    assert energies(tmp_path, [row], "a-8b") == {"a-8b": 0.5}  # 500 W / 1000 tokens/s


@pytest.mark.parametrize(
    ("models", "changes", "words"),
    [
        (("gpt-4o",), {}, "--active-parameters gpt-4o=8"),
        (("x-8b",), {"gpu": "A100"}, "--gpu A100: the measurements are of H100"),
        (("x-8b",), {"task": "poem"}, "--task poem: the measurements are of chat"),
    ],
)
def test_what_cannot_be_told_is_an_error(
    tmp_path: Path, models: tuple[str, ...], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        energies(tmp_path, TWO_SIZES, *models, **changes)


def test_one_size_is_too_few_for_a_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="1 sizes of dense models are too few"):
        energies(tmp_path, TWO_SIZES[:1], "other-16b")


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"model": "a", "gpu": "H100"}, "lack the columns energy_per_token_j"),
        (run("a", 8, "much"), "line 2: energy_per_token_j is 'much', not a number"),
        (run("a", 8, -1), "energy_per_token_j is -1; it must be above 0"),
    ],
)
def test_a_fault_of_the_file_is_named(tmp_path: Path, row: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_energy_runs(written(tmp_path, [row]))
