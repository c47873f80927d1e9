import logging
import shutil
from pathlib import Path

import pytest

from launch.running.state_file import EngineState, LaunchState, StateFile

STATE = LaunchState(
    pid=7,
    phase="starting",
    started_s=1.5,
    base_url="http://127.0.0.1:8000",
    endpoints={"giant": ("http://there:8000",)},
    engines=(
        EngineState(name="small/0", log_path="/x/0.log", restart_limit=3),
        EngineState(name="small/1", log_path="/x/1.log", restart_limit=3),
    ),
)


def test_state_survives_the_round_trip() -> None:
    assert LaunchState.from_json(STATE.to_json()) == STATE


def test_file_holds_what_was_said_last(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path, STATE)
    file.update(phase="ready")
    file.update_engine("small/1", condition="healthy", healthy_since_s=2.0)
    read = LaunchState.from_json(path.read_bytes())
    assert read == file.state
    assert read.phase == "ready"
    assert [engine.condition for engine in read.engines] == ["starting", "healthy"]
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


def test_a_tier_is_up_with_one_healthy_engine(tmp_path: Path) -> None:
    file = StateFile(tmp_path / "state.json", STATE)
    assert file.state.tiers_down == ("small",)
    file.update_engine("small/1", condition="healthy")
    assert file.state.tiers_down == ()
    assert not file.state.is_ready  # it starts
    file.update(phase="ready")
    assert file.state.is_ready
    file.update_engine("small/1", condition="failed")
    assert not file.state.is_ready


def test_what_does_not_change_is_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    file = StateFile(path, STATE)
    path.unlink()
    file.update_engine("small/0", condition="starting")
    assert not path.exists()


def test_file_that_cannot_be_written_is_logged_and_nothing_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    file = StateFile(folder / "state.json", STATE)
    shutil.rmtree(folder)
    with caplog.at_level(logging.WARNING):
        file.update(phase="ready")
    assert "cannot write" in caplog.text
    assert file.state.phase == "ready"
