import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.planner.plan import Plan
from launch.engines.argv import EngineCommand
from launch.engines.process import EngineProcess
from launch.engines.supervisor import engine_states
from launch.running.run_folder import RunFolder
from launch.running.state_file import LaunchState, StateFile

FAKE_ENGINE = Path(__file__).parent / "fake_engine.py"


@pytest.fixture(autouse=True)
def runtime_folder(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Keeps the launches of tests out of the user's own list of running ones."""
    folder = tmp_path_factory.mktemp("runtime")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(folder))
    return folder


@pytest.fixture
def state_of() -> Callable[[CascadeConfig, Plan, RunFolder], StateFile]:
    """Makes the state file of a launch whose engines are about to start."""

    def make(config: CascadeConfig, plan: Plan, folder: RunFolder) -> StateFile:
        engines = engine_states(config, plan, folder)
        state = LaunchState(pid=1, phase="starting", started_s=0.0, engines=engines)
        return StateFile(folder.state_path, state)

    return make


@pytest.fixture
def fake_vllm(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH in which `vllm.entrypoints.openai.api_server` is the fake engine."""
    folder = tmp_path / "fake_vllm"
    package = folder / "vllm/entrypoints/openai"
    package.mkdir(parents=True)
    for parent in (package, package.parent, package.parent.parent):
        (parent / "__init__.py").touch()
    (package / "api_server.py").write_text(FAKE_ENGINE.read_text())
    return folder


@pytest.fixture
def cascade(fake_vllm: Path) -> Callable[..., CascadeConfig]:
    """Makes a cascade of fake engines; arguments are the modes of its tiers' engines."""

    def make(*modes: str, launch: dict[str, Any] | None = None) -> CascadeConfig:
        tiers: list[dict[str, Any]] = [
            {
                "name": f"t{i}",
                "model": "some/model",
                "accept": {"score_at_least": -1.0},
                "engine": {"environment": {"PYTHONPATH": str(fake_vllm), "FAKE_ENGINE": mode}},
            }
            for i, mode in enumerate(modes)
        ]
        del tiers[-1]["accept"]
        return parse_config({"tiers": tiers, "launch": launch or {}}, source="test")

    return make


@pytest.fixture
def engine(tmp_path: Path) -> Callable[..., EngineProcess]:
    """Makes an engine process, not yet started, that runs the fake engine in a mode."""

    def make(mode: str = "", *, stop_timeout_s: float = 5.0) -> EngineProcess:
        socket_path = tmp_path / "engine.sock"
        command = EngineCommand(
            argv=(sys.executable, str(FAKE_ENGINE), "--uds", str(socket_path)),
            environment={"FAKE_ENGINE": mode, "FAKE_PIDS": str(tmp_path / "pids")},
        )
        return EngineProcess(
            "small/0",
            command,
            socket_path=socket_path,
            log_path=tmp_path / "engine.log",
            stop_timeout_s=stop_timeout_s,
        )

    return make


@pytest.fixture
def left_over(tmp_path: Path) -> Callable[[], list[str]]:
    """Command lines of living processes that mention this test's folder."""

    def find() -> list[str]:
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            words = " ".join(process.info["cmdline"] or [])
            if str(tmp_path) in words and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(words)
        return found

    return find
