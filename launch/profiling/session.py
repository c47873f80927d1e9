"""Run `hs-profile`: check, plan, then start, measure, stop and write tier by tier.

    checked ─ planned ─ run folder ─┬─ small/0  started ─ measured ─ stopped ─ small.json
                                    └─ medium/0 started ─ …

Engines run one at a time, each placed as the launcher would place it next to all others. So a tier
has the threads or GPUs that it will have when it serves. One replica of a tier is measured.
"""

import asyncio
import contextlib
import os
import shlex
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import uvloop
from rich.console import Console

from hybridserve_llm.books.meter_sites import Probes
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.config.load import load_config
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.load.process_times import cpu_time_of_children
from hybridserve_llm.load.request_source import SAMPLE_TEXT, Lengths, RequestDraw, RequestSource
from hybridserve_llm.planner.as_configured import plan_as_configured
from hybridserve_llm.planner.hardware import Hardware
from hybridserve_llm.planner.plan import Placement, Plan, TierPlan
from hybridserve_llm.profiles.profile_file import Profile, write_profile
from launch.demo.family import DEMO_CONFIG
from launch.engines.supervisor import check_is_here, engine_states, running_engines
from launch.machine.checkpoints import check_checkpoints
from launch.machine.hardware import numbers_of, probe
from launch.profiling.chosen_tiers import tiers_to_measure
from launch.profiling.machine import gpu_name, hardware_in_words
from launch.profiling.measurement import Rounds, measure_rounds
from launch.profiling.options import ProfileOptions
from launch.profiling.points import points_of
from launch.profiling.power import Power, metered
from launch.profiling.prediction import Check, checks_of
from launch.profiling.progress import MeasureProgress
from launch.profiling.window import Instruments, MeasuredWindow, measure_idle
from launch.running.launch_index import announced
from launch.running.run_folder import RunFolder, open_run_folder
from launch.running.signals import StopRequest, sigterm_interrupts
from launch.running.state_file import LaunchState, StateFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Profiled:
    """Hold the measurements of one tier.

    Attributes:
        tier: Its name.
        path: Where its profile was written.
        profile: What was written.
        windows: All measurements by requests in flight, those of `checks` included.
        checks: The loads that the profile leaves out, and what it predicts of them.
    """

    tier: str
    path: str
    profile: Profile
    windows: Mapping[int, tuple[MeasuredWindow, ...]]
    checks: tuple[Check, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """Hold what the tiers' measurements share."""

    options: ProfileOptions
    config: CascadeConfig
    hardware: Hardware
    folder: RunFolder
    state: StateFile
    console: Console
    probes: Probes


def profile_tiers(
    options: ProfileOptions, *, hardware: Hardware | None = None, probes: Probes | None = None
) -> tuple[Profiled, ...]:
    """Measure the tiers one after the other; each profile is written once it is complete.

    Progress goes to stderr. No engine is left behind, not even after a failure.

    Args:
        options: What to measure, and how.
        hardware: What engines may be placed on; None for what `probe` finds here.
        probes: Where this machine's meters are; None for where Linux and NVML have them.

    Raises:
        ConfigError: The configuration, a tier's name, or the load is not allowed.
        CannotBeDone: The plan does not fit, an engine does not start, or it cannot be measured.
        HybridServeError: An engine failed while it was measured.
        KeyboardInterrupt: It was stopped; profiles that were complete are there.
    """
    config = _without_restarts(load_config(options.config or DEMO_CONFIG))
    check_checkpoints(config)
    tiers = tiers_to_measure(config, options)
    hardware = hardware or probe(cpu_only=options.cpu, n_gpus=options.gpus)
    plan = plan_as_configured(config, hardware)
    check_is_here(plan)
    replicas = [_one_replica(plan, tier) for tier in tiers]
    _make_folder(options)
    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_interrupts())
        names = [placement.name for one in replicas for placement in one.placements]
        folder = stack.enter_context(
            open_run_folder(options.run_folder or config.launch.run_folder, names)
        )
        stack.enter_context(announced(folder.path, os.environ))
        started_s = SystemClock().monotonic_s()
        state = LaunchState(pid=os.getpid(), phase="starting", started_s=started_s)
        session = _Session(
            options=options,
            config=config,
            hardware=hardware,
            folder=folder,
            state=StateFile(folder.state_path, state),
            console=Console(stderr=True),
            probes=probes or Probes(),
        )
        return uvloop.run(_until_stopped(session, replicas))


def _without_restarts(config: CascadeConfig) -> CascadeConfig:
    """Switch restarts off, so that no engine is started again unnoticed while it is measured."""
    launch = config.launch.model_copy(update={"restart_limit": 0})
    return config.model_copy(update={"launch": launch})


def _one_replica(plan: Plan, tier: TierConfig) -> Plan:
    (found,) = (planned for planned in plan.tiers if planned.tier == tier.name)
    return Plan(tiers=(TierPlan(tier=tier.name, placements=found.placements[:1]),))


def _make_folder(options: ProfileOptions) -> None:
    try:
        options.out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"cannot make the folder --out {options.out}: {exc.strerror}") from exc


async def _until_stopped(session: _Session, replicas: list[Plan]) -> tuple[Profiled, ...]:
    """Measure all; the first signal ends the work in order, a second one kills engines."""
    stop = StopRequest()
    work = asyncio.create_task(_profile_all(session, replicas, stop.hurry))
    stop.install(work.cancel)
    try:
        await asyncio.wait({work})
    finally:
        stop.remove()
    if work.cancelled():
        raise KeyboardInterrupt
    return work.result()


