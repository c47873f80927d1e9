"""One engine from its first start to the end of the launch, over as many processes as it takes.

    first start ─ healthy ─ failed ─ pause ─ restart ─ healthy ─ … ─ failed once too often
                     ▲       ▲                  │
                 (serving)   │                  └ its GPUs are taken as for a first start
                       ended, or hung and killed

Requests pass over an engine while it is down, and the health probes of its `ReplicaSet` take it
back: it comes back on the same socket. Nobody has to tell the front end.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hybridserve_llm.errors import EngineStartError
from hybridserve_llm.interfaces import Clock
from launch.engines.engine_log import READY, log_tail, start_stage
from launch.engines.restart import RestartRules, Restarts

log = logging.getLogger(__name__)

WAITING = "waiting for its GPU"
_STAGE_INTERVAL_S = 0.5


class Startable(Protocol):
    """An engine's process, here or on another node; `EngineProcess` is the one of this machine.

    The seam for engines that something else starts (Ray, for a plan over several nodes).
    """

    name: str
    log_path: Path

    async def start(self) -> None:
        """Starts it and returns at once; EngineStartError where that cannot be."""

    async def wait_healthy(self, timeout_s: float) -> None:
        """Waits until it serves; EngineStartError where it does not within `timeout_s`."""

    async def wait_failed(self, *, interval_s: float, timeout_s: float) -> str:
        """Waits until it ended or hangs; what happened, in words."""

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Ends it; after `hurry` it is killed. Does nothing when it does not run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeRules:
    """When an engine counts as failed, and what follows; all in seconds."""

    startup_timeout_s: float
    health_interval_s: float
    health_timeout_s: float
    restart: RestartRules


class EngineLife:
    """Starts one engine, and starts it again when it fails."""

    def __init__(
        self,
        process: Startable,
        rules: LifeRules,
        *,
        gpus: Sequence[asyncio.Lock],
        tell: Callable[..., None],
        clock: Clock,
    ) -> None:
        """Starts nothing yet.

        Args:
            process: The engine.
            rules: When it has failed and how often it is started again.
            gpus: One lock per GPU it uses, in an order that is the same for all engines, so that
                no two wait for each other. Held while it starts.
            tell: Called with the fields of `EngineState` that change, as keywords.
            clock: What times in the state are read from.
        """
        self.process = process
        self._rules = rules
        self._restarts = Restarts(rules.restart)
        self._gpus = gpus
        self._tell = tell
        self._clock = clock
        self._healthy_since_s = 0.0

    async def first_start(self) -> None:
        """Starts the engine and waits until it is healthy.

        Raises:
            EngineStartError: It was not within `startup_timeout_s`. Its GPUs stay taken then: the
                launch has failed, and no engine that waits for them may start.
        """
        async with contextlib.AsyncExitStack() as gpus:
            await self._take_gpus(gpus)
            try:
                await self._start()
            except EngineStartError as exc:
                gpus.pop_all()
                self._tell(condition="failed", stage=None, reason=exc.reason)
                raise

    async def keep(self) -> None:
        """Starts the healthy engine again whenever it fails; ends when it failed once too often.

        Cancelling leaves the engine as it is; `process.stop` ends it.
        """
        while True:
            reason = await self.process.wait_failed(
                interval_s=self._rules.health_interval_s, timeout_s=self._rules.health_timeout_s
            )
            healthy_s = self._clock.monotonic_s() - self._healthy_since_s
            if not await self._restarted(reason, healthy_s):
                return

    async def _restarted(self, reason: str, healthy_s: float) -> bool:
        """Whether one of the restarts that are left succeeded."""
        while True:
            pause_s = self._restarts.pause_s(healthy_s=healthy_s)
            if pause_s is None:
                self._give_up(reason)
                await self._kill()
                return False
            self._tell(
                condition="restarting",
                stage=f"waiting {pause_s:g} s",
                reason=reason,
                restarts=self._restarts.in_a_row,
                total_restarts=self._restarts.total,
                healthy_since_s=None,
            )
            log.error("%s; restart %s in %g s", self._what(reason), self._count(), pause_s)
            await self._kill()
            await asyncio.sleep(pause_s)
            try:
                async with contextlib.AsyncExitStack() as gpus:
                    await self._take_gpus(gpus)
                    await self._start()
            except EngineStartError as exc:
                reason, healthy_s = exc.reason, 0.0
                continue
            log.warning("engine %s is back after restart %s", self.process.name, self._count())
            return True

    async def _take_gpus(self, gpus: contextlib.AsyncExitStack) -> None:
        if any(lock.locked() for lock in self._gpus):
            self._tell(stage=WAITING)
        for lock in self._gpus:
            await gpus.enter_async_context(lock)

    async def _start(self) -> None:
        await self.process.start()
        async with self._stages_told():
            await self.process.wait_healthy(self._rules.startup_timeout_s)
        self._healthy_since_s = self._clock.monotonic_s()
        self._tell(condition="healthy", stage=None, healthy_since_s=self._healthy_since_s)

    @contextlib.asynccontextmanager
    async def _stages_told(self) -> AsyncIterator[None]:
        telling = asyncio.create_task(self._tell_stages())
        try:
            yield
        finally:
            telling.cancel()

    async def _tell_stages(self) -> None:
        while True:
            text = await asyncio.to_thread(log_tail, self.process.log_path)
            stage = start_stage(text)
            if stage != READY:  # its health decides, not its log
                self._tell(stage=stage)
            await asyncio.sleep(_STAGE_INTERVAL_S)

    async def _kill(self) -> None:
        """Ends what is left of the engine; it has failed, so nothing in it is worth waiting for."""
        hurry = asyncio.Event()
        hurry.set()
        await self.process.stop(hurry=hurry)

    def _give_up(self, reason: str) -> None:
        self._tell(condition="failed", stage=None, reason=reason, healthy_since_s=None)
        log.error(
            "%s; not started again after %d restarts in a row",
            self._what(reason),
            self._restarts.in_a_row,
        )

    def _what(self, reason: str) -> str:
        return f"engine {self.process.name} failed: {reason} (log: {self.process.log_path})"

    def _count(self) -> str:
        return f"{self._restarts.in_a_row} of {self._rules.restart.limit}"
