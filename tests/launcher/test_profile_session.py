"""`hs-profile` from its command line to its files, with engines that are processes of the fake."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.plan import Placement
from hybridserve_llm.profiles.profile_file import read_profile
from launch.profile_cli import main
from launch.profiling.machine import gpu_name, hardware_in_words
from launch.run_folder import open_run_folder

ROOT = Path(__file__).parents[2]
FAKE_VLLM_SERVER = """
import sys
import uvicorn
from hybridserve_llm.testing import create_fake_vllm_app

print("INFO x Application startup complete", flush=True)
if "--die" in sys.argv:
    raise ValueError("no room for the KV cache")
app = create_fake_vllm_app(
    model=sys.argv[sys.argv.index("--served-model-name") + 1], token_delay_s=0.001
)
uvicorn.run(app, uds=sys.argv[sys.argv.index("--uds") + 1], log_level="error", ws="none")
"""


@pytest.fixture
def config_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a cascade of fake engines; arguments are further settings of the tiers."""
    package = tmp_path / "fake_vllm/vllm/entrypoints/openai"
    package.mkdir(parents=True)
    for parent in (package, package.parent, package.parent.parent):
        (parent / "__init__.py").touch()
    (package / "api_server.py").write_text(FAKE_VLLM_SERVER)
    path_of_modules = f"{tmp_path / 'fake_vllm'}{os.pathsep}{ROOT}"

    def write(*settings: dict[str, Any]) -> Path:
        tiers = []
        for i, extra in enumerate(settings):
            engine = {"environment": {"PYTHONPATH": path_of_modules}, **extra.pop("engine", {})}
            tiers.append({"name": f"t{i}", "model": "some/model", "engine": engine, **extra})
        for tier in tiers[:-1]:
            tier["accept"] = {"score_at_least": -1.0}
        path = tmp_path / "cascade.yaml"
        path.write_text(yaml.safe_dump({"tiers": tiers, "launch": {"stop_timeout_s": 5}}))
        return path

    return write


def quick(config: Path, out: Path, *more: str) -> list[str]:
    return [
        *("--config", str(config), "--out", str(out), "--cpu", "--run-folder", str(out / "run")),
        *("--concurrency", "1,4", "--window-s", "0.1", "--repeats", "2"),
        *("--prompt-tokens", "8", "--output-tokens", "4", *more),
    ]


def test_every_tier_is_measured_and_written(
    config_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    left_over: Callable[[], list[str]],
) -> None:
    arguments = quick(config_file({}, {}), tmp_path / "out", "--check", "2", "--json")
    assert main(arguments) == 0
    told = json.loads(capsys.readouterr().out)
    assert [tier["tier"] for tier in told["tiers"]] == ["t0", "t1"]
    assert left_over() == []
    for tier in told["tiers"]:
        profile = read_profile(tmp_path / f"out/{tier['tier']}.json")
        assert json.loads(profile.to_json()) == tier["profile"]
        assert profile.gpu is None
        assert profile.engine == "vllm 0.0.0+fake"
        assert (profile.prompt_tokens, profile.output_tokens) == (8, 4)
        assert [point.concurrency for point in profile.points] == [1, 4]
        assert {point.repeats for point in profile.points} == {2}
        assert not profile.has_power
        assert profile.source.startswith("hs-profile --config ")
        assert len(tier["windows"]) == 3 * 2
        (check,) = tier["checks"]
        assert check["concurrency"] == 2
        assert len(check["measured_tokens_per_s"]) == 2


def test_tables_fit_80_columns(
    config_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = quick(config_file({}, {}), tmp_path / "out", "--check", "2", "--tier", "t1")
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) <= 80
    assert "predicted" in out
    assert "t0" not in out
    assert not (tmp_path / "out/t0.json").exists()


@pytest.mark.parametrize(
    ("tiers", "more", "message"),
    [
        (
            [{"engine": {"max_num_seqs": 2}}, {}],
            [],
            "tier t0: 4 requests in flight are beyond max_num_seqs 2",
        ),
        (
            [{"engine": {"max_model_len": 16}}, {}],
            ["--output-tokens", "9"],
            "--prompt-tokens 8 and --output-tokens 9 are 17 together, max_model_len is 16",
        ),
        ([{}, {}], ["--tier", "giant"], "tier 'giant' cannot be measured: allowed are"),
        (
            [{"endpoints": ["http://x:1"]}, {}],
            ["--tier", "t0"],
            "tiers that are started from here (t1)",
        ),
        (
            [{"endpoints": ["http://x:1"]}, {"endpoints": ["http://x:2"]}],
            [],
            "all tiers name endpoints",
        ),
    ],
)
def test_a_load_that_cannot_be_is_told_before_an_engine_starts(
    tiers: list[dict[str, Any]],
    more: list[str],
    message: str,
    config_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(quick(config_file(*tiers), tmp_path / "out", *more)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert not (tmp_path / "out").exists()


def test_an_engine_that_does_not_start_is_told(
    config_file: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = config_file({"engine": {"extra_args": ["--die"]}}, {})
    assert main(quick(config, tmp_path / "out")) == 3
    err = capsys.readouterr().err
    assert "engine t0/0 did not start: exited with status 1; ValueError: no room for" in err


def test_a_window_too_short_for_a_request_is_told(
    config_file: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    left_over: Callable[[], list[str]],
) -> None:
    arguments = quick(config_file({}, {}), tmp_path / "out", "--window-s", "0.001")
    assert main([*arguments, "--output-tokens", "200", "--prompt-tokens", "200"]) == 3
    assert "no request of 200 output tokens ended in 0.001 s" in capsys.readouterr().err
    assert left_over() == []


def test_ctrl_c_leaves_nothing_behind(
    config_file: Callable[..., Path], tmp_path: Path, left_over: Callable[[], list[str]]
) -> None:
    arguments = quick(config_file({}, {}), tmp_path / "out", "--window-s", "60")
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.profile_cli", *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any("round 1 of 2" in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "hs-profile: stopped; complete profiles are in" in err
    assert left_over() == []
    with open_run_folder(tmp_path / "out/run", []):  # its lock is free again
        pass


GPUS = tuple(Gpu(uuid=f"GPU-{i}", name="NVIDIA H100 80GB HBM3", memory_bytes=1) for i in range(2))


def test_gpus_are_named_by_the_catalogue() -> None:
    placement = Placement(
        name="t/0", device="gpu", tensor_parallel_size=2, gpu_uuids=("GPU-0", "GPU-1")
    )
    hardware = Hardware(cpu_cores=(0,), gpus=GPUS)
    assert gpu_name(placement, hardware) == "H100-80GB"
    assert hardware_in_words(placement, hardware) == "2 x NVIDIA H100 80GB HBM3"


def test_a_gpu_that_is_not_in_the_catalogue_keeps_its_own_name() -> None:
    placement = Placement(name="t/0", device="gpu", gpu_uuids=("GPU-x",))
    gpus = (Gpu(uuid="GPU-x", name="NVIDIA Z9", memory_bytes=1),)
    assert gpu_name(placement, Hardware(cpu_cores=(0,), gpus=gpus)) == "NVIDIA Z9"


def test_a_cpu_is_told_with_its_threads() -> None:
    placement = Placement(name="t/0", device="cpu", cpu_threads=2)
    hardware = Hardware(cpu_cores=(0, 1))
    assert gpu_name(placement, hardware) is None
    assert hardware_in_words(placement, hardware).endswith(
        f"2 of {os.cpu_count()} cores usable, 1 x 2 threads"
    )
