import asyncio
import dataclasses
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.errors import CannotBeDone, EngineStartError
from hybridserve_llm.planner.as_configured import plan_as_configured
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.plan import Plan
from launch.engines.supervisor import check_is_here, running_engines
from launch.running.run_folder import RunFolder, open_run_folder
from launch.running.state_file import EngineState, StateFile

Make = Callable[..., CascadeConfig]
MakeState = Callable[[CascadeConfig, Plan, RunFolder], StateFile]
CPU = Hardware(cpu_cores=(0, 1))
ONE_GPU = Hardware(cpu_cores=(0, 1), gpus=(Gpu(uuid="GPU-a", name="x", memory_bytes=2**34),))


QUICK = {
    "health_interval_s": 0.05,
    "health_timeout_s": 0.2,
    "restart_limit": 2,
    "restart_backoff_s": 0.01,
}


def engine_of(state: StateFile, name: str) -> EngineState:
    (engine,) = (engine for engine in state.state.engines if engine.name == name)
    return engine


def names(plan: Plan) -> list[str]:
    return [placement.name for placement in plan.placements]


async def test_engines_run_inside_the_block_and_not_after(
    cascade: Make, tmp_path: Path, state_of: MakeState, left_over: Callable[[], list[str]]
) -> None:
    config = cascade("", "")
    plan = plan_as_configured(config, CPU)
    screen = io.StringIO()
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        async with running_engines(
            config, plan, folder, state_of(config, plan, folder), console=Console(file=screen)
        ) as endpoints:
            assert endpoints == {
                "t0": (f"unix:{folder.socket_path('t0/0')}",),
                "t1": (f"unix:{folder.socket_path('t1/0')}",),
            }
            written = json.loads((folder.path / "endpoints.json").read_text())
            assert written == {"tiers": {tier: list(urls) for tier, urls in endpoints.items()}}
            assert len(list(folder.sockets.iterdir())) == 2
        assert not left_over()
        assert list(folder.sockets.iterdir()) == []
    assert "t0/0: ready (" in screen.getvalue()
    assert "t1/0: ready (" in screen.getvalue()


async def test_tier_with_endpoints_starts_nothing(
    cascade: Make, tmp_path: Path, state_of: MakeState
) -> None:
    config = cascade("", "fail")
    giant = config.tiers[1].model_copy(update={"endpoints": ("http://there:8000",)})
    config = config.model_copy(update={"tiers": (config.tiers[0], giant)})
    plan = plan_as_configured(config, CPU)
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        async with running_engines(
            config, plan, folder, state_of(config, plan, folder)
        ) as endpoints:
            assert endpoints["t1"] == ("http://there:8000",)


async def test_one_failed_start_stops_all_and_says_why(
    cascade: Make, tmp_path: Path, state_of: MakeState, left_over: Callable[[], list[str]]
) -> None:
    config = cascade("hang", "fail", "")
    plan = plan_as_configured(config, CPU)
    screen = io.StringIO()
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        with pytest.raises(EngineStartError, match=r"engine t1/0 did not start: .*ValueError: max"):
            async with running_engines(
                config, plan, folder, state_of(config, plan, folder), console=Console(file=screen)
            ):
                pytest.fail("an engine failed")
        assert not left_over()
        assert list(folder.sockets.iterdir()) == []
    assert "t1/0: failed (" in screen.getvalue()
    assert "t0/0: failed" not in screen.getvalue()


async def test_cancelled_start_stops_all(
    cascade: Make, tmp_path: Path, state_of: MakeState, left_over: Callable[[], list[str]]
) -> None:
    config = cascade("hang", "hang")
    plan = plan_as_configured(config, CPU)

    async def start() -> None:
        with open_run_folder(tmp_path / "run", names(plan)) as folder:
            async with running_engines(config, plan, folder, state_of(config, plan, folder)):
                pytest.fail("these engines hang")

    starting = asyncio.create_task(start())
    while len(left_over()) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert not left_over()


async def test_engines_that_share_a_gpu_start_one_after_the_other(
    cascade: Make, tmp_path: Path, state_of: MakeState
) -> None:
    """The first hangs until its time is up, so the second must never have been started."""
    config = cascade("hang", "", launch={"startup_timeout_s": 0.3})
    plan = plan_as_configured(config, ONE_GPU)
    screen = io.StringIO()
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        with pytest.raises(EngineStartError, match="t0/0"):
            async with running_engines(
                config,
                plan,
                folder,
                state_of(config, plan, folder),
                gpu_numbers={"GPU-a": 0},
                console=Console(file=screen),
            ):
                pytest.fail("the first engine hangs")
        assert not folder.log_path("t1/0").exists()
    assert "t1/0: waiting for its GPU (0 s)" in screen.getvalue()


def killed(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def hung(pid: int) -> None:
    os.kill(pid, signal.SIGSTOP)


def engine_pid(folder: RunFolder, name: str) -> int:
    """The engine below its guard."""
    socket_path = str(folder.socket_path(name))
    pids = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        for words in [process.info["cmdline"] or ()]  # None where one is not ours to look at
        if socket_path in words and "--stop-timeout-s" not in words
    ]
    assert len(pids) == 1
    return pids[0]


