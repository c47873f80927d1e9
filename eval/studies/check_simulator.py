"""Check the simulator against a formula, a log, and a running engine.

python -m eval.studies.check_simulator birth-death | log | engine OPTIONS
"""

import argparse
import asyncio
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.commands.command import Command, options_from
from eval.commands.option_values import natural, positive, positive_number, share
from eval.simulation.azure_trace import read_azure_trace
from eval.simulation.known_tiers import facts_of_model
from eval.simulator.step_table import ReplicaShape
from eval.studies.birth_death_check import LOADS, BirthDeathCheck, birth_death_check
from eval.studies.check_simulator_tables import print_check
from eval.studies.engine_log import read_engine_log
from eval.studies.engine_log_check import EngineLogCheck, engine_log_check
from eval.studies.live_calibration import EngineLimits
from eval.studies.live_engine import LiveEngine
from eval.studies.live_engine_check import LiveCheckOptions, LiveEngineCheck, live_engine_check
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.memory import kv_capacity_tokens

_PROGRAM = "python -m eval.studies.check_simulator"
_MEMORY_SHARE = 0.9
_PROBE_TIMEOUT_S = 60.0
# Ordinary words: prompts are drawn from their tokens.
_WORDS = "one two three add sum word letter count name list sort back more less what is the of and"


@dataclass(frozen=True, slots=True, kw_only=True)
class BirthDeathOptions:
    """Hold the options of `birth-death`: a trace of lengths, and the loads to simulate."""

    trace: Path
    loads: tuple[float, ...]
    requests: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLogOptions:
    """Hold the options of `log`: the log, and the replica that wrote it.

    `kv_cache_tokens` is None where its size has to be calibrated, too.
    """

    log: Path
    model: str
    gpu_type: str
    tensor_parallel_size: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_tokens: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningEngineOptions:
    """Hold the options of `engine`: where it is, its limits, and how it is measured.

    Attributes:
        pid: The engine's first process; None leaves its CPU time unknown.
        loads: Shares of what it carries.
        window_s: Seconds of a closed-loop window; `run_s` those of a run at one load.
        top_logprobs: Alternatives per token; below 0 for none.
    """

    url: str
    model: str
    pid: int | None
    loads: tuple[float, ...]
    repeats: int
    window_s: float
    run_s: float
    top_logprobs: int
    max_num_seqs: int
    max_num_batched_tokens: int
    kv_cache_tokens: int
    seed: int


def _add_birth_death(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--trace", type=Path, required=True, metavar="FILE",
        help="CSV in the form of Azure's traces, from which lengths are drawn")  # fmt: skip
    add("--loads", type=_shares, default=LOADS, metavar="X,X,...", help="default 0.1 to 0.8")
    add("--requests", type=positive, default=20_000, metavar="N",
        help="at each load (default 20000)")  # fmt: skip
    _add_seed(command)


def _add_log(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--log", type=Path, required=True, metavar="FILE",
        help="JSON lines in the form of LLMServingSim's logs of vLLM")  # fmt: skip
    add("--model", required=True, metavar="NAME", help="hub id of the catalogue, or a folder")
    add("--gpu-type", required=True, metavar="TYPE", help="such as RTX-4090")
    add("--tensor-parallel-size", type=positive, default=1, metavar="N", help="default 1")
    add("--max-num-seqs", type=positive, default=256, metavar="N", help="default 256")
    add("--max-num-batched-tokens", type=positive, default=2048, metavar="N", help="default 2048")
    add("--kv-cache-tokens", type=positive, metavar="N",
        help="as the engine said at its start; without it its size is calibrated, too")  # fmt: skip
    _add_seed(command)


