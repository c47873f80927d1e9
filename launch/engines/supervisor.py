"""Carries out a plan: starts its engines, keeps them running, stops them in any case.

    start ─┬─ small/0   process ─ healthy ┐
           ├─ medium/0  process ─ healthy ├─ endpoints ─ (serving) ─ stop all, at once
           └─ giant/0   waits for its GPU ─ process ─ healthy ┘

Engines that share a GPU start one after the other, restarts included, since each measures the
memory that is free when it starts; all others start together. The first whose first start fails
stops all. One that fails later is started again (`engine_life.py`).
"""

import asyncio
import contextlib
import functools
import logging
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

from rich.console import Console

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import CascadeConfig, LaunchConfig
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.plan import Plan
from launch.engines.argv import EngineCommand, engine_command
from launch.engines.engine_life import EngineLife, LifeRules
from launch.engines.engine_log import READY
from launch.engines.process import EngineProcess
from launch.engines.progress import FAILED, StartProgress
from launch.engines.restart import RestartRules
from launch.running.run_folder import RunFolder
from launch.running.state_file import EngineState, StateFile

log = logging.getLogger(__name__)

_HERE = "localhost"

Endpoints = Mapping[str, tuple[str, ...]]
"""Base URLs (`unix:/path` or `http://…`) of every tier's replicas."""


def check_is_here(plan: Plan) -> None:
    """Passes when every engine of the plan runs on this machine.

    Raises:
        CannotBeDone: It has engines on other nodes, which this version plans and does not start.
    """
    nodes = sorted({placement.node for placement in plan.placements} - {_HERE})
    if nodes:
        raise CannotBeDone(
            f"the plan has engines on {', '.join(nodes)}; engines are started on this machine "
            "only: look at the plan with --dry-run, start them there yourself, and name them as "
            "the tiers' endpoints"
        )


def endpoints_of(plan: Plan, run_folder: RunFolder) -> Endpoints:
    """Where the plan's tiers will be reached once its engines run."""
    return {
        tier.tier: tier.endpoints
        or tuple(f"unix:{run_folder.socket_path(p.name)}" for p in tier.placements)
        for tier in plan.tiers
    }


def engine_states(config: CascadeConfig, plan: Plan, folder: RunFolder) -> tuple[EngineState, ...]:
    """The state of every engine of the plan before it is started."""
    limit = config.launch.restart_limit
    return tuple(
        EngineState(
            name=placement.name,
            log_path=str(folder.log_path(placement.name)),
            restart_limit=limit,
            tensor_parallel_size=placement.tensor_parallel_size,
        )
        for placement in plan.placements
    )


def engine_commands(
    config: CascadeConfig, plan: Plan, run_folder: RunFolder, gpu_numbers: Mapping[str, int]
) -> dict[str, EngineCommand]:
    """By its name, what starts each engine of the plan, in the plan's order."""
    settings = {tier.name: tier for tier in config.tiers}
    return {
        placement.name: engine_command(
            settings[tier.tier],
            placement,
            socket_path=run_folder.socket_path(placement.name),
            python=sys.executable,
            gpu_numbers=gpu_numbers,
        )
        for tier in plan.tiers
        for placement in tier.placements
    }


