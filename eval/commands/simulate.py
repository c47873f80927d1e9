"""Run `hs-eval simulate`: simulate a plan under a trace, and other plans to compare with."""

import argparse
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from rich.console import Console

from eval.commands.command import Command, options_from
from eval.commands.option_values import natural, positive, positive_number
from eval.commands.simulate_tables import print_simulation
from eval.commands.simulation_result import PLANNED, Simulation
from eval.simulation.azure_trace import read_azure_trace
from eval.simulation.known_tiers import KnownCascade, known_cascade
from eval.simulation.plan_file import PlanOnCluster, read_plan
from eval.simulation.planned_cascade import TableMaker, planned_cascade
from eval.simulation.planned_gears import geared_cascade
from eval.simulation.rival_plans import giant_only, proportional
from eval.simulator.cascade import SimulatedCascade, run_cascade
from eval.simulator.gears import GearChange, GearRules
from eval.simulator.outcome import GoodputBounds, SimulatedOutcome, outcome
from eval.simulator.workload import Requests, overlaid, poisson
from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import CannotBeDone, ConfigError

_RULES = GearRules()
# A Poisson process has at least so many requests, and lasts so long.
_POISSON_REQUESTS, _POISSON_S = 10_000, 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulateOptions:
    """Hold the options of `hs-eval simulate`.

    Attributes:
        plan: The plan, or the report that holds it.
        config: The cascade's configuration; None where the report says enough of its tiers.
        overlay: Copies of the trace that are laid over each other.
        requests_per_s: Rate of a Poisson process; None for the trace's own times.
        requests: Number of its requests; None for the default.
        gpu_type: Type of the GPUs, and `gpus` their number, where the plan's file has neither.
        max_num_batched_tokens: Of every engine; None for vLLM's default of the GPU type.
        ttft_s: Bound for goodput on the time to a client's first token; None for no bound.
        latency_s: Bound for goodput on the latency; None for that of the planner's SLO.
        compare: Whether other cascades are simulated, too.
        gears: Whether replicas change with the load; `gear_load_s` seconds load one.
        processes: Cascades simulated at a time.
    """

    plan: Path
    config: Path | None
    trace: Path
    overlay: int
    requests_per_s: float | None
    requests: int | None
    seed: int
    gpu_type: str | None
    gpus: int | None
    max_num_batched_tokens: int | None
    ttft_s: float | None
    latency_s: float | None
    compare: bool
    gears: bool
    gear_load_s: float
    processes: int


def _add_options(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--plan", type=Path, required=True, metavar="FILE",
        help="the report of hs-launch --dry-run --json, or a plan.json")  # fmt: skip
    add("--config", type=Path, metavar="FILE",
        help="the cascade's configuration, in place of what the report says of its tiers; "
        "a plan.json needs it")  # fmt: skip
    add("--trace", type=Path, required=True, metavar="FILE",
        help="CSV with TIMESTAMP, ContextTokens, GeneratedTokens")  # fmt: skip
    add("--overlay", type=positive, default=1, metavar="N",
        help="lay the trace over itself so many times, each shifted at random")  # fmt: skip
    add("--requests-per-s", type=positive_number, metavar="RATE",
        help="a Poisson process instead of the trace's times; its lengths are drawn")  # fmt: skip
    add("--requests", type=positive, metavar="N",
        help="how many of these (default 10 minutes of them, 10000 at least)")  # fmt: skip
    add("--seed", type=natural, default=0, help="of all draws (default 0)")
    add("--gpu-type", metavar="TYPE", help="where the plan's file does not say it")
    add("--gpus", type=positive, metavar="N", help="with --gpu-type: how many there are")
    add("--max-num-batched-tokens", type=positive, metavar="N",
        help="of every engine (default: vLLM's for the GPU type)")  # fmt: skip
    add("--ttft-s", type=float, metavar="S",
        help="bound for goodput, on the client's time to the first token")  # fmt: skip
    add("--latency-s", type=float, metavar="S",
        help="bound for goodput (default planner.slo.latency_s)")  # fmt: skip
    add("--compare", action=argparse.BooleanOptionalAction, default=True,
        help="also simulate the last tier alone, and replicas in proportion to work")  # fmt: skip
    add("--gears", action="store_true",
        help="also let replicas change with the load, by the gears of the plan's file")  # fmt: skip
    add("--gear-load-s", type=positive_number, default=_RULES.load_s, metavar="S",
        help=f"seconds in which a replica loads (default {_RULES.load_s:g})")  # fmt: skip
    add("--processes", type=positive, default=1, metavar="N",
        help="cascades simulated at a time (default 1)")  # fmt: skip


