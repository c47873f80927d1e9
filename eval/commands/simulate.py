"""`hs-eval simulate`: a plan under a trace, event by event, and what others would have cost."""

import argparse
import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from eval.commands.option_values import natural, positive, positive_number
from eval.simulation.azure_trace import read_azure_trace
from eval.simulation.known_tiers import KnownCascade, known_cascade
from eval.simulation.plan_file import PlannedGear, PlanOnCluster, read_plan
from eval.simulation.planned_cascade import TableMaker, planned_cascade
from eval.simulation.planned_gears import geared_cascade
from eval.simulation.reported_demand import PlannedLoad
from eval.simulation.rival_plans import giant_only, proportional
from eval.simulator.cascade import SimulatedCascade, run_cascade
from eval.simulator.gears import GearChange, GearRules
from eval.simulator.outcome import Bounds, Outcome, outcome
from eval.simulator.workload import Requests, overlaid, poisson
from hybridserve_llm.config.load import load_config
from hybridserve_llm.errors import CannotBeDone, ConfigError

SCHEMA = "hybridserve-simulation/1"
PLANNED = "planned"
_RULES = GearRules()
# A Poisson process has so many requests at least, and lasts so long.
_POISSON_REQUESTS, _POISSON_S = 10_000, 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """What `hs-eval simulate` found.

    Attributes:
        planned_for: Load of the plan by its report; None of a bare plan.
        plan_assumptions: What the plan's report took for granted.
        outcomes: `planned`, with `--gears` `geared`, and those it is compared with, by name.
        not_compared: Why another has no outcome, by its name.
        gears: Those of the plan's file, by load; empty where it has none.
        gear_changes: What `geared` did; None where it was not simulated.
        cpu_s: CPU-seconds that each took; not part of the JSON, which a seed decides.
    """

    seed: int
    requests: Requests
    bounds: Bounds
    planned_for: PlannedLoad | None
    plan_assumptions: tuple[str, ...]
    gears: tuple[PlannedGear, ...]
    gear_changes: tuple[GearChange, ...] | None
    outcomes: Mapping[str, Outcome]
    not_compared: Mapping[str, str]
    cpu_s: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it; unknown is null."""
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "requests": len(self.requests),
            "span_s": self.requests.span_s,
            "prompt_tokens": float(self.requests.prompt_tokens.mean()),
            "output_tokens": float(self.requests.output_tokens.mean()),
            "bounds": {"ttft_s": self.bounds.ttft_s, "latency_s": self.bounds.latency_s},
            "planned_for": None if self.planned_for is None else asdict(self.planned_for),
            "plan_assumptions": list(self.plan_assumptions),
            "gears": [asdict(gear) for gear in self.gears] or None,
            "gear_changes": None
            if self.gear_changes is None
            else [asdict(change) for change in self.gear_changes],
            "cascades": {name: found.as_json() for name, found in self.outcomes.items()},
            "not_compared": dict(self.not_compared),
        }


def add_simulate(command: argparse.ArgumentParser) -> None:
    """Adds the options of `hs-eval simulate`."""
    command.description = (
        "Simulate a planned cascade under a trace: latency, goodput, joules and GPU-hours, by the "
        "planner's model of time and power, beside the last tier alone and replicas in "
        "proportion. The whole report of hs-launch --dry-run --json says all that is needed."
    )
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
    add("--json", action="store_true", help="print JSON and nothing else")


def simulate(options: argparse.Namespace) -> Simulation:
    """Reads the files, simulates, adds up.

    Raises:
        ConfigError: A file or an option is wrong, or what is needed is not told.
        CannotBeDone: The plan has what cannot be simulated, or a model does not fit.
    """
    if options.gpus is not None and options.gpu_type is None:
        raise ConfigError("--gpus needs --gpu-type")
    config = None if options.config is None else load_config(options.config)
    planned = read_plan(options.plan, config, gpu_type_name=options.gpu_type, n_gpus=options.gpus)
    known = known_cascade(config, planned.demand)
    slo = known.slo
    bounds = Bounds(
        # That of the SLO is of each tier's answers; the client has none before it is accepted.
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
    found = dict(zip(cascades, _run_all(jobs, options.processes), strict=True))
    return Simulation(
        seed=options.seed,
        requests=requests,
        bounds=bounds,
        planned_for=None if planned.demand is None else planned.demand.load,
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
    """What the plan is compared with, each to be made when it is asked for."""
    cluster, tiers = planned.cluster, known.tiers
    # Where nobody told what the plan was made for these requests are taken; where they all come at
    # once one a second, as by hs-launch.
    rate_per_s = known.requests_per_s or (requests.mean_per_s if requests.span_s else 1.0)
    load = {"requests_per_s": rate_per_s, "head_room": known.head_room}
    return (
        ("giant-only", partial(giant_only, cluster, tiers[-1], make, slo=known.slo, **load)),
        ("proportional", partial(proportional, cluster, tiers, make, **load)),
    )


def _requests(options: argparse.Namespace) -> Requests:
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


_Job = tuple[SimulatedCascade, Requests, Bounds, int]


def _run_all(jobs: Sequence[_Job], n_processes: int) -> list[tuple[Outcome, float]]:
    if n_processes == 1 or len(jobs) == 1:
        return [_run(job) for job in jobs]
    with ProcessPoolExecutor(n_processes, mp_context=get_context("spawn")) as pool:
        return list(pool.map(_run, jobs))


def _run(job: _Job) -> tuple[Outcome, float]:
    cascade, requests, bounds, seed = job
    begun_s = time.process_time()
    found = outcome(run_cascade(cascade, requests, seed=seed), bounds)
    return found, time.process_time() - begun_s