@contextlib.asynccontextmanager
async def running_engines(
    config: CascadeConfig,
    plan: Plan,
    run_folder: RunFolder,
    state: StateFile,
    *,
    gpu_numbers: Mapping[str, int] | None = None,
    hurry: asyncio.Event | None = None,
    console: Console | None = None,
) -> AsyncIterator[Endpoints]:
    """The plan's engines, all healthy when the block begins and ended after it, whatever happens.

    An engine that fails inside the block is logged and started again; requests pass over it
    meanwhile. `state` shows it, and has the engines of `engine_states`. `gpu_numbers` is the
    driver's number of every GPU of the plan by its UUID. `hurry`, once set, lets engines be killed
    instead of waited for. Progress goes to `console`, stderr by default.

    Raises:
        EngineStartError: An engine exited, or was not healthy within `launch.startup_timeout_s`,
            at its first start; by then the others are stopped.
    """
    hurry = hurry or asyncio.Event()
    names = [placement.name for placement in plan.placements]
    progress = StartProgress(names, console=console or Console(stderr=True), clock=SystemClock())
    commands = engine_commands(config, plan, run_folder, gpu_numbers or {})
    lives = _lives(config, plan, run_folder, state, progress, commands)
    run_folder.write_plan(plan)
    keeping: list[asyncio.Task[None]] = []
    try:
        with progress:
            await _start_all(lives, keeping)
        endpoints = endpoints_of(plan, run_folder)
        run_folder.write_endpoints(endpoints)
        yield endpoints
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)  # `_log_bug` has said what
        ends = [life.process.stop(hurry=hurry) for life in lives]
        for result in await asyncio.gather(*ends, return_exceptions=True):
            if isinstance(result, Exception):
                log.error("while the engines were stopped", exc_info=result)


def _lives(
    config: CascadeConfig,
    plan: Plan,
    run_folder: RunFolder,
    state: StateFile,
    progress: StartProgress,
    commands: Mapping[str, EngineCommand],
) -> list[EngineLife]:
    """The engines; the one place that knows how an engine of a node is started."""
    gpus = {uuid: asyncio.Lock() for p in plan.placements for uuid in p.gpu_uuids}
    lives = []
    for placement in plan.placements:
        process = EngineProcess(
            placement.name,
            commands[placement.name],
            socket_path=run_folder.socket_path(placement.name),
            log_path=run_folder.log_path(placement.name),
            stop_timeout_s=config.launch.stop_timeout_s,
            held_open=(run_folder.lock,),
        )
        lives.append(
            EngineLife(
                process,
                _rules(config.launch),
                gpus=[gpus[uuid] for uuid in sorted(placement.gpu_uuids)],
                tell=functools.partial(_tell, state, progress, placement.name),
                clock=SystemClock(),
            )
        )
    return lives


def _rules(launch: LaunchConfig) -> LifeRules:
    return LifeRules(
        startup_timeout_s=launch.startup_timeout_s,
        health_interval_s=launch.health_interval_s,
        health_timeout_s=launch.health_timeout_s,
        restart=RestartRules(
            limit=launch.restart_limit,
            backoff_s=launch.restart_backoff_s,
            backoff_limit_s=launch.restart_backoff_limit_s,
            forget_after_s=launch.restart_forget_after_s,
        ),
    )


def _tell(state: StateFile, progress: StartProgress, name: str, **changes: Any) -> None:
    """Notes what changed of an engine; `progress` shows it until the engine's first start ended."""
    state.update_engine(name, **changes)
    ends = {"healthy": READY, "failed": FAILED}
    shown = ends.get(changes.get("condition", ""), changes.get("stage"))
    if shown is not None:
        progress.show(name, shown)


async def _start_all(lives: Iterable[EngineLife], keeping: list[asyncio.Task[None]]) -> None:
    """Waits until all are healthy; adds to `keeping` the task that keeps each so."""
    try:
        async with asyncio.TaskGroup() as group:
            for life in lives:
                group.create_task(_start(life, keeping))
    except BaseExceptionGroup as failures:
        # One failure cancels the other starts, so the first is the cause.
        raise failures.exceptions[0] from None


async def _start(life: EngineLife, keeping: list[asyncio.Task[None]]) -> None:
    await life.first_start()
    # At once, not when all are healthy: the others may take minutes.
    task = asyncio.create_task(life.keep(), name=f"keep {life.process.name}")
    task.add_done_callback(_log_bug)
    keeping.append(task)


def _log_bug(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.error(
            "bug: %s ended; the engine is not watched any more", task.get_name(), exc_info=error
        )
