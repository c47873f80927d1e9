import asyncio
import io
import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.errors import EngineStartError
from hybridserve_llm.planner.as_configured import plan_as_configured
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.plan import Plan
from launch.run_folder import open_run_folder
from launch.supervisor import running_engines

Make = Callable[..., CascadeConfig]
CPU = Hardware(cpu_cores=(0, 1))
ONE_GPU = Hardware(cpu_cores=(0, 1), gpus=(Gpu(uuid="GPU-a", name="x", memory_bytes=2**34),))


def names(plan: Plan) -> list[str]:
    return [placement.name for placement in plan.placements]


async def test_engines_run_inside_the_block_and_not_after(
    cascade: Make, tmp_path: Path, left_over: Callable[[], list[str]]
) -> None:
    config = cascade("", "")
    plan = plan_as_configured(config, CPU)
    screen = io.StringIO()
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        async with running_engines(config, plan, folder, console=Console(file=screen)) as endpoints:
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


async def test_tier_with_endpoints_starts_nothing(cascade: Make, tmp_path: Path) -> None:
    config = cascade("", "fail")
    giant = config.tiers[1].model_copy(update={"endpoints": ("http://there:8000",)})
    config = config.model_copy(update={"tiers": (config.tiers[0], giant)})
    plan = plan_as_configured(config, CPU)
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        async with running_engines(config, plan, folder) as endpoints:
            assert endpoints["t1"] == ("http://there:8000",)


async def test_one_failed_start_stops_all_and_says_why(
    cascade: Make, tmp_path: Path, left_over: Callable[[], list[str]]
) -> None:
    config = cascade("hang", "fail", "")
    plan = plan_as_configured(config, CPU)
    screen = io.StringIO()
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        with pytest.raises(EngineStartError, match=r"engine t1/0 did not start: .*ValueError: max"):
            async with running_engines(config, plan, folder, console=Console(file=screen)):
                pytest.fail("an engine failed")
        assert not left_over()
        assert list(folder.sockets.iterdir()) == []
    assert "t1/0: failed (" in screen.getvalue()
    assert "t0/0: failed" not in screen.getvalue()


async def test_cancelled_start_stops_all(
    cascade: Make, tmp_path: Path, left_over: Callable[[], list[str]]
) -> None:
    config = cascade("hang", "hang")
    plan = plan_as_configured(config, CPU)

    async def start() -> None:
        with open_run_folder(tmp_path / "run", names(plan)) as folder:
            async with running_engines(config, plan, folder):
                pytest.fail("these engines hang")

    starting = asyncio.create_task(start())
    while len(left_over()) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.02)
    starting.cancel()
    await asyncio.wait({starting})
    assert starting.cancelled()
    assert not left_over()


async def test_engines_that_share_a_gpu_start_one_after_the_other(
    cascade: Make, tmp_path: Path
) -> None:
    """The first hangs until its time is up, so the second must never have been started."""
    config = cascade("hang", "", launch={"startup_timeout_s": 0.3})
    plan = plan_as_configured(config, ONE_GPU)
    screen = io.StringIO()
    with open_run_folder(tmp_path / "run", names(plan)) as folder:
        with pytest.raises(EngineStartError, match="t0/0"):
            async with running_engines(config, plan, folder, console=Console(file=screen)):
                pytest.fail("the first engine hangs")
        assert not folder.log_path("t1/0").exists()
    assert "t1/0: waiting for its GPU (0 s)" in screen.getvalue()


async def test_engine_that_ends_while_serving_is_logged(
    cascade: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = cascade("dies", "")
    told = tmp_path / "told"
    config.tiers[0].engine.environment["FAKE_PIDS"] = str(told)
    plan = plan_as_configured(config, CPU)
    with (
        caplog.at_level(logging.ERROR, logger="launch"),
        open_run_folder(tmp_path / "run", names(plan)) as folder,
    ):
        async with running_engines(config, plan, folder):
            told.touch()
            while not caplog.records:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
    assert "engine t0/0 ended: exited with status 3" in caplog.text


async def test_error_inside_the_block_comes_out_as_it_is(cascade: Make, tmp_path: Path) -> None:
    config = cascade("", "")
    plan = plan_as_configured(config, CPU)
    with (
        open_run_folder(tmp_path / "run", names(plan)) as folder,
        pytest.raises(ZeroDivisionError),
    ):
        async with running_engines(config, plan, folder):
            raise ZeroDivisionError
