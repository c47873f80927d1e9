"""Run a launch stage by stage: check, plan, start, serve until a signal stops it.

    checked ─ planned ──────────────────────────────► --dry-run prints the plan
       └─ port ─ run folder ─ planned ─ engines started ─ ready ─ drained ─ stopped
                 (planning)             (starting)       (ready)  (draining)

All that can be checked is checked before an engine starts. The words below are the phases that
`hs-launch status` shows.
"""

import asyncio
import contextlib
import json
import logging
import os
import shlex
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import uvloop
from rich.console import Console

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.certificate import Certificate, load_certificate
from hybridserve_llm.config.load import load_config
from hybridserve_llm.planner.plan import Plan
from hybridserve_llm.server.build import BOOKKEEPER, Serving, build_app
from hybridserve_llm.server.parts import promise_of
from hybridserve_llm.telemetry.engine_metrics import EngineReport
from launch.demo.family import DEMO_CONFIG
from launch.engines.supervisor import check_is_here, endpoints_of, engine_states, running_engines
from launch.machine.checkpoint_facts import checkpoint_facts
from launch.machine.checkpoints import check_checkpoints
from launch.options import LaunchOptions
from launch.plans.planning import Planned, planned
from launch.plans.power_models import energy_models
from launch.plans.profitable import check_it_pays
from launch.running.http_server import base_url, bind, serve
from launch.running.launch_index import announced
from launch.running.run_folder import RunFolder, open_run_folder
from launch.running.signals import StopRequest, sigterm_interrupts
from launch.running.state_file import EngineState, LaunchState, StateFile

log = logging.getLogger(__name__)

