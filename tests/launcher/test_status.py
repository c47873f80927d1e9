import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hybridserve_llm.errors import CannotBeDone
from launch.cli import main
from launch.running.launch_index import announced, running_launches
from launch.running.run_folder import open_run_folder
from launch.running.state_file import EngineState, LaunchState, StateFile
from launch.running.status import status_of

HEALTHY = EngineState(
    name="small/0",
    log_path="small-0.log",
    restart_limit=3,
    condition="healthy",
    healthy_since_s=5.0,
)
RESTARTING = EngineState(
    name="giant/0",
    tensor_parallel_size=2,
    log_path="giant-0.log",
    restart_limit=3,
    condition="restarting",
    stage="loading weights",
    reason="killed by SIGKILL (out of memory?)",
    restarts=2,
    total_restarts=4,
)
Write = Callable[..., StateFile]


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Write]:
    """The state file of a launch that this process stands in for, found without its folder."""
    with open_run_folder(tmp_path, []) as folder, announced(folder.path, os.environ):

        def write(*engines: EngineState, phase: str = "ready") -> StateFile:
            state = LaunchState(
                pid=os.getpid(),
                phase=phase,  # type: ignore[arg-type] - a word of the test
                started_s=0.0,
                base_url="http://127.0.0.1:8000",
                endpoints={"remote": ("http://there:8000",)},
                engines=tuple(
                    EngineState(
                        **{
                            **{name: getattr(engine, name) for name in engine.__slots__},
                            "log_path": str(tmp_path / "logs" / engine.log_path),
                        }
                    )
                    for engine in engines
                ),
            )
            return StateFile(folder.state_path, state)

        yield write


@pytest.fixture
def dead_launch(tmp_path: Path) -> tuple[Path, int]:
    """Run folder and pid of a launcher that was killed."""
    program = (
        "import os, pathlib, signal, sys\n"
        "from launch.running.run_folder import open_run_folder\n"
        "from launch.running.state_file import LaunchState, StateFile\n"
        "with open_run_folder(pathlib.Path(sys.argv[1]), []) as folder:\n"
        "    state = LaunchState(pid=os.getpid(), phase='ready', started_s=0.0)\n"
        "    StateFile(folder.state_path, state)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
    process.wait()
    return tmp_path, process.pid


def test_ready_launch_is_shown_and_exits_0(
    launched: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(HEALTHY)
    assert main(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    head = f"hs-launch, pid {os.getpid()}: ready at http://127.0.0.1:8000/v1, up "
    assert lines[0].startswith(head)
    assert lines[1] == f"run folder {tmp_path}"
    assert lines[2].split() == ["engine", "state", "restarts", "up", "log", "in", "logs/"]
    assert lines[3].split()[:3] == ["small/0", "healthy", "0"]
    assert lines[3].split()[-1] == "small-0.log"


def test_engine_that_restarts_is_counted_and_its_tier_is_down(
    launched: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(HEALTHY, RESTARTING)
    assert main(["status", "--run-folder", str(tmp_path)]) == 3
    out = capsys.readouterr().out
    assert "not ready: no engine is healthy of tier giant" in out
    assert "restarting 2 of 3: loading weights" in out
    assert "giant/0 failed last: killed by SIGKILL (out of memory?)" in out
    assert max(map(len, out.splitlines()[2:])) <= 80


def test_json_holds_every_engine_and_nothing_else_is_on_stdout(
    launched: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launched(HEALTHY, RESTARTING)
    assert main(["status", "--json"]) == 3
    (launch,) = json.loads(capsys.readouterr().out)["launches"]
    assert (launch["phase"], launch["is_ready"], launch["pid"]) == ("ready", False, os.getpid())
    assert launch["run_folder"] == str(tmp_path)
    assert launch["uptime_s"] > 0
    assert launch["endpoints"] == {"remote": ["http://there:8000"]}
    healthy, restarting = launch["engines"]
    assert healthy["uptime_s"] > 0
    assert restarting["uptime_s"] is None
    assert [engine["tensor_parallel_size"] for engine in launch["engines"]] == [1, 2]
    assert (restarting["restarts"], restarting["total_restarts"]) == (2, 4)


@pytest.mark.parametrize("phase", ["planning", "starting", "draining"])
def test_other_phases_are_not_ready(
    launched: Write, capsys: pytest.CaptureFixture[str], phase: str
) -> None:
    launched(HEALTHY, phase=phase)
    assert main(["status"]) == 3
    assert f": {phase} at " in capsys.readouterr().out


def test_launcher_that_was_killed_is_dead_and_not_running(
    dead_launch: tuple[Path, int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, pid = dead_launch
    assert main(["status", "--run-folder", str(folder)]) == 3
    assert f"pid {pid}, died without stopping" in " ".join(capsys.readouterr().out.split())
    assert main(["status", "--run-folder", str(folder), "--json"]) == 3
    (launch,) = json.loads(capsys.readouterr().out)["launches"]
    assert (launch["phase"], launch["engines"], launch["uptime_s"]) == ("dead", [], None)
    assert main(["stop", "--run-folder", str(folder)]) == 3
    assert f"no launcher runs in {folder}" in capsys.readouterr().err


def test_new_launch_on_the_folder_of_a_dead_one_begins_afresh(
    dead_launch: tuple[Path, int],
) -> None:
    folder, _ = dead_launch
    with open_run_folder(folder, []):
        found = status_of(folder, now_s=0.0)
    assert (found.phase, found.pid, found.state) == ("planning", os.getpid(), None)
    assert status_of(folder, now_s=0.0).phase == "stopped"


def test_nothing_runs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["status"]) == 3
    assert "no launcher of this user runs" in capsys.readouterr().err
    assert main(["status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out) == {"launches": []}
    assert main(["stop"]) == 3
    assert "no launcher of this user runs" in capsys.readouterr().err
    assert main(["status", "--run-folder", str(tmp_path)]) == 3
    assert "is no run folder of hs-launch" in capsys.readouterr().err


def test_entry_of_a_dead_launcher_is_not_listed_and_goes(
    dead_launch: tuple[Path, int], runtime_folder: Path
) -> None:
    folder, pid = dead_launch
    index = runtime_folder / "hybridserve"
    index.mkdir()
    (index / str(pid)).write_text(str(folder))
    (index / str(os.getpid())).write_text(str(folder))  # a pid that was given away
    assert running_launches(os.environ) == []
    with open_run_folder(folder, []), announced(folder, os.environ):
        assert running_launches(os.environ) == [folder]
        assert [entry.name for entry in index.iterdir()] == [str(os.getpid())]
    assert list(index.iterdir()) == []


def test_state_of_another_version_is_refused(launched: Write, tmp_path: Path) -> None:
    launched(HEALTHY)
    (tmp_path / "state.json").write_text('{"something": "else"}')
    with pytest.raises(CannotBeDone, match="schema_version 1"):
        status_of(tmp_path, now_s=0.0)


@pytest.mark.parametrize("words", [["status", "--typo"], ["stop", "--timeout", "soon"]])
def test_wrong_usage_of_the_subcommands_exits_2(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert f"hs-launch {words[0]}: error: " in capsys.readouterr().err
