import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.load import load_config
from hybridserve_llm.planner.plan import Plan
from launch.cli import main
from launch.demo.family import DEMO_CONFIG
from launch.machine.checkpoints import check_checkpoints

Make = Callable[..., CascadeConfig]
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def config_file(cascade: Make, tmp_path: Path) -> Callable[..., Path]:
    """Writes the file of a cascade of fake engines; arguments as for `cascade`."""

    def write(*modes: str, **settings: Any) -> Path:
        path = tmp_path / "cascade.yaml"
        values = cascade(*modes, **settings).model_dump(mode="json", exclude_defaults=True)
        path.write_text(yaml.safe_dump(values))
        return path

    return write


def fails_with_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], status: int
) -> str:
    """The error's line, after checking that it is one line, with the status, and nothing else."""
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert out == ""
    errors = [line for line in err.splitlines() if line.startswith("hs-launch: error: ")]
    assert len(errors) == 1
    assert "Traceback" not in err
    return errors[0]


def test_unknown_config_key_is_named(
    config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = config_file("", "")
    path.write_text(path.read_text() + "typo: 1\n")
    line = fails_with_one_line(capsys, ["--config", str(path)], 2)
    assert line == f"hs-launch: error: {path}: unknown key 'typo'"


def test_missing_config_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    line = fails_with_one_line(capsys, ["--config", "/no/such.yaml"], 2)
    assert line == (
        "hs-launch: error: cannot read config file /no/such.yaml: No such file or directory"
    )


@pytest.mark.parametrize(
    ("is_folder", "fault"),
    [(False, "there is no such folder"), (True, "the folder has no config.json")],
)
def test_missing_checkpoint_is_named(
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    is_folder: bool,
    fault: str,
) -> None:
    path = config_file("", "")
    model = path.parent / "models" / "small"
    if is_folder:
        model.mkdir(parents=True)
    path.write_text(path.read_text().replace("some/model", "./models/small", 1))
    line = fails_with_one_line(capsys, ["--config", str(path), "--dry-run"], 2)
    assert f"tier t0: no checkpoint at {model}: {fault}" in line


def test_port_in_use_is_told_before_any_engine_starts(
    config_file: Callable[..., Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        path = config_file("", "")
        arguments = ["--config", str(path), "--port", str(port)]
        line = fails_with_one_line(capsys, [*arguments, "--run-folder", str(tmp_path / "run")], 3)
    assert f"127.0.0.1 port {port} is in use" in line
    assert not (tmp_path / "run").exists()


def test_engine_that_fails_is_told_with_its_reason(
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    left_over: Callable[[], list[str]],
) -> None:
    arguments = ["--config", str(config_file("", "fail")), "--cpu", "--port", "0"]
    line = fails_with_one_line(capsys, [*arguments, "--run-folder", str(tmp_path / "run")], 3)
    assert "engine t1/0 did not start: exited with status 1; ValueError: max_model_len" in line
    assert not left_over()


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["--demo", "--config", "x.yaml"],
        ["--demo", "--cpu", "--gpus", "1"],
        ["--demo", "--json"],
        ["--demo", "--port", "65536"],
        ["--demo", "--port", "http"],
        ["--demo", "--gpus", "0"],
        ["--demo", "--log-level", "loud"],
        ["--demo", "--typo"],
    ],
)
def test_wrong_usage_exits_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "hs-launch: error: " in capsys.readouterr().err.splitlines()[-1]


def test_too_many_gpus_cannot_be_had(
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    arguments = ["--config", str(config_file("", "")), "--dry-run", "--gpus", "3"]
    line = fails_with_one_line(capsys, arguments, 3)
    assert line == "hs-launch: error: 3 GPUs asked for, 0 usable here: 3 too few"


def test_dry_run_prints_the_plan_as_json_and_nothing_else(
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)  # asked for a hub id's sizes
    assert main(["--config", str(config_file("", "")), "--dry-run", "--json", "--cpu"]) == 0
    out, err = capsys.readouterr()
    report = json.loads(out)
    plan = Plan.from_json(json.dumps(report["plan"]))
    assert [p.name for p in plan.placements] == ["t0/0", "t1/0"]
    assert (report["fits"], report["searched"]) == (True, False)
    assert err == ""


def test_dry_run_table_fits_80_columns(
    config_file: Callable[..., Path],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    path = config_file("", "")
    values = yaml.safe_load(path.read_text())
    values["tiers"][0]["tensor_parallel_size"] = 1
    values["tiers"][1]["endpoints"] = ["http://a-long-name.of-a-server.example.org:8000"]
    path.write_text(yaml.safe_dump(values))
    assert main(["--config", str(path), "--dry-run", "--cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert any("t0/0" in line and "some/model" in line for line in lines)
    assert any("a-long-name" in line for line in lines)


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.name)
def test_examples_load(path: Path) -> None:
    check_checkpoints(load_config(path))


def test_there_are_examples_and_the_demo_names_its_checkpoints() -> None:
    assert len(list(EXAMPLES.glob("*.yaml"))) >= 2
    demo = load_config(DEMO_CONFIG)
    assert [tier.name for tier in demo.tiers] == ["small", "medium", "giant"]
    assert {Path(tier.model).parent for tier in demo.tiers} == {DEMO_CONFIG.parent / "checkpoints"}


class Launched:
    """`hs-launch` as a process of its own."""

    def __init__(self, config: Path, run_folder: Path) -> None:
        self.stdout = run_folder.with_suffix(".out")
        self.stderr = run_folder.with_suffix(".err")
        with self.stdout.open("wb") as out, self.stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "launch.cli", "--config", str(config), "--cpu"),
                    *("--port", "0", "--run-folder", str(run_folder)),
                ],
                stdout=out,
                stderr=err,
            )

    def wait_for(self, is_there: Callable[[], object]) -> None:
        deadline_s = time.monotonic() + 60.0
        while not is_there():
            assert self.process.poll() is None, self.stderr.read_text()
            assert time.monotonic() < deadline_s, self.stderr.read_text()
            time.sleep(0.02)


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Callable[[Path], Launched]]:
    started: list[Launched] = []

    def launch(config: Path) -> Launched:
        started.append(Launched(config, tmp_path / "run"))
        return started[-1]

    yield launch
    for each in started:
        each.process.kill()
        each.process.wait()


