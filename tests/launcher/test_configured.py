"""Plans that are not searched: their reports have the keys of searched ones, and say what fits."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridserve_llm.planner.hardware import Hardware
from hybridserve_llm.profiles.profile_file import Profile, write_profile
from launch.cli import main

GIB = 2**30
HOST = Hardware(cpu_cores=(0, 1, 2, 3), memory_bytes=64 * GIB)
FACTS = {"n_parameters": 10**9, "n_layers": 16, "hidden_size": 2048, "n_heads": 32}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Callable[[Hardware], None]:
    """Says what the machine is."""

    def be(hardware: Hardware) -> None:
        monkeypatch.setattr("launch.plans.planning.probe", lambda **_: hardware)

    return be


def cascade(path: Path, *tiers: dict[str, Any], **settings: Any) -> Path:
    made = [
        {"name": f"t{i}", "model": "x/y", "accept": {"score_at_least": -1.0}, "facts": FACTS} | tier
        for i, tier in enumerate(tiers)
    ]
    del made[-1]["accept"]
    path.write_text(yaml.safe_dump({"tiers": made, **settings}))
    return path


def dry_run(
    capsys: pytest.CaptureFixture[str], config: Path, *words: str
) -> tuple[int, dict[str, Any], str]:
    status = main(["--config", str(config), "--dry-run", "--json", *words])
    out, err = capsys.readouterr()
    return status, json.loads(out), err


def test_the_report_has_the_keys_of_a_searched_one(
    capsys: pytest.CaptureFixture[str], host: Callable[[Hardware], None], tmp_path: Path
) -> None:
    host(HOST)
    path = cascade(tmp_path / "c.yaml", {}, {"replicas": 2})
    status, found, err = dry_run(capsys, path)
    searched = dry_run(capsys, path, "--gpu-type", "H100-80GB")[1]
    assert (status, err, found["searched"], searched["searched"]) == (0, "", False, True)
    assert found.keys() == searched.keys()
    assert found["tiers"][0].keys() == searched["tiers"][0].keys()
    assert found["tiers"][0]["placements"][0].keys() == searched["tiers"][0]["placements"][0].keys()
    assert (found["gpus"], found["gpus_used"], found["parked_power_w"]) == (0, 0, 0)
    # Nobody measured: null, and said why.
    assert (found["power_w_total"], found["tiers"][1]["utilisation"]) == (None, None)
    assert found["unknown"][1].startswith("t1: utilisation, power_w and times: no profile of it on")
    # Two engines of 2e9 bytes of weights, 1 GiB of cache, 1,000 MiB each.
    expected = 2 * (2e9 / GIB + 1 + 1000 / 1024)
    assert found["tiers"][1]["host_memory_gib"] == pytest.approx(expected, abs=1e-6)


def test_memory_that_is_too_little_exits_3_and_says_what_helps(
    capsys: pytest.CaptureFixture[str], host: Callable[[Hardware], None], tmp_path: Path
) -> None:
    host(replace(HOST, memory_bytes=10 * GIB))
    path = cascade(tmp_path / "c.yaml", {}, {"replicas": 3})
    status, found, err = dry_run(capsys, path)
    assert (status, found["fits"], found["plan"], found["tiers"]) == (3, False, None, [])
    # Four engines of 1.86 + 1 + 0.98 GiB.
    assert "the engines need 15.4 GiB of memory (t0 3.8, t1 11.5)" in found["reason"]
    assert found["shortfall"]["missing_memory_gib"] == pytest.approx(5.36, abs=0.01)
    assert found["shortfall"]["changes"] == [
        "run 1 replica of t1",
        "give the machine 6 GiB more memory",
    ]
    assert err == f"hs-launch: error: {found['reason']}\n"
    values = yaml.safe_load(path.read_text())
    values["tiers"][1]["replicas"] = 1
    path.write_text(yaml.safe_dump(values))
    assert dry_run(capsys, path)[0] == 0


def test_cores_that_are_too_few_are_in_the_report(
    capsys: pytest.CaptureFixture[str], host: Callable[[Hardware], None], tmp_path: Path
) -> None:
    host(HOST)
    path = cascade(tmp_path / "c.yaml", {}, {"tensor_parallel_size": 8})
    status, found, err = dry_run(capsys, path)
    assert (status, found["fits"]) == (3, False)
    assert "t1 needs 8 CPU cores for tensor_parallel_size 8, there are 4: 4 too few" in err


def test_measured_tiers_tell_their_load_at_the_lengths_of_their_profiles(
    capsys: pytest.CaptureFixture[str], host: Callable[[Hardware], None], tmp_path: Path
) -> None:
    points = [
        {"concurrency": n, "step_time_s": 0.1, "output_tokens_per_s": 10 * n, "power_w": 80.0}
        for n in range(1, 9)
    ]
    values = {
        "model": "m",
        "gpu": None,
        "hardware": "a CPU",
        "engine": "vllm 0.32.0",
        "measured_on": "2026-11-24",
        "prompt_tokens": 64,
        "output_tokens": 10,
        "idle_w": 20.0,
        "points": points,
        "source": "a test",
    }
    write_profile(Profile.model_validate(values), tmp_path / "p.json")
    host(HOST)
    tier = {"profiles": ["./p.json"], "engine": {"max_num_seqs": 8}}
    path = cascade(
        tmp_path / "c.yaml",
        tier,
        tier | {"replicas": 2},
        planner={"workload": {"requests_per_s": 2}},
    )
    status, found, _ = dry_run(capsys, path)
    assert (status, found["grade"]) == (0, "measured")
    # 8 at a time of 1 s: t0 is asked by all, each of t1's two by half of a half.
    assert [t["utilisation"] for t in found["tiers"]] == pytest.approx([2 / 8, 0.5 / 8])
    watts = [t["power_w"] for t in found["tiers"]]
    # M/M/8: empty for exp(-0.5) of the time, nearly; 60 W more while it works; two replicas.
    assert watts[1] == pytest.approx(2 * (80 - 60 * 0.6065), rel=1e-3)
    assert found["power_w_total"] == pytest.approx(sum(watts))
    assert found["energy_j_per_request"] == pytest.approx(sum(watts) / 2)
    first, second = (t["latency_s"] for t in found["tiers"])
    assert found["latency_s"] == pytest.approx(first + 0.5 * second, abs=1e-5)
    assert "prompt_tokens of t0 is not given: 64, as in its profile" in found["assumptions"]
    # TTFT was not measured.
    assert found["tiers"][0]["ttft_s"] is None
    main(["--config", str(path), "--dry-run"])
    out = capsys.readouterr().out
    assert "t0: 25% of what was measured to be carried" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_launch_that_memory_cannot_hold_starts_nothing(
    capsys: pytest.CaptureFixture[str], host: Callable[[Hardware], None], tmp_path: Path
) -> None:
    host(replace(HOST, memory_bytes=4 * GIB))
    path = cascade(tmp_path / "c.yaml", {}, {})
    run_folder = tmp_path / "run"
    assert main(["--config", str(path), "--port", "0", "--run-folder", str(run_folder)]) == 3
    assert "GiB too little" in capsys.readouterr().err
    assert not list((run_folder / "logs").iterdir())