_HIGHEST_REPLICA = 9999
_DEMO_QUESTIONS = ("What is 47 * 6?", "What is 347 * 58?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """Hold a cascade that may be planned: its configuration and certificate, both checked."""

    config: CascadeConfig
    certificate: Certificate | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Launch:
    """Hold what the stages of one launch share, once its port is bound and its folder locked."""

    options: LaunchOptions
    config: CascadeConfig
    plan: Plan
    gpu_numbers: Mapping[str, int]
    bound: socket.socket
    folder: RunFolder
    state: StateFile
    serving: Serving
    say: Callable[[str], None]


def checked_cascade(options: LaunchOptions) -> Checked:
    """Read and check the files: configuration, local checkpoints, certificate.

    Raises:
        ConfigError: A file holds something that is not allowed, or a checkpoint is missing.
        CannotBeDone: The cascade does not pay by its certificate, and no option allows that.
    """
    config = _with_options(load_config(options.config or DEMO_CONFIG), options)
    check_checkpoints(config)
    named = config.certificate
    certificate = None if named is None else load_certificate(named.file)
    if certificate is not None and not options.allow_unprofitable:
        check_it_pays(certificate)
    has_place = config.launch.run_folder or config.watch.state_file
    if certificate is not None and not (has_place or options.demo or options.dry_run):
        log.warning("an alarm of the watch will not survive a restart: name watch.state_file")
    return Checked(config=config, certificate=certificate)


def launch(options: LaunchOptions, *, say: Callable[[str], None]) -> None:
    """Start, serve and stop a cascade; return when a signal stopped it.

    `say` gets what belongs on stdout: that the cascade is ready. Progress goes to stderr.

    Raises:
        ConfigError: As `checked_cascade` and `planned` say; or the address is nothing's, or an
            API key is missing.
        CannotBeDone: The port or the run folder is in use, the plan has engines on other nodes,
            an engine does not start, or the cascade does not get ready.
        KeyboardInterrupt: It was stopped while it planned; nothing was started.
    """
    checked = checked_cascade(options)
    config = checked.config
    with contextlib.ExitStack() as stack:
        stack.enter_context(sigterm_interrupts())
        bound = stack.enter_context(bind(config.server.host, config.server.port))
        # The sockets' names must fit every plan, and the folder is locked before.
        longest = [f"{tier.name}/{_HIGHEST_REPLICA}" for tier in config.tiers]
        folder = stack.enter_context(open_run_folder(config.launch.run_folder, longest))
        stack.enter_context(announced(folder.path, os.environ))
        state = StateFile(
            folder.state_path,
            LaunchState(
                pid=os.getpid(),
                phase="planning",
                started_s=SystemClock().monotonic_s(),
                base_url=base_url(bound),
            ),
        )
        found = planned(config, options, checked.certificate)
        plan = found.checked()
        check_is_here(plan)
        uvloop.run(
            _run(
                _Launch(
                    options=options,
                    config=config,
                    plan=plan,
                    gpu_numbers=found.gpu_numbers,
                    bound=bound,
                    folder=folder,
                    state=state,
                    serving=_serving(checked, options, found, folder, state),
                    say=say,
                )
            )
        )


def _with_options(config: CascadeConfig, options: LaunchOptions) -> CascadeConfig:
    server = {"host": options.host, "port": options.port}
    launch = {"run_folder": options.run_folder}
    return config.model_copy(
        update={
            "server": config.server.model_copy(update=_given(server)),
            "launch": config.launch.model_copy(update=_given(launch)),
        }
    )


def _given(values: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


def _serving(
    checked: Checked, options: LaunchOptions, found: Planned, folder: RunFolder, state: StateFile
) -> Serving:
    plan, models = found.checked(), energy_models(checked.config, found)
    return Serving(
        endpoints=endpoints_of(plan, folder),
        checkpoints=checkpoint_facts(checked.config),
        certificate=checked.certificate,
        allow_uncertified=options.allow_uncertified,
        state_folder=folder.path,
        engines=lambda: [_report(engine) for engine in state.state.engines],
        acknowledged_by=options.acknowledge_alarm,
        gpu_uuids={
            tier.tier: [placement.gpu_uuids for placement in tier.placements]
            for tier in plan.tiers
            if any(placement.gpu_uuids for placement in tier.placements)
        },
        parked_gpu_uuids=found.parked_gpus,
        power_models=models.power,
        token_weights=models.token_weights,
        bookkeeper=BOOKKEEPER,
    )


def _report(engine: EngineState) -> EngineReport:
    return EngineReport(
        tier=engine.tier,
        replica=engine.name.rpartition("/")[2],
        state=engine.condition,
        restarts=engine.total_restarts,
    )


async def _run(launch: _Launch) -> None:
    """Start, serve and stop; a signal cancels the work, which then cleans up after itself."""
    console = Console(stderr=True)
    stop = StopRequest()
    work = asyncio.create_task(_serve(launch, stop.hurry))

    def on_first_signal() -> None:
        launch.state.update(phase="draining")
        console.print("stopping; a second Ctrl-C kills what still runs", highlight=False)
        work.cancel()

    stop.install(on_first_signal)
    try:
        await asyncio.wait({work})
    finally:
        stop.remove()
    stopped = f"stopped; logs are in {launch.folder.path / 'logs'}"
    console.print(stopped, highlight=False, markup=False, soft_wrap=True)
    if not work.cancelled():
        work.result()


async def _serve(launch: _Launch, hurry: asyncio.Event) -> None:
    config, plan = launch.config, launch.plan
    # Built before the engines start, so that a missing API key is reported at once.
    app = build_app(config, launch.serving)
    url = base_url(launch.bound)

    def on_ready() -> None:
        launch.state.update(phase="ready")
        promise = promise_of(app.state.parts)
        launch.say(ready_text(config, url, promise, is_demo=launch.options.demo))

    launch.state.update(
        phase="starting",
        endpoints={tier.tier: tier.endpoints for tier in plan.tiers if tier.endpoints},
        engines=engine_states(config, plan, launch.folder),
    )
    async with running_engines(
        config,
        plan,
        launch.folder,
        launch.state,
        gpu_numbers=launch.gpu_numbers,
        hurry=hurry,
    ):
        await serve(
            app,
            launch.bound,
            ready_timeout_s=config.launch.startup_timeout_s,
            stop_timeout_s=config.launch.stop_timeout_s,
            hurry=hurry,
            on_ready=on_ready,
        )


def ready_text(config: CascadeConfig, url: str, promise: str, *, is_demo: bool) -> str:
    """Return one line that begins with `ready:`; for the demo, commands to try after it."""
    model = config.server.served_model_name
    lines = [f"ready: {url}/v1 ({promise})"]
    for question in _DEMO_QUESTIONS if is_demo else ():
        lines += ["", _curl(url, model, question)]
    return "\n".join(lines)


def _curl(url: str, model: str, question: str) -> str:
    # Greedy, as the demo's certificate was made: other settings are answered uncertified.
    message = {"role": "user", "content": question}
    body = {"model": model, "messages": [message], "temperature": 0}
    return (
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body))}"
    )