async def until(is_so: Callable[[], object]) -> None:
    async with asyncio.timeout(30.0):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def answers(endpoint: str) -> bool:
    """Whether a health probe through a client of its own succeeds."""
    engine = VllmHttpEngine(endpoint, model="t0", clock=SystemClock())
    try:
        return await engine.check_health()
    finally:
        await engine.aclose()


@pytest.mark.parametrize(
    ("end", "reason"),
    [(killed, "killed by SIGKILL"), (hung, "no healthy answer for 0.2 s")],
)
async def test_engine_that_fails_while_serving_comes_back_on_the_same_socket(
    cascade: Make,
    tmp_path: Path,
    state_of: MakeState,
    caplog: pytest.LogCaptureFixture,
    end: Callable[[int], None],
    reason: str,
) -> None:
    config = cascade("", "", launch=QUICK)
    plan = plan_as_configured(config, CPU)
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        state = state_of(config, plan, folder)
        async with running_engines(config, plan, folder, state) as endpoints:
            first_pid = engine_pid(folder, "t0/0")
            end(first_pid)
            await until(lambda: engine_of(state, "t0/0").total_restarts)
            await until(lambda: engine_of(state, "t0/0").condition == "healthy")
            assert engine_pid(folder, "t0/0") != first_pid
            assert not psutil.pid_exists(first_pid)
            assert await answers(endpoints["t0"][0])
            assert engine_of(state, "t1/0").total_restarts == 0
        assert folder.log_path("t0/0").with_name("t0-0.log.1").exists()
    restarted = engine_of(state, "t0/0")
    assert (restarted.restarts, restarted.total_restarts) == (1, 1)
    assert restarted.reason is not None
    assert restarted.reason.startswith(reason)
    assert f"engine t0/0 failed: {reason}" in caplog.text
    assert "restart 1 of 2 in 0.01 s" in caplog.text
    assert "engine t0/0 is back after restart 1 of 2" in caplog.text


async def test_engine_that_does_not_start_again_is_given_up_and_the_others_serve(
    cascade: Make, tmp_path: Path, state_of: MakeState, caplog: pytest.LogCaptureFixture
) -> None:
    config = cascade("once", "", launch=QUICK)
    config.tiers[0].engine.environment["FAKE_PIDS"] = str(tmp_path / "born")
    plan = plan_as_configured(config, CPU)
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        state = state_of(config, plan, folder)
        async with running_engines(config, plan, folder, state) as endpoints:
            killed(engine_pid(folder, "t0/0"))
            await until(lambda: engine_of(state, "t0/0").condition == "failed")
            assert not await answers(endpoints["t0"][0])
            assert await answers(endpoints["t1"][0])
            assert state.state.tiers_down == ("t0",)
    assert engine_of(state, "t0/0").total_restarts == 2
    assert "not started again after 2 restarts in a row" in caplog.text
    assert "ValueError: no second life" in str(engine_of(state, "t0/0").reason)


async def test_limit_of_zero_restarts_nothing_and_goes_on_without_the_last_tier(
    cascade: Make, tmp_path: Path, state_of: MakeState
) -> None:
    config = cascade("", "", launch={**QUICK, "restart_limit": 0})
    plan = plan_as_configured(config, CPU)
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        state = state_of(config, plan, folder)
        async with running_engines(config, plan, folder, state) as endpoints:
            killed(engine_pid(folder, "t1/0"))
            await until(lambda: engine_of(state, "t1/0").condition == "failed")
            assert await answers(endpoints["t0"][0])
            assert state.state.tiers_down == ("t1",)
    assert engine_of(state, "t1/0").total_restarts == 0


async def test_stop_while_an_engine_is_restarted_leaves_nothing(
    cascade: Make, tmp_path: Path, state_of: MakeState, left_over: Callable[[], list[str]]
) -> None:
    config = cascade(
        "", "", launch={**QUICK, "restart_backoff_s": 500, "restart_backoff_limit_s": 500}
    )
    plan = plan_as_configured(config, CPU)
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        state = state_of(config, plan, folder)
        async with running_engines(config, plan, folder, state):
            killed(engine_pid(folder, "t0/0"))
            await until(lambda: engine_of(state, "t0/0").condition == "restarting")
            assert engine_of(state, "t0/0").stage == "waiting 500 s"
        assert not left_over()


def test_plan_with_engines_on_other_nodes_is_not_started(cascade: Make) -> None:
    plan = plan_as_configured(cascade("", ""), CPU)
    check_is_here(plan)
    (first, second) = plan.tiers
    (placement,) = second.placements
    second = dataclasses.replace(
        second, placements=(dataclasses.replace(placement, node="node-2"),)
    )
    with pytest.raises(CannotBeDone, match=r"engines on node-2; .* --dry-run"):
        check_is_here(Plan(tiers=(first, second)))


async def test_error_inside_the_block_comes_out_as_it_is(
    cascade: Make, tmp_path: Path, state_of: MakeState
) -> None:
    config = cascade("", "")
    plan = plan_as_configured(config, CPU)
    with (
        open_run_folder(tmp_path / "run", names(plan)) as folder,
        pytest.raises(ZeroDivisionError),
    ):
        async with running_engines(config, plan, folder, state_of(config, plan, folder)):
            raise ZeroDivisionError