def _run(options: SimulateOptions, console: Console) -> Simulation:
    with console.status("simulating"):
        simulation = _simulation(options)
    for name, cpu_s in simulation.cpu_s.items():
        rate = len(simulation.requests) / cpu_s
        console.print(
            f"{name}: {cpu_s:.1f} CPU-s, {rate:.0f} requests a CPU-second",
            highlight=False,
            soft_wrap=True,
        )
    return simulation


def _simulation(options: SimulateOptions) -> Simulation:
    """Read the files, simulate every cascade, and return what came of each.

    Raises:
        ConfigError: A file or an option is wrong, or a necessary value is missing.
        CannotBeDone: The plan cannot be simulated, or a model does not fit.
    """
    if options.gpus is not None and options.gpu_type is None:
        raise ConfigError("--gpus needs --gpu-type")
    config = None if options.config is None else load_config(options.config)
    planned = read_plan(options.plan, config, gpu_type_name=options.gpu_type, n_gpus=options.gpus)
    known = known_cascade(config, planned.report)
    slo = known.slo
    bounds = GoodputBounds(
        # The SLO's bound on TTFT is for each tier; a client sees a token only after acceptance.
        ttft_s=options.ttft_s,
        latency_s=slo.latency_s if options.latency_s is None else options.latency_s,
    )
    requests = _requests(options)
    make = TableMaker.of(requests, options.max_num_batched_tokens, planned.cluster)
    cascades = {PLANNED: planned_cascade(planned, known.tiers, make)}
    changes: tuple[GearChange, ...] | None = None
    if options.gears:
        rules = GearRules(load_s=options.gear_load_s)
        cascades["geared"], changes = geared_cascade(planned, known.tiers, make, requests, rules)
    not_compared: dict[str, str] = {}
    for name, other in _others(planned, known, make, requests) if options.compare else ():
        try:
            cascades[name] = other()
        except CannotBeDone as exc:  # the plan is simulated all the same
            not_compared[name] = str(exc)
    jobs = [(cascade, requests, bounds, options.seed) for cascade in cascades.values()]
    found = dict(zip(cascades, _simulate_all(jobs, options.processes), strict=True))
    return Simulation(
        seed=options.seed,
        requests=requests,
        bounds=bounds,
        planned_for=planned.load,
        plan_assumptions=planned.assumptions,
        gears=planned.gears,
        gear_changes=changes,
        outcomes={name: result for name, (result, _) in found.items()},
        not_compared=not_compared,
        cpu_s={name: cpu_s for name, (_, cpu_s) in found.items()},
    )


def _others(
    planned: PlanOnCluster, known: KnownCascade, make: TableMaker, requests: Requests
) -> tuple[tuple[str, Callable[[], SimulatedCascade]], ...]:
    """Return functions that make the cascades which the plan is compared with, by name."""
    cluster, tiers = planned.cluster, known.tiers
    # A plan that does not say its load is taken to be for these requests. Where all of them come at
    # once the load is one a second, as hs-launch assumes.
    rate_per_s = known.requests_per_s or (requests.mean_per_s if requests.span_s else 1.0)
    load = {"requests_per_s": rate_per_s, "head_room": known.head_room}
    return (
        ("giant-only", partial(giant_only, cluster, tiers[-1], make, slo=known.slo, **load)),
        ("proportional", partial(proportional, cluster, tiers, make, **load)),
    )


def _requests(options: SimulateOptions) -> Requests:
    trace = read_azure_trace(options.trace)
    if options.requests_per_s is None:
        return overlaid(trace, options.overlay, seed=options.seed)
    if options.overlay > 1:
        raise ConfigError("--overlay keeps the trace's times, --requests-per-s does not: give one")
    enough = max(_POISSON_REQUESTS, math.ceil(_POISSON_S * options.requests_per_s))
    return poisson(
        trace,
        requests_per_s=options.requests_per_s,
        n_requests=options.requests or enough,
        seed=options.seed,
    )


_Job = tuple[SimulatedCascade, Requests, GoodputBounds, int]


def _simulate_all(jobs: Sequence[_Job], n_processes: int) -> list[tuple[SimulatedOutcome, float]]:
    if n_processes == 1 or len(jobs) == 1:
        return [_simulate_one(job) for job in jobs]
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_simulate_one, jobs))


def _simulate_one(job: _Job) -> tuple[SimulatedOutcome, float]:
    cascade, requests, bounds, seed = job
    begun_s = time.process_time()
    found = outcome(run_cascade(cascade, requests, seed=seed), bounds)
    return found, time.process_time() - begun_s


COMMAND = Command(
    description="Simulate a planned cascade under a trace: latency, goodput, joules and GPU-hours, "
    "by the planner's model of time and power, next to the last tier alone and replicas in "
    "proportion. The whole report of hs-launch --dry-run --json says all that is needed.",
    add_options=_add_options,
    read=partial(options_from, SimulateOptions),
    run=_run,
    show=print_simulation,
)
