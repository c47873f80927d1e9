"""A whole launch of the demo on one GPU, which a test describes, with engines that are fakes."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.plan import Plan
from launch.demo.family import CHECKPOINTS, DEMO_CONFIG
from launch.options import LaunchOptions, read_command_line
from launch.run import launch

GPU = Gpu(uuid="GPU-6f1", name="NVIDIA H100 80GB HBM3", memory_bytes=85_520_809_984, index=3)
TIERS = ("small", "medium", "giant")


@pytest.fixture
def tells(tmp_path: Path) -> Path:
    """Where engines write how they were started."""
    return tmp_path / "tells.jsonl"


@pytest.fixture
def own_environment(fake_vllm: Path, tells: Path) -> dict[str, str]:
    """What makes vLLM the fake engine, for all tiers."""
    return {"PYTHONPATH": str(fake_vllm), "FAKE_ENGINE": "tells", "FAKE_TELLS": str(tells)}


@pytest.fixture
def demo_file(own_environment: dict[str, str], tmp_path: Path) -> Path:
    """The demo's configuration for fake engines."""
    config = yaml.safe_load(DEMO_CONFIG.read_text(encoding="utf-8"))
    config["certificate"] = str(DEMO_CONFIG.with_name("certificate.json"))
    for tier in config["tiers"]:
        tier["model"] = str(CHECKPOINTS / tier["name"])
        tier["engine"] = {**tier["engine"], "environment": own_environment}
    file = tmp_path / "cascade.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return file


def launched_until_ready(*words: str) -> None:
    """`hs-launch` in this process, stopped by Ctrl-C when it says that it is ready."""
    options = read_command_line(words)
    assert isinstance(options, LaunchOptions)
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        os.kill(os.getpid(), signal.SIGINT)

    launch(options, say=say)
    assert said[0].startswith("ready:")


@pytest.mark.slow
def test_three_tiers_share_one_gpu_as_planned_and_start_in_turn(
    demo_file: Path,
    tells: Path,
    own_environment: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "launch.plans.planning.probe", lambda **_: Hardware(cpu_cores=(0, 1), gpus=(GPU,))
    )
    run = tmp_path / "run"
    launched_until_ready(
        *("--config", str(demo_file), "--gpus", "1", "--port", "0", "--run-folder", str(run))
    )
    told = [json.loads(line) for line in tells.read_text().splitlines()]
    # Each serves before the next begins: an engine measures the memory that is free at its start.
    assert [(one["what"], one["name"]) for one in told] == [
        (what, tier) for tier in TIERS for what in ("begins", "serves")
    ]
    plan = Plan.from_json((run / "plan.json").read_bytes())
    assert {placement.gpu_uuids for placement in plan.placements} == {(GPU.uuid,)}
    shares = {placement.name: placement.gpu_memory_share for placement in plan.placements}
    assert sum(share or 0.0 for share in shares.values()) <= 0.9
    for tier, one in zip(TIERS, told[::2], strict=True):
        share, parser = shares[f"{tier}/0"], ("--reasoning-parser", "deepseek_r1")
        assert one["argv"] == [
            *(sys.executable, "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(CHECKPOINTS / tier)),
            *("--served-model-name", tier),
            *("--uds", str(run / f"sockets/{tier}-0.sock")),
            *("--tensor-parallel-size", "1", "--pipeline-parallel-size", "1"),
            *("--gpu-memory-utilization", f"{share:g}"),
            *("--dtype", "bfloat16", "--max-model-len", "512", "--max-num-seqs", "64"),
            *("--enforce-eager", *(parser if tier == "giant" else ())),
            "--enable-prompt-tokens-details",
            *("--no-enable-log-requests", "--disable-uvicorn-access-log"),
        ]
        assert added_to_ours(one["environment"]) == {
            **own_environment,
            "CUDA_VISIBLE_DEVICES": "3",  # the driver's number, so that every vLLM understands it
            "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_HTTP_TIMEOUT_KEEP_ALIVE": "60",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
        }


def added_to_ours(environment: dict[str, Any]) -> dict[str, Any]:
    """What the launcher added to its own, or changed; `LC_CTYPE` is the interpreter's (PEP 538)."""
    return {
        name: value
        for name, value in environment.items()
        if os.environ.get(name) != value and name != "LC_CTYPE"
    }
