import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from hybridserve_llm.errors import EngineStartError
from launch.engines import guard
from launch.engines.argv import EngineCommand
from launch.engines.process import EngineProcess, kill_tree

Make = Callable[..., EngineProcess]
NO_HURRY_S = 10.0


async def gone(pid: int) -> bool:
    """Whether the process ends within some seconds."""
    deadline_s = time.monotonic() + NO_HURRY_S
    while time.monotonic() < deadline_s:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.02)
                continue
        return True
    return False


async def test_serves_on_its_socket_and_leaves_nothing(
    engine: Make, left_over: Callable[[], list[str]]
) -> None:
    process = engine()
    process.socket_path.touch()  # left by an earlier launch; must be out of the way
    await process.start()
    await process.wait_healthy(10.0)
    assert left_over()
    await process.stop(hurry=asyncio.Event())
    assert not left_over()
    assert not process.socket_path.exists()


async def test_stop_ends_children_that_left_the_group_and_ignore_sigterm(
    engine: Make, tmp_path: Path
) -> None:
    process = engine("stubborn", stop_timeout_s=0.2)
    await process.start()
    await process.wait_healthy(10.0)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    hurry = asyncio.Event()
    hurry.set()  # not waiting for orphans keeps this test short; they end as well without it
    await process.stop(hurry=hurry)
    assert [await gone(pid) for pid in pids] == [True, True]


async def test_engine_that_ends_by_itself_takes_its_children_along(
    engine: Make, tmp_path: Path
) -> None:
    process = engine("family")
    await process.start()
    await process.wait_healthy(10.0)
    main, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    os.kill(main, signal.SIGKILL)
    reason = await process.wait_failed(interval_s=5.0, timeout_s=5.0)
    assert reason.startswith("killed by SIGKILL (out of memory?)")
    assert await gone(child)
    await process.stop(hurry=asyncio.Event())


@pytest.mark.parametrize(
    ("mode", "stop_timeout_s"),
    [
        ("family", "5"),
        # Its engine does not end on SIGTERM, and the time to drain is the launcher's, who is gone.
        ("stubborn", "500"),
    ],
)
@pytest.mark.slow
async def test_killed_launcher_leaves_no_process_and_no_socket(
    tmp_path: Path, mode: str, stop_timeout_s: str
) -> None:
    """The launcher here is a process of its own, killed with SIGKILL while its engine serves."""
    socket_path = tmp_path / "engine.sock"
    fake = Path(__file__).parent / "fake_engine.py"
    launcher = subprocess.Popen(  # noqa: ASYNC220 - the loop has nothing else to do
        [
            sys.executable,
            "-c",
            "import subprocess, sys, time\n"
            "subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, start_new_session=True)\n"
            "time.sleep(600)",
            *(sys.executable, guard.__file__, "--stop-timeout-s", stop_timeout_s),
            *("--socket", str(socket_path), "--", sys.executable, str(fake)),
            *("--uds", str(socket_path)),
        ],
        env={**os.environ, "FAKE_ENGINE": mode, "FAKE_PIDS": str(tmp_path / "pids")},
        stdout=subprocess.DEVNULL,
    )
    deadline_s = time.monotonic() + NO_HURRY_S
    while not socket_path.exists() and time.monotonic() < deadline_s:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    (guard_process,) = psutil.Process(launcher.pid).children()
    launcher.kill()
    launcher.wait()
    assert [await gone(pid) for pid in (*pids, guard_process.pid)] == [True, True, True]
    assert not socket_path.exists()


async def test_tree_of_a_guard_that_does_not_answer_can_be_killed(
    engine: Make, tmp_path: Path
) -> None:
    process = engine("family")
    await process.start()
    await process.wait_healthy(10.0)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    guard_pid = psutil.Process(pids[0]).ppid()
    os.kill(guard_pid, signal.SIGSTOP)
    kill_tree(guard_pid)
    assert [await gone(pid) for pid in (guard_pid, *pids)] == [True, True, True]
    await process.stop(hurry=asyncio.Event())