def _add_engine(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--url", required=True, help="of the engine: http://host:port or unix:/path/to/socket")
    add("--model", required=True, metavar="NAME", help="under which it serves its model")
    add("--pid", type=positive, metavar="PID",
        help="the engine's first process: without it CPU time stays unknown")  # fmt: skip
    add("--loads", type=_shares, default=(0.3, 0.6, 0.8), metavar="X,X,...",
        help="shares of what it carries (default 0.3,0.6,0.8)")  # fmt: skip
    add("--repeats", type=positive, default=5, metavar="N", help="rounds (default 5)")
    add("--window-s", type=positive_number, default=1.0, metavar="S",
        help="seconds of a closed-loop window (default 1)")  # fmt: skip
    add("--run-s", type=positive_number, default=20.0, metavar="S",
        help="seconds of a run at one load (default 20)")  # fmt: skip
    add("--top-logprobs", type=int, default=5, metavar="N",
        help="alternatives per token, as a cascade asks for; -1 for none (default 5)")  # fmt: skip
    add("--max-num-seqs", type=positive, default=64, metavar="N", help="its own (default 64)")
    add("--max-num-batched-tokens", type=positive, default=2048, metavar="N",
        help="its own (default 2048)")  # fmt: skip
    add("--kv-cache-tokens", type=positive, default=1_000_000, metavar="N",
        help="its own (default: no limit to speak of)")  # fmt: skip
    _add_seed(command)


def _add_seed(command: argparse.ArgumentParser) -> None:
    command.add_argument("--seed", type=natural, default=0, help="of all draws (default 0)")


def _run_birth_death(options: BirthDeathOptions, console: Console) -> BirthDeathCheck:
    with console.status("simulating"):
        return birth_death_check(
            read_azure_trace(options.trace),
            loads=options.loads,
            n_requests=options.requests,
            seed=options.seed,
        )


def _run_log(options: EngineLogOptions, console: Console) -> EngineLogCheck:
    with console.status("calibrating on each half"):
        return _log_check(options)


def _run_engine(options: RunningEngineOptions, console: Console) -> LiveEngineCheck:
    """Measure a running engine, and simulate it.

    Raises:
        ConfigError: An option is wrong.
        CannotBeDone: The engine cannot be measured.
        HybridServeError: The engine fails.
    """
    with console.status("beginning") as status:
        return asyncio.run(_engine_check(options, status.update))


def _log_check(options: EngineLogOptions) -> EngineLogCheck:
    kind, facts = gpu_type(options.gpu_type), facts_of_model(options.model)
    log = read_engine_log(options.log)
    if len(log.requests) < 4:
        raise ConfigError(f"log {options.log} has {len(log.requests)} requests; 4 at least")
    tokens = options.kv_cache_tokens or kv_capacity_tokens(
        facts,
        memory_bytes_per_gpu=int(_MEMORY_SHARE * kind.usable_memory_bytes),
        tensor_parallel_size=options.tensor_parallel_size,
        pipeline_parallel_size=1,
    )
    shape = ReplicaShape(
        facts=facts,
        gpu=kind,
        tensor_parallel_size=options.tensor_parallel_size,
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=max(options.max_num_batched_tokens, options.max_num_seqs),
        kv_cache_tokens=max(1, tokens),
    )
    return engine_log_check(log, shape, is_kv_cache_known=options.kv_cache_tokens is not None)


async def _engine_check(
    options: RunningEngineOptions, on_step: Callable[[str], None]
) -> LiveEngineCheck:
    clock = SystemClock()
    try:
        engine = VllmHttpEngine(
            options.url, model=options.model, clock=clock, probe_timeout_s=_PROBE_TIMEOUT_S
        )
    except ValueError as exc:
        raise ConfigError(f"--url: {exc}") from exc
    wanted = LiveCheckOptions(
        limits=EngineLimits(
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            kv_cache_tokens=options.kv_cache_tokens,
        ),
        loads=options.loads,
        repeats=options.repeats,
        window_s=options.window_s,
        run_s=options.run_s,
        seed=options.seed,
    )
    try:
        token_ids = await engine.token_ids_of(_WORDS)
        if not token_ids:
            raise CannotBeDone(f"engine {options.url} has no /tokenize, which prompts need")
        live = LiveEngine(
            engine,
            token_ids,
            clock=clock,
            pid=options.pid,
            top_logprobs=None if options.top_logprobs < 0 else options.top_logprobs,
            seed=options.seed,
        )
        name = f"{options.model} at {shlex.quote(options.url)}"
        return await live_engine_check(name, live, wanted, on_step=on_step)
    finally:
        await engine.aclose()


def _shares(text: str) -> tuple[float, ...]:
    """Read numbers between 0 and 1 with commas between them."""
    return tuple(share(part) for part in text.split(","))


CHECKS: Mapping[str, Command[Any, Any]] = {
    "birth-death": Command(
        description="Check the simulator against the planner's queueing model.",
        add_options=_add_birth_death,
        read=partial(options_from, BirthDeathOptions),
        run=_run_birth_death,
        show=print_check,
    ),
    "log": Command(
        description="Check the simulator against the log of a real vLLM.",
        add_options=_add_log,
        read=partial(options_from, EngineLogOptions),
        run=_run_log,
        show=print_check,
    ),
    "engine": Command(
        description="Check the simulator against an engine that runs.",
        add_options=_add_engine,
        read=partial(options_from, RunningEngineOptions),
        run=_run_engine,
        show=print_check,
    ),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one check and return its exit status, as `hybridserve_llm/program.py` lists them."""
    parser = argparse.ArgumentParser(
        prog=_PROGRAM, description="Measure how far the simulator is off."
    )
    checks = parser.add_subparsers(dest="check", required=True)
    for name, check in CHECKS.items():
        check.fill(checks.add_parser(name, help=check.description))
    values = parser.parse_args(arguments)
    return CHECKS[values.check].execute(_PROGRAM, values)


if __name__ == "__main__":
    sys.exit(main())
