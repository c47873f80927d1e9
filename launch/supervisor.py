"""Carries out a plan: starts its engines, waits until all are healthy, stops them in any case.

    start ─┬─ small/0   process ─ healthy ┐
           ├─ medium/0  process ─ healthy ├─ endpoints ─ (serving) ─ stop all, at once
           └─ giant/0   waits for its GPU ─ process ─ healthy ┘

Engines that share a GPU start one after the other, since each measures the memory that is free
when it starts; all others start together. The first to fail stops all.
"""

import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Mapping, Sequence

from rich.console import Console

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.errors import EngineStartError
from hybridserve_llm.planner.plan import Placement, Plan
from launch.argv import engine_command
from launch.engine_log import log_tail, start_stage
from launch.process import EngineProcess
from launch.progress import FAILED, READY, WAITING, StartProgress
from launch.run_folder import RunFolder

log = logging.getLogger(__name__)

_STAGE_INTERVAL_S = 0.5

Endpoints = Mapping[str, tuple[str, ...]]
"""Base URLs (`unix:/path` or `http://…`) of every tier's replicas."""


def endpoints_of(plan: Plan, run_folder: RunFolder) -> Endpoints:
    """Where the plan's tiers will be reached once its engines run."""
    return {
        tier.tier: tier.endpoints
        or tuple(f"unix:{run_folder.socket_path(p.name)}" for p in tier.placements)
        for tier in plan.tiers
    }


@contextlib.asynccontextmanager
async def running_engines(
    config: CascadeConfig,
    plan: Plan,
    run_folder: RunFolder,
    *,
    hurry: asyncio.Event | None = None,
    console: Console | None = None,
) -> AsyncIterator[Endpoints]:
    """The plan's engines, all healthy inside the block and ended after it, whatever happens.

    An engine that ends inside the block is logged; requests pass over it. `hurry`, once set, lets
    engines be killed instead of waited for. Progress goes to `console`, stderr by default.

    Raises:
        EngineStartError: An engine exited, or was not healthy within `launch.startup_timeout_s`;
            by then the others are stopped.
    """
    hurry = hurry or asyncio.Event()
    console = console or Console(stderr=True)
    engines = _engines(config, plan, run_folder)
    run_folder.write_plan(plan)
    watching: list[asyncio.Task[None]] = []
    try:
        progress = StartProgress(tuple(engines), console=console, clock=SystemClock())
        with progress:
            await _start_all(config, plan.placements, engines, progress)
        endpoints = endpoints_of(plan, run_folder)
        run_folder.write_endpoints(endpoints)
        watching += [asyncio.create_task(_log_end(engine)) for engine in engines.values()]
        yield endpoints
    finally:
        for task in watching:
            task.cancel()
        ends = [engine.stop(hurry=hurry) for engine in engines.values()]
        for result in await asyncio.gather(*ends, *watching, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("while the engines were stopped", exc_info=result)


def _engines(config: CascadeConfig, plan: Plan, run_folder: RunFolder) -> dict[str, EngineProcess]:
    settings = {tier.name: tier for tier in config.tiers}
    engines = {}
    for tier in plan.tiers:
        for placement in tier.placements:
            socket_path = run_folder.socket_path(placement.name)
            engines[placement.name] = EngineProcess(
                placement.name,
                engine_command(
                    settings[tier.tier],
                    placement,
                    socket_path=socket_path,
                    python=sys.executable,
                ),
                socket_path=socket_path,
                log_path=run_folder.log_path(placement.name),
                stop_timeout_s=config.launch.stop_timeout_s,
            )
    return engines


async def _start_all(
    config: CascadeConfig,
    placements: Sequence[Placement],
    engines: Mapping[str, EngineProcess],
    progress: StartProgress,
) -> None:
    gpu_locks = {uuid: asyncio.Lock() for p in placements for uuid in p.gpu_uuids}
    timeout_s = config.launch.startup_timeout_s
    try:
        async with asyncio.TaskGroup() as group:
            for placement in placements:
                # Taken in one order by all, so that no two wait for each other.
                locks = [gpu_locks[uuid] for uuid in sorted(placement.gpu_uuids)]
                group.create_task(_start(engines[placement.name], locks, timeout_s, progress))
    except BaseExceptionGroup as failures:
        # One failure cancels the other starts, so the first is the cause.
        raise failures.exceptions[0] from None


async def _start(
    engine: EngineProcess,
    gpu_locks: Sequence[asyncio.Lock],
    timeout_s: float,
    progress: StartProgress,
) -> None:
    if any(lock.locked() for lock in gpu_locks):
        progress.show(engine.name, WAITING)
    for lock in gpu_locks:
        await lock.acquire()
    await engine.start()
    showing = asyncio.create_task(_show_stages(engine, progress))
    try:
        await engine.wait_healthy(timeout_s)
        progress.show(engine.name, READY)
    except EngineStartError:
        progress.show(engine.name, FAILED)
        raise
    finally:
        showing.cancel()
    # Only a success frees the GPUs: after a failure no other engine may start.
    for lock in gpu_locks:
        lock.release()


async def _show_stages(engine: EngineProcess, progress: StartProgress) -> None:
    while True:
        text = await asyncio.to_thread(log_tail, engine.log_path)
        stage = start_stage(text)
        if stage != READY:  # its health decides, not its log
            progress.show(engine.name, stage)
        await asyncio.sleep(_STAGE_INTERVAL_S)


async def _log_end(engine: EngineProcess) -> None:
    status = await engine.wait()
    log.error(
        "engine %s ended: %s (log: %s)", engine.name, engine.end_in_words(status), engine.log_path
    )
