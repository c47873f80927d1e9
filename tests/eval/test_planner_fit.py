"""`hs-eval planner-fit`: on runs made by the model itself, and on files that are not in order."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cli import main
from eval.studies.planner_fit_constants import fit_constants
from eval.studies.planner_fit_points import read_measurements
from eval.studies.planner_fit_scores import after_two_points, mape, predicted, read_off_tables
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.power_model import power_w
from hybridserve_llm.profiles.step_model import step_time_s

COLUMNS = (
    "model", "task", "gpu", "num_gpus", "dp", "avg_batch_size", "avg_output_tokens",
    "output_tokens_per_s", "avg_power_w", "energy_per_token_j",
)  # fmt: skip
DENSE = (
    ("Qwen/Qwen3-8B", 1), ("Qwen/Qwen3-32B", 2), ("meta-llama/Llama-3.1-8B-Instruct", 1),
    ("meta-llama/Llama-3.1-70B-Instruct", 4),
)  # fmt: skip
PROMPT_TOKENS, OUTPUT_TOKENS, CACHED_SHARE = 300.0, 400.0, 0.5
BATCHES = (4.0, 16.0, 64.0, 128.0)


def rows_of(
    model: str, n_gpus: int, *, gpu: str = "H100", slower: float = 1.0
) -> list[dict[str, Any]]:
    """Runs as the shipped constants have them, times `slower`."""
    facts = known_model_facts(model)
    assert facts is not None
    sizes = {"tensor_parallel_size": n_gpus, "pipeline_parallel_size": 1}
    lengths = {
        "batch": np.array(BATCHES),
        "context_tokens": PROMPT_TOKENS + CACHED_SHARE * OUTPUT_TOKENS,
        "prefill_ratio": PROMPT_TOKENS / OUTPUT_TOKENS,
    }
    times = slower * step_time_s(facts, gpu_type(gpu), **sizes, **lengths)
    watts = n_gpus * power_w(facts, gpu_type(gpu), **sizes, **lengths)
    return [
        {
            "model": model,
            "task": "chat",
            "gpu": gpu,
            "num_gpus": n_gpus,
            "dp": 1,
            "avg_batch_size": batch,
            "avg_output_tokens": OUTPUT_TOKENS,
            "output_tokens_per_s": batch / time_s,
            "avg_power_w": power,
            "energy_per_token_j": power * time_s / batch,
        }
        for batch, time_s, power in zip(BATCHES, times, watts, strict=True)
    ]


def write(path: Path, rows: Sequence[dict[str, Any]], columns: Sequence[str] = COLUMNS) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def dense_rows() -> list[dict[str, Any]]:
    return [row for model, n_gpus in DENSE for row in rows_of(model, n_gpus)]


def test_rows_become_curves(tmp_path: Path, dense_rows: list[dict[str, Any]]) -> None:
    found = read_measurements(write(tmp_path / "m.csv", dense_rows[::-1]))
    assert (found.n_points, len(found.curves), dict(found.skipped)) == (16, 4, {})
    (curve,) = (one for one in found.curves if one.model == "Qwen/Qwen3-32B")
    assert list(curve.batch) == list(BATCHES)
    assert (curve.tensor_parallel_size, curve.gpu.name) == (2, "H100-80GB")
    row = next(row for row in dense_rows if row["model"] == "Qwen/Qwen3-32B")
    assert curve.step_time_s[0] == pytest.approx(4 / row["output_tokens_per_s"])
    assert curve.power_w is not None
    assert curve.power_w[0] == pytest.approx(row["avg_power_w"] / 2)


def test_power_follows_from_energy(tmp_path: Path, dense_rows: list[dict[str, Any]]) -> None:
    columns = [name for name in COLUMNS if name not in ("avg_power_w", "task", "dp")]
    by_energy = read_measurements(write(tmp_path / "e.csv", dense_rows, columns)).curves[0]
    by_power = read_measurements(write(tmp_path / "p.csv", dense_rows)).curves[0]
    assert by_energy.power_w == pytest.approx(by_power.power_w)


def test_what_cannot_be_used_is_skipped_with_its_reason(
    tmp_path: Path, dense_rows: list[dict[str, Any]]
) -> None:
    first = dense_rows[0]
    odd = [
        {**first, "model": "nobody/nothing"},
        {**first, "model": "Qwen/Qwen3-14B", "gpu": "TPU"},
        {**first, "model": "Qwen/Qwen3-4B", "dp": 2},
        {**first, "avg_batch_size": ""},
        {**first, "output_tokens_per_s": "nan"},
    ]
    found = read_measurements(write(tmp_path / "m.csv", [*dense_rows, *odd]))
    assert (found.n_points, found.n_incomplete) == (16, 2)
    assert found.skipped["nobody/nothing"] == "its sizes are not in the catalogue"
    assert found.skipped["Qwen/Qwen3-14B"].startswith("GPU type 'TPU' is not known")
    assert "dp above 1" in found.skipped["Qwen/Qwen3-4B"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"avg_batch_size": "many"}, r"line 2: avg_batch_size is 'many', not a number"),
        ({"output_tokens_per_s": "-3"}, r"line 2: output_tokens_per_s is -3; it must be above 0"),
        ({"model": "nobody/nothing"}, "hold no run that can be used; nobody/nothing: its sizes"),
    ],
)
def test_nonsense_is_refused(
    tmp_path: Path, dense_rows: list[dict[str, Any]], change: dict[str, str], message: str
) -> None:
    path = write(tmp_path / "m.csv", [{**dense_rows[0], **change}])
    with pytest.raises(ConfigError, match=message):
        read_measurements(path)


def test_missing_columns_and_files_end_the_program_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "m.csv", [], ("model", "gpu"))
    assert main(["planner-fit", "--measurements", str(path)]) == 2
    assert "lack the columns num_gpus, avg_batch_size" in capsys.readouterr().err
    assert main(["planner-fit", "--measurements", str(tmp_path / "none.csv")]) == 2
    assert "cannot read measurements" in capsys.readouterr().err


def test_the_constants_of_made_up_runs_are_found_again(
    tmp_path: Path, dense_rows: list[dict[str, Any]]
) -> None:
    curves = read_measurements(write(tmp_path / "m.csv", dense_rows)).curves
    fit = fit_constants(curves, gpu="H100-80GB")
    # Guesses pull a little, so the runs are met closely and not exactly.
    errors = [predicted(curve, fit) for curve in curves]
    time_error, energy_error = mape(e.step_time for e in errors), mape(e.energy for e in errors)
    assert time_error is not None
    assert time_error < 1.5
    assert energy_error is not None
    assert energy_error < 3


def test_without_runs_the_guesses_are_all_there_is() -> None:
    fit = fit_constants([], gpu="H200")
    assert fit.step.gpu == fit.power.gpu == "H200"
    assert fit.step.bandwidth_share == pytest.approx(0.8)


def test_two_points_leave_themselves_out_and_take_a_constant_factor_off(tmp_path: Path) -> None:
    rows = rows_of("Qwen/Qwen3-8B", 1, slower=1.3)
    (curve,) = read_measurements(write(tmp_path / "m.csv", rows)).curves
    fit = fit_constants([], gpu="H100-80GB")
    before, after = predicted(curve, fit), after_two_points(curve, fit)
    assert after is not None
    assert (len(before.step_time), len(after.step_time)) == (4, 2)
    assert np.abs(after.step_time - 1).max() < 0.2 * np.abs(before.step_time - 1).max()
    (two,) = read_measurements(write(tmp_path / "m.csv", rows[::3])).curves
    assert after_two_points(two, fit) is None


def test_tables_leave_out_the_run_they_are_read_for(tmp_path: Path) -> None:
    (curve,) = read_measurements(write(tmp_path / "m.csv", rows_of("Qwen/Qwen3-8B", 1))).curves
    found = read_off_tables(curve)
    assert found is not None
    assert found.energy is not None
    (first, second, third, _), times = curve.batch, curve.step_time_s
    # The second of four, on the straight line from the first to the third.
    share = (second - first) / (third - first)
    read_s = times[0] + share * (times[2] - times[0])
    assert found.step_time[0] == pytest.approx(read_s / times[1])
    assert (len(found.step_time), len(found.energy)) == (2, 2)
    three = rows_of("Qwen/Qwen3-8B", 1)[:3]
    (short,) = read_measurements(write(tmp_path / "m.csv", three)).curves
    assert read_off_tables(short) is None


def test_json_has_every_figure(
    tmp_path: Path, dense_rows: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        *dense_rows,
        *rows_of("Qwen/Qwen3-30B-A3B", 1),
        *rows_of("Qwen/Qwen3-8B", 1, gpu="B200"),
    ]
    assert (
        main(["planner-fit", "--json", "--measurements", str(write(tmp_path / "m.csv", rows))]) == 0
    )
    printed = json.loads(capsys.readouterr().out)
    for key in ("step_time_mape_lomo", "energy_mape_lomo", "step_time_mape_2pt", "energy_mape_2pt"):
        assert 0 <= printed[key] < 60
        assert printed[f"moe_{key}"] >= 0
        assert printed[f"hybrid_{key}"] is None
    assert printed["n_points"] == 24
    assert (printed["dense_n_points"], printed["moe_n_points"]) == (20, 4)
    assert printed["models"] == sorted({row["model"] for row in rows})
    assert sorted(printed["fits"]) == ["B200", "H100-80GB"]
    assert "B200: with 1 model" in printed["remarks"][0]


def test_one_model_without_power_is_judged_by_guesses_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [name for name in COLUMNS if name not in ("avg_power_w", "energy_per_token_j")]
    path = write(tmp_path / "m.csv", rows_of("Qwen/Qwen3-8B", 1), columns)
    assert main(["planner-fit", "--json", "--measurements", str(path)]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["step_time_mape_lomo"] > 0
    assert printed["energy_mape_lomo"] is None
    assert len(printed["remarks"]) == 2


def test_the_table_fits_80_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "m.csv", rows_of("Qwen/Qwen3-8B", 1))
    assert main(["planner-fit", "--measurements", str(path)]) == 0
    out = capsys.readouterr().out
    assert "constants of H100-80GB" in out
    assert max(map(len, out.splitlines())) <= 80
