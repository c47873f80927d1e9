"""One engine's life, with a process that fails and heals when the test says so."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from hybridserve_llm.errors import EngineStartError
from hybridserve_llm.testing import FakeClock
from launch.engines.engine_life import WAITING, EngineLife, LifeRules
from launch.engines.restart import RestartRules


class Scripted:
    """A process that is healthy once `healthy` is set and fails when `fail` is called."""

    log_path = Path("/no/such/log")

    def __init__(self, name: str) -> None:
        self.name = name
        self.n_starts = 0
        self.n_stops = 0
        self.healthy = asyncio.Event()
        self.failure: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.start_failures: list[str] = []

    def fail(self, reason: str) -> None:
        self.failure.set_result(reason)

    async def start(self) -> None:
        self.n_starts += 1
        self.failure = asyncio.get_running_loop().create_future()

    async def wait_healthy(self, timeout_s: float) -> None:
        await self.healthy.wait()
        if self.start_failures:
            raise EngineStartError(self.name, self.start_failures.pop(0), str(self.log_path))

    async def wait_failed(self, *, interval_s: float, timeout_s: float) -> str:
        return await self.failure

    async def stop(self, *, hurry: asyncio.Event) -> None:
        assert hurry.is_set()  # a failed engine is not waited for
        self.n_stops += 1


RULES = LifeRules(
    startup_timeout_s=10.0,
    health_interval_s=1.0,
    health_timeout_s=10.0,
    restart=RestartRules(limit=2, backoff_s=0.0, backoff_limit_s=0.0, forget_after_s=100.0),
)


class Case:
    """One engine's life, and what it told last."""

    def __init__(self, name: str, gpus: list[asyncio.Lock], clock: FakeClock) -> None:
        self.process = Scripted(name)
        self.told: dict[str, Any] = {}
        self.life = EngineLife(self.process, RULES, gpus=gpus, tell=self.tell, clock=clock)

    def tell(self, **changes: Any) -> None:
        self.told.update(changes)

    async def until(self, is_so: Callable[[], bool]) -> None:
        async with asyncio.timeout(10.0):
            while not is_so():  # noqa: ASYNC110
                await asyncio.sleep(0)


@asynccontextmanager
async def kept(case: Case) -> AsyncIterator[None]:
    """Inside the block the engine runs and is started again when it fails."""
    case.process.healthy.set()
    await case.life.first_start()
    keeping = asyncio.create_task(case.life.keep())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait({keeping})


async def test_restart_waits_for_the_gpu_until_another_engine_has_started() -> None:
    gpu, clock = asyncio.Lock(), FakeClock()
    small, giant = Case("small/0", [gpu], clock), Case("giant/0", [gpu], clock)
    async with kept(small):
        starting = asyncio.create_task(giant.life.first_start())
        await giant.until(lambda: giant.process.n_starts == 1)
        small.process.fail("killed by SIGKILL")
        await small.until(lambda: small.told.get("stage") == WAITING)
        assert small.told["condition"] == "restarting"
        assert small.process.n_starts == 1
        giant.process.healthy.set()
        await starting
        await small.until(lambda: small.told["condition"] == "healthy")
    assert small.process.n_starts == 2
    assert not gpu.locked()


async def test_restart_that_fails_frees_the_gpu_and_counts() -> None:
    gpu = asyncio.Lock()
    case = Case("small/0", [gpu], FakeClock())
    async with kept(case):
        case.process.start_failures = ["out of memory"]
        case.process.fail("exited with status 1")
        await case.until(lambda: case.told["condition"] == "healthy" and case.process.n_starts > 2)
    assert case.process.n_starts == 3
    assert (case.told["restarts"], case.told["reason"]) == (2, "out of memory")
    assert not gpu.locked()


async def test_first_start_that_fails_keeps_the_gpu_from_engines_that_wait_for_it() -> None:
    gpu = asyncio.Lock()
    case = Case("small/0", [gpu], FakeClock())
    case.process.start_failures = ["no such model"]
    case.process.healthy.set()
    with pytest.raises(EngineStartError, match="no such model"):
        await case.life.first_start()
    assert gpu.locked()
    assert case.told["condition"] == "failed"


async def test_engine_that_fails_too_often_is_ended_and_left() -> None:
    case = Case("small/0", [], FakeClock())
    async with kept(case):
        for n in range(3):
            await case.until(lambda n=n: case.process.n_starts == n + 1)  # type: ignore[misc]
            await case.until(lambda: case.told["condition"] == "healthy")
            case.process.fail("exited with status 1")
        await case.until(lambda: case.process.n_stops == 3)
    assert case.told["condition"] == "failed"
    assert case.told["healthy_since_s"] is None
    assert case.process.n_starts == 3


async def test_engine_that_was_healthy_for_long_has_all_its_restarts_again() -> None:
    clock = FakeClock()
    case = Case("small/0", [], clock)
    async with kept(case):
        for n in range(5):
            await case.until(lambda n=n: case.process.n_starts == n + 1)  # type: ignore[misc]
            await case.until(lambda: case.told["condition"] == "healthy")
            clock.advance(100.0)
            case.process.fail("exited with status 1")
        await case.until(lambda: case.process.n_starts == 6)
    assert case.told["restarts"] == 1
    assert case.told["total_restarts"] == 5