@pytest.mark.slow
def test_ctrl_c_while_serving_leaves_no_process_and_no_socket(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    left_over: Callable[[], list[str]],
) -> None:
    launch = launched(config_file("", ""))
    launch.wait_for(lambda: "ready: " in launch.stdout.read_text())
    endpoints = json.loads((tmp_path / "run" / "endpoints.json").read_text())
    assert set(endpoints["tiers"]) == {"t0", "t1"}
    launch.process.send_signal(signal.SIGINT)
    assert launch.process.wait(timeout=30) == 0
    assert not left_over()
    assert sorted(os.listdir(tmp_path / "run")) == ["lock", "logs", "plan.json"]
    assert launch.stdout.read_text().startswith("ready: http://127.0.0.1:")
    assert "Traceback" not in launch.stderr.read_text()


def test_sigterm_while_engines_start_stops_them(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    left_over: Callable[[], list[str]],
) -> None:
    launch = launched(config_file("hang", "hang"))
    launch.wait_for((tmp_path / "run" / "logs" / "t1-0.log").exists)
    launch.process.send_signal(signal.SIGTERM)
    assert launch.process.wait(timeout=30) == 0
    assert not left_over()
    assert launch.stdout.read_text() == ""
    assert "Traceback" not in launch.stderr.read_text()


@pytest.mark.slow
def test_second_ctrl_c_kills_engines_that_do_not_end(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    left_over: Callable[[], list[str]],
) -> None:
    launch = launched(config_file("stubborn", "", launch={"stop_timeout_s": 500}))
    launch.wait_for(lambda: "ready: " in launch.stdout.read_text())
    launch.process.send_signal(signal.SIGINT)
    launch.wait_for(lambda: "stopping" in launch.stderr.read_text())
    launch.process.send_signal(signal.SIGINT)
    assert launch.process.wait(timeout=30) == 0
    assert not left_over()


@pytest.mark.slow
def test_killed_launcher_leaves_no_engine(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    left_over: Callable[[], list[str]],
) -> None:
    launch = launched(config_file("", ""))
    launch.wait_for(lambda: "ready: " in launch.stdout.read_text())
    launch.process.kill()
    launch.process.wait()
    deadline_s = time.monotonic() + 10.0
    while left_over() and time.monotonic() < deadline_s:
        time.sleep(0.02)
    assert not left_over()
    assert os.listdir(tmp_path / "run" / "sockets") == []


