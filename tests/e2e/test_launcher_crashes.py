"""Kill tests on a real vLLM engine: it crashes, it hangs, its launcher is killed.

One launch of a real small tier serves all tests, in the order of this file. The tier above it is a
stand-in that runs already: a real one would take its share of the cores at the start.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import psutil
import pytest
import yaml

from hybridserve_llm.testing import create_fake_vllm_app, serving
from launch.demo.family import CHECKPOINTS
from launch.running.state_file import EngineState, LaunchState
from launch.running.status import status_of

pytestmark = pytest.mark.engine

EASY = [{"role": "user", "content": "Which is larger, 52 or 17?"}]
HEALTH_TIMEOUT_S = 2.0
RECOVERY_TIMEOUT_S = 300.0  # 15 s on an idle machine


@dataclass(frozen=True)
class Launched:
    """A launcher of the real tier small and the stand-in giant, as a process of its own."""

    process: subprocess.Popen[bytes]
    run_folder: Path

    def state(self) -> LaunchState:
        """What the launcher says."""
        state = status_of(self.run_folder, now_s=time.monotonic()).state
        assert state is not None
        return state

    def engine(self) -> EngineState:
        (engine,) = self.state().engines
        return engine

    def status(self) -> tuple[int, dict[str, Any]]:
        """Exit code of `hs-launch status`, and what it says of this launch."""
        command = [sys.executable, "-m", "launch.cli", "status", "--json", "--run-folder"]
        done = subprocess.run([*command, str(self.run_folder)], capture_output=True, check=False)
        (launch,) = json.loads(done.stdout)["launches"]
        return done.returncode, launch

    def server_pids(self) -> list[int]:
        """The engine's API server, below its guard, while it runs."""
        socket_path = str(self.run_folder / "sockets" / "small-0.sock")
        return [
            process.pid
            for process in psutil.process_iter(["cmdline"])
            if socket_path in (words := process.info["cmdline"] or [])
            and "--stop-timeout-s" not in words
        ]

    def server_pid(self) -> int:
        (pid,) = self.server_pids()
        return pid

    def ask(self) -> list[tuple[str, str]]:
        """Tier and decision of every attempt of one request, after checking its answer."""
        base_url = f"{self.state().base_url}/v1"
        with openai.OpenAI(base_url=base_url, api_key="none", max_retries=0) as client:
            completion = client.chat.completions.create(
                model="hybridserve", messages=EASY, temperature=0
            )
        assert completion.choices[0].message.content.strip() == "52"
        attempts = completion.model_extra["hybridserve"]["attempts"]
        return [(attempt["tier"], attempt["decision"]) for attempt in attempts]


def wait_until(is_so: Callable[[], object], timeout_s: float) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


@contextlib.contextmanager
def stand_in(socket: Path) -> Iterator[str]:
    """The address of a fake engine that answers everything with 52, in a thread of its own."""
    app = create_fake_vllm_app(model="stand-in")
    app.state.fake_vllm.answer = "52"
    started, ended = threading.Event(), threading.Event()

    async def serve() -> None:
        async with serving(app, socket):
            started.set()
            await asyncio.to_thread(ended.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(30.0)
        yield f"unix:{socket}"
    finally:
        ended.set()
        thread.join()


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    folder = tmp_path_factory.mktemp("crashes")
    small = {
        "name": "small",
        "model": str(CHECKPOINTS / "small"),
        "accept": {"score_at_least": -100.0},  # whatever it says, while it lives
        "engine": {"max_model_len": 512, "dtype": "bfloat16", "enforce_eager": True},
    }
    launch = {"health_interval_s": 0.5, "health_timeout_s": HEALTH_TIMEOUT_S}
    server = {"port": 0, "health_interval_s": 0.5}
    config, run_folder = folder / "cascade.yaml", folder / "run"
    command = [sys.executable, "-m", "launch.cli", "--config", str(config), "--cpu"]
    with stand_in(folder / "s") as address:
        giant = {"name": "giant", "model": "stand-in", "endpoints": [address]}
        tiers = {"tiers": [small, giant], "launch": launch, "server": server}
        config.write_text(yaml.safe_dump(tiers))
        process = subprocess.Popen(
            [*command, "--run-folder", str(run_folder)], stdout=subprocess.PIPE
        )
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"ready:")
            yield Launched(process, run_folder)
        finally:
            process.kill()
            process.communicate()


def test_crashed_engine_is_passed_over_and_comes_back_into_rotation(launched: Launched) -> None:
    assert launched.status()[0] == 0
    assert launched.ask() == [("small", "accept")]
    os.kill(launched.server_pid(), signal.SIGKILL)
    assert launched.ask() == [("small", "fail"), ("giant", "accept")]
    wait_until(lambda: launched.engine().condition == "restarting", 10.0)
    code, launch = launched.status()
    assert (code, launch["is_ready"]) == (3, False)
    wait_until(lambda: launched.state().is_ready, RECOVERY_TIMEOUT_S)
    # The front end's own probe, every 0.5 s, takes it back.
    ready_url = f"{launched.state().base_url}/ready"
    wait_until(lambda: httpx.get(ready_url).status_code == 200, 10.0)
    assert launched.ask() == [("small", "accept")]
    assert launched.engine().total_restarts == 1
    assert str(launched.engine().reason).startswith("killed by SIGKILL")


def test_hung_engine_is_killed_and_started_again(launched: Launched) -> None:
    """That it comes back as after a crash is shown on fakes, in tests/launcher."""
    hung = launched.server_pid()
    os.kill(hung, signal.SIGSTOP)
    wait_until(lambda: launched.engine().total_restarts == 2, 30.0)
    assert launched.engine().reason == f"no healthy answer for {HEALTH_TIMEOUT_S:g} s"
    wait_until(lambda: launched.server_pids() not in ([], [hung]), 30.0)
    assert not psutil.pid_exists(hung)
    assert launched.ask()[-1] == ("giant", "accept")


def test_killed_launcher_leaves_no_engine_for_more_than_10_s(launched: Launched) -> None:
    """Last in this file: nothing runs after it."""
    started = psutil.Process(launched.process.pid).children(recursive=True)
    assert len(started) >= 2  # guard and engine
    launched.process.kill()
    launched.process.wait()
    _, alive = psutil.wait_procs(started, timeout=10.0)
    assert not alive
    assert launched.server_pids() == []
    code, launch = launched.status()
    assert (code, launch["phase"]) == (3, "dead")
    assert os.listdir(launched.run_folder / "sockets") == []
