"""What stands in for a meter: the fitted model, corrected by a tier's profile where it has one."""

from pathlib import Path
from typing import Any

import pytest
from builders import profile_of

from hybridserve_llm.config.load import parse_config
from hybridserve_llm.planner.hardware import Hardware
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.profile_file import Profile, write_profile
from hybridserve_llm.values.joules import Activity
from launch.options import LaunchOptions, read_command_line
from launch.plans import planning
from launch.plans.planning import Planned, planned
from launch.plans.power_models import EnergyModels, energy_models

MODEL = "Qwen/Qwen3-0.6B"


def profile(gpu: str | None, watts: tuple[float, ...] | None, idle_w: float | None) -> Profile:
    """Measured with 1, 16 and 256 requests at a time: 10, 20 and 40 ms a token."""
    points = [
        {
            "concurrency": n,
            "step_time_s": step_s,
            "output_tokens_per_s": n / step_s,
            "power_w": watts[i] if watts else None,
        }
        for i, (n, step_s) in enumerate(((1, 0.01), (16, 0.02), (256, 0.04)))
    ]
    sizes = {"prompt_tokens": 512, "output_tokens": 256}
    return profile_of(points, model=MODEL, gpu=gpu, idle_w=idle_w, **sizes)


def config_with(folder: Path, measured: Profile | None) -> Any:
    small: dict[str, Any] = {
        "name": "small",
        "model": MODEL,
        "accept": {"score_at_least": -0.5},
        "tensor_parallel_size": 1,
        "engine": {"max_num_seqs": 256},
    }
    if measured is not None:
        write_profile(measured, folder / "profile.json")
        small["profiles"] = [str(folder / "profile.json")]
    giant = {"name": "giant", "model": "Qwen/Qwen3-8B"}
    return parse_config({"tiers": [small, giant]}, source="test")


def options(*words: str) -> LaunchOptions:
    read = read_command_line(["--demo", *words])
    assert isinstance(read, LaunchOptions)
    return read


def on_h100s(config: Any) -> EnergyModels:
    found = planned(config, options("--dry-run", "--gpu-type", "H100-80GB", "--gpus", "2"), None)
    return energy_models(config, found)


def watts(models: EnergyModels, running: float, tier: str = "small") -> float:
    return models.power[tier].power_w(Activity(running=running))


def test_a_profile_with_watts_is_read_as_measured(tmp_path: Path) -> None:
    measured = profile("H100-80GB", (200.0, 400.0, 600.0), idle_w=110.0)
    models = on_h100s(config_with(tmp_path, measured))
    model = models.power["small"]
    assert model.grade == "measured"
    # Lengths are those of the profile, so that the curve goes through its points.
    assert watts(models, 1) == pytest.approx(200, rel=1e-6)
    assert watts(models, 256) == pytest.approx(600, rel=1e-6)
    assert watts(models, 0) == 110
    assert watts(models, 0.5) == pytest.approx(155)  # half the time idle
    assert watts(models, 900) == pytest.approx(600, rel=1e-6)  # the others wait


def test_a_profile_weighs_prompt_tokens_and_no_profile_weighs_none(tmp_path: Path) -> None:
    measured = profile("H100-80GB", (200.0, 400.0, 600.0), idle_w=110.0)
    models = on_h100s(config_with(tmp_path, measured))
    assert set(models.token_weights) == {"small"}
    weights = models.token_weights["small"]
    # An output token takes 20 ms / 16 = 1.25 ms here, a prompt token microseconds.
    assert weights.output == 1
    assert 0 < weights.prompt < 0.1


def test_without_a_profile_the_grade_is_the_fitted_models(tmp_path: Path) -> None:
    models = on_h100s(config_with(tmp_path, None))
    kind = gpu_type("H100-80GB")
    for tier in ("small", "giant"):
        assert models.power[tier].grade in {"fleet-fit", "datasheet"}
        assert watts(models, 0, tier) == kind.idle_awake_w
        assert kind.idle_awake_w < watts(models, 1, tier) < watts(models, 200, tier) <= kind.tdp_w


def test_the_model_of_watts_that_were_not_measured_is_no_measurement(tmp_path: Path) -> None:
    models = on_h100s(config_with(tmp_path, profile("H100-80GB", None, idle_w=None)))
    assert models.power["small"].grade not in {"measured"}


@pytest.mark.parametrize(("idle_w", "has_model"), [(20.0, True), (None, False)])
def test_on_the_cpu_a_profile_with_watts_of_work_and_idle_time_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, idle_w: float | None, has_model: bool
) -> None:
    def probe(**_: object) -> Hardware:
        return Hardware(cpu_cores=(0, 1, 2, 3))

    monkeypatch.setattr(planning, "probe", probe)
    config = config_with(tmp_path, profile(None, (30.0, 50.0, 90.0), idle_w=idle_w))
    found: Planned = planned(config, options("--cpu"), None)
    models = energy_models(config, found)
    assert set(models.power) == ({"small"} if has_model else set())
    if has_model:
        assert models.power["small"].grade == "measured"
        assert (watts(models, 0), watts(models, 1), watts(models, 16)) == pytest.approx(
            (20, 30, 50)
        )


def test_gpus_that_the_catalogue_does_not_know_have_no_model(tmp_path: Path) -> None:
    config = config_with(tmp_path, None)
    report = planned(config, options("--dry-run", "--gpu-type", "H100-80GB"), None).report
    assert energy_models(config, Planned(report=report, searched=None)).power == {}