async def _profile_all(
    session: _Session, replicas: list[Plan], hurry: asyncio.Event
) -> tuple[Profiled, ...]:
    profiled = []
    bare = await _bare_idle(session, replicas)
    for plan in replicas:
        states = engine_states(session.config, plan, session.folder)
        session.state.update(engines=states)
        async with running_engines(
            session.config,
            plan,
            session.folder,
            session.state,
            gpu_numbers=numbers_of(session.hardware),
            hurry=hurry,
            console=session.console,
        ) as endpoints:
            tier = plan.tiers[0]
            address = endpoints[tier.tier][0]
            profiled.append(await _profile(session, tier, address, bare.get(tier.tier)))
    return tuple(profiled)


async def _bare_idle(session: _Session, replicas: list[Plan]) -> Mapping[str, Power]:
    """Return by tier the watts of its GPUs before any engine is started; empty on a CPU."""
    tiers = {
        plan.tiers[0].tier: placement
        for plan in replicas
        for placement in plan.placements
        if placement.device == "gpu"
    }
    async with contextlib.AsyncExitStack() as stack:
        tasks = {}
        for tier, placement in tiers.items():
            instruments = await stack.enter_async_context(_instruments(session, placement))
            tasks[tier] = measure_idle(session.options.window_s, instruments)
        found = await asyncio.gather(*tasks.values())
    return dict(zip(tasks, found, strict=True))


@contextlib.asynccontextmanager
async def _instruments(session: _Session, placement: Placement) -> AsyncIterator[Instruments]:
    clock = SystemClock()
    socket_path = session.folder.socket_path(placement.name)
    energy = session.config.energy
    async with metered(placement, socket_path, energy, clock=clock, probes=session.probes) as meter:
        yield Instruments(clock=clock, cpu_time=cpu_time_of_children, meter=meter)


async def _profile(
    session: _Session, tier: TierPlan, address: str, bare_idle: Power | None
) -> Profiled:
    """Measure the engine at `address`, and write its profile."""
    options = session.options
    engine = VllmHttpEngine(address, model=tier.tier, clock=SystemClock(), probe_timeout_s=60.0)
    try:
        async with _instruments(session, tier.placements[0]) as instruments:
            idle = await measure_idle(options.window_s, instruments)
            windows = await _measured(session, tier.tier, engine, instruments)
        version = await engine.version()
    finally:
        await engine.aclose()
    profile = _profile_of(session, tier, windows, idle=idle, bare_idle=bare_idle, version=version)
    path = options.out / f"{tier.tier}.json"
    write_profile(profile, path)
    left_out = {concurrency: windows[concurrency] for concurrency in options.check}
    return Profiled(
        tier=tier.tier,
        path=str(path),
        profile=profile,
        windows=windows,
        checks=checks_of(profile, left_out),
    )


async def _measured(
    session: _Session, tier: str, engine: VllmHttpEngine, instruments: Instruments
) -> Mapping[int, tuple[MeasuredWindow, ...]]:
    options = session.options
    source = await _source(engine, options)
    rounds = Rounds(
        concurrency=tuple(sorted({*options.concurrency, *options.check})),
        window_s=options.window_s,
        repeats=options.repeats,
    )
    n_windows = len(rounds.concurrency) * rounds.repeats
    with MeasureProgress(
        session.console, tier, n_windows=n_windows, repeats=rounds.repeats
    ) as progress:
        return await measure_rounds(
            engine, source, rounds, instruments=instruments, on_window=progress.begin_window
        )


def _profile_of(
    session: _Session,
    tier: TierPlan,
    windows: Mapping[int, tuple[MeasuredWindow, ...]],
    *,
    idle: Power,
    bare_idle: Power | None,
    version: str | None,
) -> Profile:
    options, placement = session.options, tier.placements[0]
    (settings,) = (known for known in session.config.tiers if known.name == tier.tier)
    return Profile(
        schema="hybridserve-profile/1",
        model=settings.model,
        gpu=gpu_name(placement, session.hardware),
        hardware=hardware_in_words(placement, session.hardware),
        engine=f"vllm {version or 'of unknown version'}",
        measured_on=datetime.fromtimestamp(SystemClock().wall_s(), UTC).date().isoformat(),
        tensor_parallel_size=placement.tensor_parallel_size,
        pipeline_parallel_size=placement.pipeline_parallel_size,
        prompt_tokens=options.prompt_tokens,
        output_tokens=options.output_tokens,
        top_logprobs=options.top_logprobs,
        idle_w=idle.power_w,
        idle_source=idle.source,
        idle_reason=idle.reason,
        bare_idle_w=bare_idle.power_w if bare_idle else None,
        bare_idle_source=bare_idle.source if bare_idle else None,
        points=points_of(windows[concurrency] for concurrency in options.concurrency),
        source=shlex.join(options.command),
    )


async def _source(engine: VllmHttpEngine, options: ProfileOptions) -> RequestSource:
    token_ids = await engine.token_ids_of(SAMPLE_TEXT)
    if not token_ids:
        raise CannotBeDone(
            f"engine {engine.name} has no /tokenize, which prompts of a given length need"
        )
    lengths = Lengths(prompt_tokens=options.prompt_tokens, output_tokens=options.output_tokens)
    return RequestSource(RequestDraw(token_ids, top_logprobs=options.top_logprobs), lengths)