async def test_killed_guard_takes_the_engine_along(engine: Make, tmp_path: Path) -> None:
    process = engine("family")
    await process.start()
    await process.wait_healthy(10.0)
    main, child = (int(pid) for pid in (tmp_path / "pids").read_text().split())
    os.kill(psutil.Process(main).ppid(), signal.SIGKILL)
    assert await gone(main)
    os.kill(child, signal.SIGKILL)  # out of reach without its guard: kept from outliving the test
    await process.stop(hurry=asyncio.Event())


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        (
            "fail",
            "exited with status 1; ValueError: max_model_len 9000 is more than the model's 512",
        ),
        ("silent", "exited with status 7; non-default args: {}"),
    ],
)
async def test_failed_start_says_why(engine: Make, mode: str, reason: str) -> None:
    process = engine(mode)
    await process.start()
    with pytest.raises(EngineStartError) as caught:
        await process.wait_healthy(10.0)
    await process.stop(hurry=asyncio.Event())
    assert caught.value.reason == reason
    assert str(caught.value) == (
        f"engine small/0 did not start: {reason} (log: {process.log_path})"
    )


async def test_engine_that_never_gets_healthy_is_a_failed_start(engine: Make) -> None:
    process = engine("hang")
    await process.start()
    with pytest.raises(EngineStartError, match=r"not healthy after 0\.2 s"):
        await process.wait_healthy(0.2)
    await process.stop(hurry=asyncio.Event())


async def test_command_that_does_not_exist_is_a_failed_start(tmp_path: Path) -> None:
    process = EngineProcess(
        "small/0",
        EngineCommand(argv=("/no/such/python",), environment={}),
        socket_path=tmp_path / "engine.sock",
        log_path=tmp_path / "engine.log",
        stop_timeout_s=5.0,
    )
    await process.start()
    with pytest.raises(EngineStartError, match="No such file or directory: '/no/such/python'"):
        await process.wait_healthy(10.0)
    await process.stop(hurry=asyncio.Event())


async def test_log_that_cannot_be_written_is_a_failed_start(tmp_path: Path) -> None:
    process = EngineProcess(
        "small/0",
        EngineCommand(argv=("/bin/true",), environment={}),
        socket_path=tmp_path / "engine.sock",
        log_path=tmp_path / "no_such_folder" / "engine.log",
        stop_timeout_s=5.0,
    )
    with pytest.raises(EngineStartError, match="No such file or directory"):
        await process.start()
    await process.stop(hurry=asyncio.Event())


async def test_cancelled_start_is_stopped_too(
    engine: Make, left_over: Callable[[], list[str]]
) -> None:
    process = engine("hang")
    starting = asyncio.create_task(process.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait({starting})
    await process.stop(hurry=asyncio.Event())
    assert not left_over()


async def test_engine_starts_again_after_it_was_stopped_and_its_old_log_is_kept(
    engine: Make,
) -> None:
    process = engine()
    for _ in range(2):
        await process.start()
        await process.wait_healthy(10.0)
        await process.stop(hurry=asyncio.Event())
    assert process.log_path.with_name("engine.log.1").read_text() == process.log_path.read_text()


async def test_hung_engine_is_told_from_a_healthy_one(engine: Make, tmp_path: Path) -> None:
    process = engine("family")
    await process.start()
    await process.wait_healthy(10.0)
    main = int((tmp_path / "pids").read_text().split()[0])
    failing = asyncio.create_task(process.wait_failed(interval_s=0.02, timeout_s=0.2))
    done, _ = await asyncio.wait({failing}, timeout=0.5)
    assert not done
    os.kill(main, signal.SIGSTOP)
    assert await failing == "no healthy answer for 0.2 s"
    hurry = asyncio.Event()
    hurry.set()
    await process.stop(hurry=hurry)
    assert await gone(main)


async def test_stop_of_an_engine_never_started_does_nothing(engine: Make) -> None:
    await engine().stop(hurry=asyncio.Event())
    with pytest.raises(RuntimeError, match="not started"):
        await engine().wait()