@pytest.mark.slow
def test_status_and_stop_from_another_terminal(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    left_over: Callable[[], list[str]],
) -> None:
    launch = launched(config_file("", ""))
    launch.wait_for(lambda: "ready: " in launch.stdout.read_text())
    assert main(["status", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["launches"]
    assert found["pid"] == launch.process.pid
    assert found["run_folder"] == str(tmp_path / "run")
    assert f"ready: {found['base_url']}/v1" in launch.stdout.read_text()
    assert [engine["condition"] for engine in found["engines"]] == ["healthy", "healthy"]
    assert main(["stop"]) == 0
    assert f"stopped: pid {launch.process.pid}" in capsys.readouterr().out
    assert launch.process.wait(timeout=30) == 0
    assert not left_over()
    assert main(["status", "--run-folder", str(tmp_path / "run")]) == 3
    assert "no launcher runs in" in capsys.readouterr().out


@pytest.mark.slow
def test_status_and_stop_of_a_launch_that_starts(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    left_over: Callable[[], list[str]],
) -> None:
    launch = launched(config_file("", "hang"))

    def engines() -> list[dict[str, Any]]:
        assert main(["status", "--json", "--run-folder", str(tmp_path / "run")]) == 3
        (found,) = json.loads(capsys.readouterr().out)["launches"]
        assert found["is_ready"] is False
        return found["engines"] if found["phase"] == "starting" else []

    launch.wait_for((tmp_path / "run/state.json").exists)
    launch.wait_for(
        lambda: [engine["condition"] for engine in engines()] == ["healthy", "starting"]
    )
    assert main(["status"]) == 3
    assert ": starting at http" in capsys.readouterr().out
    assert main(["stop"]) == 0
    assert launch.process.wait(timeout=30) == 0
    assert launch.stdout.read_text() == ""  # it never said that it was ready
    assert not left_over()


@pytest.mark.slow
def test_status_and_stop_of_a_launch_with_an_engine_that_restarts(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    left_over: Callable[[], list[str]],
) -> None:
    monkeypatch.setenv("FAKE_PIDS", str(tmp_path / "end"))  # what tells the engine to end
    rules = {"restart_backoff_s": 500, "restart_backoff_limit_s": 500}
    launch = launched(config_file("dies", "", launch=rules))
    launch.wait_for(lambda: "ready: " in launch.stdout.read_text())
    (tmp_path / "end").touch()

    def engine() -> dict[str, Any]:
        main(["status", "--json"])
        (found,) = json.loads(capsys.readouterr().out)["launches"]
        first: dict[str, Any] = found["engines"][0]
        return first

    launch.wait_for(lambda: engine()["condition"] == "restarting")
    assert engine()["reason"].startswith("exited with status 3")
    assert main(["status"]) == 3
    out = capsys.readouterr().out
    assert "not ready: no engine is healthy of tier t0" in out
    assert "restarting 1 of 3: waiting 500 s" in out
    assert main(["stop"]) == 0
    assert launch.process.wait(timeout=30) == 0
    assert not left_over()


@pytest.mark.slow
def test_status_stop_and_a_new_launch_after_one_that_was_killed(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path, folder = config_file("", ""), str(tmp_path / "run")
    first = launched(path)
    first.wait_for(lambda: "ready: " in first.stdout.read_text())
    first.process.kill()
    first.process.wait()
    assert main(["status", "--run-folder", folder]) == 3
    assert "died without stopping" in " ".join(capsys.readouterr().out.split())
    assert main(["stop", "--run-folder", folder]) == 3
    assert f"no launcher runs in {folder}" in capsys.readouterr().err
    assert main(["status"]) == 3  # the list of running launches has lost it
    assert "no launcher of this user runs" in capsys.readouterr().err
    second = launched(path)  # waits for the last engine of the first, and takes its lock
    second.wait_for(lambda: "ready: " in second.stdout.read_text())
    assert main(["status", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)["launches"]
    assert found["pid"] == second.process.pid
    assert main(["stop"]) == 0


@pytest.mark.slow
def test_second_launch_on_the_same_folder_says_who_has_it(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = config_file("", "")
    launch = launched(path)
    launch.wait_for(lambda: "ready: " in launch.stdout.read_text())
    arguments = ["--config", str(path), "--cpu", "--port", "0"]
    line = fails_with_one_line(capsys, [*arguments, "--run-folder", str(tmp_path / "run")], 3)
    assert f"in use by another hs-launch (pid {launch.process.pid})" in line
    assert main(["status"]) == 0  # the first is not disturbed


@pytest.mark.slow
def test_stop_that_is_not_over_in_time_says_so_and_a_second_one_hurries(
    config_file: Callable[..., Path],
    launched: Callable[[Path], Launched],
    capsys: pytest.CaptureFixture[str],
    left_over: Callable[[], list[str]],
) -> None:
    launch = launched(config_file("stubborn", "", launch={"stop_timeout_s": 500}))
    launch.wait_for(lambda: "ready: " in launch.stdout.read_text())
    assert main(["stop", "--timeout", "0.1"]) == 3
    assert "still runs after 0.1 s" in capsys.readouterr().err
    launch.wait_for(lambda: "stopping" in launch.stderr.read_text())
    assert main(["status"]) == 3
    assert ": draining at " in capsys.readouterr().out
    assert main(["stop"]) == 0
    assert not left_over()
