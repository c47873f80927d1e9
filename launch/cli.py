"""`hs-launch`: reads the command line, plans, starts everything, serves, and stops everything.

This file alone prints: results to stdout, progress and errors to stderr.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import shlex
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import uvloop
from rich.console import Console
from rich.table import Table

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.certificate import load_certificate
from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import ConfigError, HybridServeError
from hybridserve_llm.planner.as_configured import plan_as_configured
from hybridserve_llm.planner.plan import Placement, Plan
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.server.parts import promise_of
from launch.checkpoint_facts import checkpoint_facts
from launch.checkpoints import check_checkpoints
from launch.demo.family import CHECKPOINTS
from launch.hardware import probe
from launch.profitable import check_it_pays
from launch.run_folder import RunFolder, open_run_folder
from launch.serving import base_url, bind, serve
from launch.stopping import StopRequest
from launch.supervisor import endpoints_of, running_engines

DEMO_CONFIG = CHECKPOINTS.parent / "cascade.yaml"
DEMO_QUESTIONS = ("What is 47 * 6?", "What is 347 * 58?")

_EXIT_CONFIG, _EXIT_CANNOT = 2, 3

log = logging.getLogger(__name__)
_TABLE_WIDTH = 80


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `hs-launch`; its exit status: 0 done, 2 wrong usage or configuration, 3 not possible."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.json and not options.dry_run:
        parser.error("--json goes with --dry-run")
    logging.basicConfig(
        level=options.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    try:
        _launch(options)
    except HybridServeError as exc:
        print(f"hs-launch: error: {' '.join(str(exc).split())}", file=sys.stderr)
        return _EXIT_CONFIG if isinstance(exc, ConfigError) else _EXIT_CANNOT
    except KeyboardInterrupt:  # before the signals are ours: nothing is started yet
        pass
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="hs-launch", description="Start a cascade's engines and serve it; Ctrl-C stops all."
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--demo", action="store_true", help="the demo cascade shipped with this")
    what.add_argument("--config", type=Path, metavar="FILE", help="the cascade's YAML file")
    parser.add_argument("--dry-run", action="store_true", help="print the plan; start nothing")
    parser.add_argument("--json", action="store_true", help="with --dry-run: the plan as JSON")
    parser.add_argument("--host", help="address to listen on, instead of server.host")
    parser.add_argument(
        "--port",
        type=_port,
        help="TCP port (0 to 65535; 0 takes a free one), instead of the file's",
    )
    device = parser.add_mutually_exclusive_group()
    device.add_argument("--cpu", action="store_true", help="leave GPUs alone")
    device.add_argument(
        "--gpus", type=_positive, metavar="N", help="use the first N GPUs; default all"
    )
    parser.add_argument(
        "--run-folder", type=Path, metavar="DIR", help="logs, sockets, plan.json; default a new one"
    )
    parser.add_argument(
        "--allow-uncertified",
        action="store_true",
        help="serve a certificate's policy though its fingerprint differs",
    )
    parser.add_argument(
        "--allow-unprofitable",
        action="store_true",
        help="serve a cascade that does not pay by its certificate",
    )
    parser.add_argument(
        "--acknowledge-alarm", metavar="NAME", help="lift the watch's alarm; NAME is who decided so"
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), default="warning"
    )
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port: allowed are 0 to 65535")
    return int(text)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 1")
    return int(text)


def _launch(options: argparse.Namespace) -> None:
    config = _with_options(load_config(options.config or DEMO_CONFIG), options)
    check_checkpoints(config)
    certificate = None if config.certificate is None else load_certificate(config.certificate)
    if certificate is not None and not options.allow_unprofitable:
        check_it_pays(certificate)
    has_place = config.launch.run_folder or config.watch.state_file
    if certificate is not None and not (has_place or options.demo or options.dry_run):
        log.warning("an alarm of the watch will not survive a restart: name watch.state_file")
    with contextlib.ExitStack() as stack:
        bound = None
        if not options.dry_run:
            bound = stack.enter_context(bind(config.server.host, config.server.port))
        plan = plan_as_configured(config, probe(cpu_only=options.cpu, n_gpus=options.gpus))
        if bound is None:
            _print_plan(config, plan, as_json=options.json)
            return
        names = [placement.name for placement in plan.placements]
        run_folder = stack.enter_context(open_run_folder(config.launch.run_folder, names))
        serving = Serving(
            endpoints=endpoints_of(plan, run_folder),
            checkpoints=checkpoint_facts(config),
            certificate=certificate,
            allow_uncertified=options.allow_uncertified,
            state_folder=run_folder.path,
            acknowledged_by=options.acknowledge_alarm,
        )
        uvloop.run(_run(config, plan, bound, run_folder, serving, is_demo=options.demo))


def _with_options(config: CascadeConfig, options: argparse.Namespace) -> CascadeConfig:
    server = {"host": options.host, "port": options.port}
    launch = {"run_folder": options.run_folder}
    return config.model_copy(
        update={
            "server": config.server.model_copy(update=_given(server)),
            "launch": config.launch.model_copy(update=_given(launch)),
        }
    )


def _given(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not None}


async def _run(
    config: CascadeConfig,
    plan: Plan,
    bound: socket.socket,
    run_folder: RunFolder,
    serving: Serving,
    *,
    is_demo: bool,
) -> None:
    """Starts, serves and stops; a signal cancels the work, which then cleans up after itself."""
    console = Console(stderr=True)
    stop = StopRequest()
    work = asyncio.create_task(
        _serve(config, plan, bound, run_folder, serving, stop.hurry, is_demo=is_demo)
    )

    def on_first_signal() -> None:
        console.print("stopping; a second Ctrl-C kills what still runs", highlight=False)
        work.cancel()

    stop.install(on_first_signal)
    try:
        await asyncio.wait({work})
    finally:
        stop.remove()
    stopped = f"stopped; logs are in {run_folder.path / 'logs'}"
    console.print(stopped, highlight=False, markup=False, soft_wrap=True)
    if not work.cancelled():
        work.result()


async def _serve(
    config: CascadeConfig,
    plan: Plan,
    bound: socket.socket,
    run_folder: RunFolder,
    serving: Serving,
    hurry: asyncio.Event,
    *,
    is_demo: bool,
) -> None:
    # Built before the engines start, so that a missing API key is told at once.
    app = build_app(config, serving)
    async with running_engines(config, plan, run_folder, hurry=hurry):
        await serve(
            app,
            bound,
            ready_timeout_s=config.launch.startup_timeout_s,
            stop_timeout_s=config.launch.stop_timeout_s,
            hurry=hurry,
            on_ready=_banner(
                config, base_url(bound), lambda: promise_of(app.state.parts), is_demo=is_demo
            ),
        )


def _banner(
    config: CascadeConfig, url: str, promise: Callable[[], str], *, is_demo: bool
) -> Callable[[], None]:
    model = config.server.served_model_name

    def show() -> None:
        print(f"ready: {url}/v1 ({promise()})", flush=True)
        for question in DEMO_QUESTIONS if is_demo else ():
            print(f"\n{_curl(url, model, question)}", flush=True)

    return show


def _curl(url: str, model: str, question: str) -> str:
    # Greedy, as the demo's certificate was made: other settings are answered uncertified.
    message = {"role": "user", "content": question}
    body = {"model": model, "messages": [message], "temperature": 0}
    return (
        f"curl {url}/v1/chat/completions -H 'Content-Type: application/json' \\\n"
        f"  -d {shlex.quote(json.dumps(body))}"
    )


def _print_plan(config: CascadeConfig, plan: Plan, *, as_json: bool) -> None:
    if as_json:
        print(plan.to_json(), end="")
        return
    table = Table("replica", "model", "runs on", title="plan, as configured")
    models = {tier.name: tier.model for tier in config.tiers}
    for tier in plan.tiers:
        for endpoint in tier.endpoints:
            table.add_row(tier.tier, models[tier.tier], f"runs already at {endpoint}")
        for placement in tier.placements:
            table.add_row(placement.name, models[tier.tier], _place(placement))
    Console(width=_TABLE_WIDTH).print(table)


def _place(placement: Placement) -> str:
    if placement.device == "gpu":
        share = placement.gpu_memory_share
        memory = f", {share:.0%} of its memory" if share is not None else ""
        return f"GPU {', '.join(placement.gpu_uuids)}{memory}"
    if placement.cpu_core_groups:
        groups = " | ".join(",".join(map(str, group)) for group in placement.cpu_core_groups)
        return f"CPU, ranks on cores {groups}"
    return f"CPU, {placement.cpu_threads} thread{'s' if placement.cpu_threads != 1 else ''}"


if __name__ == "__main__":
    sys.exit(main())
