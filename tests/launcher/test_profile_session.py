"""`hs-profile` from its command line to its files, with engines that are processes of the fake."""

import io
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
from rich.console import Console

from hybridserve_llm.books.metering import Probes
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.plan import Placement
from hybridserve_llm.profiles.profile_file import read_profile
from hybridserve_llm.reporting.blocks import print_blocks
from hybridserve_llm.testing import ScriptedNvml
from launch.profiling.cli import main
from launch.profiling.machine import gpu_name, hardware_in_words
from launch.profiling.options import read_profile_options
from launch.profiling.session import profile_tiers
from launch.profiling.tables import points_blocks
from launch.running.run_folder import open_run_folder

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
    """Writes a cascade of fake engines: further settings of its tiers, then of the cascade."""
    package = tmp_path / "fake_vllm/vllm/entrypoints/openai"
    package.mkdir(parents=True)
    for parent in (package, package.parent, package.parent.parent):
        (parent / "__init__.py").touch()
    (package / "api_server.py").write_text(FAKE_VLLM_SERVER)
    path_of_modules = f"{tmp_path / 'fake_vllm'}{os.pathsep}{ROOT}"

    def write(*settings: dict[str, Any], **more: Any) -> Path:
        tiers = []
        for i, extra in enumerate(settings):
            engine = {"environment": {"PYTHONPATH": path_of_modules}, **extra.pop("engine", {})}
            tiers.append({"name": f"t{i}", "model": "some/model", "engine": engine, **extra})
        for tier in tiers[:-1]:
            tier["accept"] = {"score_at_least": -1.0}
        path = tmp_path / "cascade.yaml"
        values = {"tiers": tiers, "launch": {"stop_timeout_s": 5}, **more}
        path.write_text(yaml.safe_dump(values))
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


def test_watts_that_nothing_measures_are_null_with_the_reason(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    arguments = quick(config_file({}, {}), tmp_path / "out", "--tier", "t0")
    probes = Probes(powercap=tmp_path / "none")
    (told,) = profile_tiers(read_profile_options(arguments), probes=probes)
    profile = told.profile
    for point in profile.points:
        assert (point.power_w, point.power_source) == (None, "unavailable")
        assert "energy.watts_per_busy_core would make watts" in str(point.power_reason)
    assert (profile.idle_w, profile.idle_source) == (None, "unavailable")
    assert profile.bare_idle_w is None
    shown = io.StringIO()
    print_blocks(points_blocks(told), Console(width=80, file=shown))
    assert "W: unavailable: no energy counter: no RAPL counter in" in shown.getvalue()


@pytest.mark.slow
def test_watts_that_the_user_named_are_called_a_model(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({}, {}, energy={"watts_per_busy_core": 8})
    arguments = quick(config, tmp_path / "out", "--tier", "t1", "--window-s", "0.6")
    (told,) = profile_tiers(
        read_profile_options(arguments), probes=Probes(powercap=tmp_path / "none")
    )
    profile = read_profile(tmp_path / "out/t1.json")
    assert not profile.has_power  # so that nobody plans with it as with a measurement
    for point in profile.points:
        assert point.power_source == "model:user"
        assert point.power_w is not None
        # The same processes, read by two ways at a moment that differs by up to 0.1 s.
        assert point.power_w == pytest.approx(8 * point.engine_cores, rel=0.5)
    assert profile.idle_source == "model:user"
    assert profile.idle_w is not None
    assert profile.idle_w < profile.points[0].power_w
    shown = io.StringIO()
    print_blocks(points_blocks(told), Console(width=80, file=shown))
    assert "W: model:user; idle " in shown.getvalue()


def test_watts_of_a_gpu_before_and_beside_its_engine(
    config_file: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_file({}, {}, energy={"sample_interval_s": 0.02})
    arguments = [
        word for word in quick(config, tmp_path / "out", "--tier", "t1") if word != "--cpu"
    ]
    nvml = ScriptedNvml(clock=SystemClock(), power_w=300.0, tick_s=0.01)
    (told,) = profile_tiers(
        read_profile_options(arguments),
        hardware=Hardware(cpu_cores=(0,), gpus=GPUS[:1]),
        probes=Probes(open_nvml=lambda: nvml),
    )
    profile = told.profile
    assert (profile.gpu, profile.has_power) == ("H100-80GB", True)
    for power_w, source in (
        (profile.bare_idle_w, profile.bare_idle_source),
        (profile.idle_w, profile.idle_source),
        *((point.power_w, point.power_source) for point in profile.points),
    ):
        assert source == "nvml_energy"
        # Windows of 0.1 s on a counter that moves every 0.01 s, whenever this thread gets to run.
        assert power_w == pytest.approx(300.0, rel=0.25)


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


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_behind(
    config_file: Callable[..., Path], tmp_path: Path, left_over: Callable[[], list[str]]
) -> None:
    arguments = quick(config_file({}, {}), tmp_path / "out", "--window-s", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "launch.profiling.cli", *arguments],
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
