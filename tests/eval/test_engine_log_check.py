"""A log of a real engine: read, and found again by calibrating on one half."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from eval.simulator.step_table import ReplicaShape, step_table
from eval.simulator.tier import ReplicaLife, run_tier
from eval.simulator.workload import checked_requests
from eval.studies.engine_log import EngineLog, read_engine_log
from eval.studies.engine_log_check import engine_log_check
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts

ROW = {
    "request_id": "a",
    "input_toks": 100,
    "output_toks": 20,
    "queued_ts": 50.0,
    "first_token_ts": 50.5,
    "last_token_ts": 52.0,
}


def written(folder: Path, *rows: object) -> Path:
    path = folder / "log.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def test_a_log_is_read_in_order_of_arrival(tmp_path: Path) -> None:
    earlier = ROW | {"queued_ts": 49.0, "input_toks": 7}
    found = read_engine_log(written(tmp_path, ROW, earlier))
    assert found.requests.arrival_s.tolist() == [0.0, 1.0]
    assert found.requests.prompt_tokens.tolist() == [7, 100]
    assert found.latency_s.tolist() == [3.0, 2.0]
    assert found.ttft_s.tolist() == [1.5, 0.5]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"input_toks": 0}, "line 2: input_toks and output_toks are 0 and 20; whole numbers"),
        (ROW | {"output_toks": 1.5}, "whole numbers of at least 1"),
        (ROW | {"queued_ts": None}, "line 2: queued_ts is None; a finite number is allowed"),
        (ROW | {"last_token_ts": 50.2}, "line 2: .* are not in order of time"),
        ([1], "line 2: .* is not a JSON object"),
    ],
)
def test_the_line_at_fault_is_named(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_engine_log(written(tmp_path, ROW, row))


def test_files_without_requests(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no requests"):
        read_engine_log(written(tmp_path))
    with pytest.raises(ConfigError, match="cannot read log"):
        read_engine_log(tmp_path / "none")
    (tmp_path / "log.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="line 1: not JSON"):
        read_engine_log(tmp_path / "log.jsonl")


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.slow
def test_an_engine_of_another_speed_is_found_again(is_known: bool) -> None:
    """The log is simulated, of an engine whose steps take 0.7 times as long as the model's."""
    facts = known_model_facts("meta-llama/Llama-3.1-8B-Instruct")
    assert facts is not None
    shape = ReplicaShape(
        facts=facts,
        gpu=gpu_type("RTX-4090"),
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        kv_cache_tokens=12_000,
    )
    random = np.random.default_rng(0)
    requests = checked_requests(
        np.cumsum(random.exponential(0.3, 80)),
        random.integers(100, 2000, 80),
        random.integers(50, 400, 80),
    )
    table = step_table(
        shape,
        prompt_tokens=float(requests.prompt_tokens.mean()),
        output_tokens=float(requests.output_tokens.mean()),
    )
    real = run_tier([ReplicaLife(table=table.scaled(step=0.7))], requests)
    log = EngineLog(
        requests=requests,
        ttft_s=real.first_token_s - requests.arrival_s,
        latency_s=real.finish_s - requests.arrival_s,
    )
    guess = shape if is_known else replace(shape, kv_cache_tokens=10_000)
    found = engine_log_check(log, guess, is_kv_cache_known=is_known)
    before, *after = found.halves
    assert before.calibrated_on is None
    assert before.latency_error > 0.3
    assert [(half.calibrated_on, half.judged_on) for half in after] == [
        ("first", "second"),
        ("second", "first"),
        ("even", "odd"),
        ("odd", "even"),
    ]
    for half in after:
        # The known engine is met; a cache that nobody told leaves more to guess.
        assert abs(half.latency_error) < (0.02 if is_known else 0.1)
        if is_known:
            assert half.calibration.step == pytest.approx(0.7, rel=0.05)
            assert half.kv_cache_tokens == 12_000
