"""`hs-eval check-simulator`: agreement with the planner's queueing model, and the command line."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.cli import main
from eval.simulator.workload import checked_requests
from eval.studies.birth_death_check import birth_death_check
from hybridserve_llm.errors import ConfigError


def test_simulator_and_birth_death_chain_agree() -> None:
    """5 % in joules a token and 12 % in latency are allowed; docs/simulate.md has more requests."""
    random = np.random.default_rng(0)
    lengths = checked_requests(
        np.arange(1000.0), random.integers(200, 2000, 1000), random.integers(50, 400, 1000)
    )
    found = birth_death_check(lengths, loads=(0.2, 0.8), n_requests=8000, seed=1)
    assert len(found.points) == 6
    assert found.worst("energy_j_per_token") < 0.05
    assert found.worst("latency_s") < 0.12


def test_a_load_that_cannot_be() -> None:
    lengths = checked_requests(np.array([0.0]), np.array([5]), np.array([5]))
    with pytest.raises(ConfigError, match=r"load 1\.2 is not between 0 and 1"):
        birth_death_check(lengths, loads=(1.2,), n_requests=5, seed=1)


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    rows = [f"{i},{500 + i},{100 + i}" for i in range(50)]
    path.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]), encoding="utf-8")
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    rows = [
        {
            "input_toks": 300,
            "output_toks": 50,
            "queued_ts": 3.0 * i,
            "first_token_ts": 3.0 * i + 0.05,
            "last_token_ts": 3.0 * i + 1.0,
        }
        for i in range(8)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["check-simulator", *map(str, arguments)])
    told = capsys.readouterr()
    return status, told.out, told.err


def test_birth_death_at_the_command_line(capsys: pytest.CaptureFixture[str], trace: Path) -> None:
    arguments = ("birth-death", "--trace", trace, "--loads", "0.3,0.5", "--requests", 200)
    status, out, _ = run(capsys, *arguments, "--json")
    found: dict[str, Any] = json.loads(out)
    assert (status, found["schema"]) == (0, "hybridserve-birth-death-check/1")
    assert set(found["worst"]) == {"energy_j_per_token", "latency_s", "ttft_s"}
    assert len(found["points"]) == 6
    status, out, _ = run(capsys, *arguments)
    assert max(map(len, out.splitlines())) <= 80
    assert "200 requests at each load" in out


def test_a_log_at_the_command_line(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    arguments = ("log", "--log", log, "--model", "meta-llama/Llama-3.1-8B-Instruct",
                 "--gpu-type", "RTX-4090", "--kv-cache-tokens", 40000)  # fmt: skip
    status, out, err = run(capsys, *arguments, "--json")
    assert status == 0, err
    found = json.loads(out)
    assert found["schema"] == "hybridserve-engine-log-check/1"
    # Alone, 50 tokens in 1 s: the calibrated engine meets both halves.
    assert [abs(half["latency_error"]) < 0.01 for half in found["halves"][1:]] == [True] * 4
    status, out, _ = run(capsys, *arguments)
    assert max(map(len, out.splitlines())) <= 80
    assert "8 requests." in out


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (lambda log: ("log", "--log", log, "--model", "no/such", "--gpu-type", "L4"), 2,
         "the sizes of no/such are not known"),
        (lambda log: ("log", "--log", log, "--model", "Qwen/Qwen3-8B", "--gpu-type", "Q9"), 2,
         "Q9"),
        (lambda log: ("engine", "--url", "nowhere", "--model", "small"), 2,
         "--url: engine address 'nowhere' must be"),
        (lambda log: ("engine", "--url", "unix:/nowhere.sock", "--model", "small"), 3, "nowhere"),
    ],
)  # fmt: skip
def test_what_is_refused(
    capsys: pytest.CaptureFixture[str],
    log: Path,
    arguments: Callable[[Path], tuple[object, ...]],
    status: int,
    message: str,
) -> None:
    found, _, err = run(capsys, *arguments(log))
    assert (found, message in err) == (status, True), err


def test_a_log_too_short_to_halve(capsys: pytest.CaptureFixture[str], log: Path) -> None:
    log.write_text(log.read_text(encoding="utf-8").splitlines()[0], encoding="utf-8")
    options = ("--model", "Qwen/Qwen3-8B", "--gpu-type", "L4")
    status, _, err = run(capsys, "log", "--log", log, *options)
    assert status == 2
    assert "has 1 requests; 4 at least" in err
