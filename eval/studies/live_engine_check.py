"""Compare the simulator with a running engine, calibrated by closed-loop windows.

    windows ── Poisson at 0.3 ── windows ── Poisson at 0.6 ── windows ── … and again
       └───── calibrate ────────────┘

Windows hold 1, 2, 4, … requests in flight, of two mean lengths. Each run is simulated with a step
that is calibrated on the windows before and after it: a shared machine changes its pace within
minutes, and so does it for both. Two means over a run's requests are compared: the latency that the
client sees, and the CPU time of the engine's processes. The result is the median over rounds.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from eval.simulator.step_table import StepTable
from eval.simulator.tier import ReplicaLife, run_tier
from eval.simulator.workload import checked_requests
from eval.studies.live_calibration import EngineLimits, calibrated_table
from eval.studies.live_engine import Answered, LiveEngine, LiveWindow
from hybridserve_llm.load.request_source import Lengths

_WINDOW_LENGTHS = (
    Lengths(prompt_tokens=16, output_tokens=32),
    Lengths(prompt_tokens=128, output_tokens=32),
)
# Of the requests sent at random times, drawn evenly from these, ends included.
_PROMPT_TOKENS, _OUTPUT_TOKENS = (16, 128), (8, 56)
_IDLE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveCheckOptions:
    """Hold what is to be measured.

    Attributes:
        loads: Shares of the rate that the engine carries with all its places taken.
        repeats: Rounds.
        window_s: Seconds of a window.
        run_s: Seconds over which requests are sent at each load.
    """

    limits: EngineLimits
    loads: tuple[float, ...] = (0.3, 0.6, 0.8)
    repeats: int = 5
    window_s: float = 1.0
    run_s: float = 20.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveRun:
    """Hold one load in one round; `cpu_s` is a request's, None where it was not measured.

    Attributes:
        other_cores: CPU cores that all else on the machine used meanwhile, the client too.
    """

    load: float
    requests_per_s: float
    n_requests: int
    latency_s: float
    simulated_latency_s: float
    cpu_s: float | None
    simulated_cpu_s: float | None
    other_cores: float | None

    @property
    def latency_error(self) -> float:
        """Return the error of the simulated mean, as a share of the measured one."""
        return self.simulated_latency_s / self.latency_s - 1

    @property
    def cpu_error(self) -> float | None:
        """Return the error of the simulated CPU time, as a share of the measured one."""
        if self.cpu_s is None or self.simulated_cpu_s is None:
            return None
        return self.simulated_cpu_s / self.cpu_s - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSummary:
    """Hold the medians over the rounds at one load."""

    load: float
    latency_s: float
    simulated_latency_s: float
    latency_error: float
    cpu_s: float | None
    simulated_cpu_s: float | None
    cpu_error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEngineCheck:
    """Hold all rounds of one engine."""

    engine: str
    runs: tuple[LiveRun, ...]
    windows: tuple[LiveWindow, ...]

    @property
    def summaries(self) -> tuple[LoadSummary, ...]:
        """Return the medians by load, in the order in which loads were first run."""
        loads = dict.fromkeys(run.load for run in self.runs)
        return tuple(_summary([run for run in self.runs if run.load == load]) for load in loads)

    def as_json(self) -> dict[str, Any]:
        """Return the check as `--json` prints it."""
        return {
            "schema": "hybridserve-live-engine-check/1",
            **asdict(self),
            "runs": [
                {**asdict(run), "latency_error": run.latency_error, "cpu_error": run.cpu_error}
                for run in self.runs
            ],
            "summaries": [asdict(summary) for summary in self.summaries],
        }


async def live_engine_check(
    name: str, engine: LiveEngine, options: LiveCheckOptions, *, on_step: Callable[[str], None]
) -> LiveEngineCheck:
    """Run all rounds; `on_step` is called with each step.

    Raises:
        CannotBeDone: The windows do not calibrate a step, or the engine does not count its tokens.
        HybridServeError: The engine fails.
    """
    on_step("warming up")
    most = measured_concurrencies(options.limits.max_num_seqs)[-1]
    await engine.window(_WINDOW_LENGTHS[1], most, window_s=options.window_s)
    idle_cores = await engine.idle_cores(_IDLE_S)
    on_step("calibrating")
    before = await _windows(engine, options)
    runs, windows = [], [*before]
    for number in range(options.repeats * len(options.loads)):
        turn, place = divmod(number, len(options.loads))
        load, where = options.loads[place], f"round {turn + 1} of {options.repeats}"
        rate = load * capacity_per_s(before)
        on_step(f"{where}: load {load:g}")
        asked = drawn_requests(rate, options.run_s, seed=options.seed + number)
        answered = await engine.answer(asked)
        on_step(f"{where}: calibrating")
        after = await _windows(engine, options)
        table = calibrated_table([*before, *after], options.limits, idle_cores=idle_cores)
        runs.append(compared(load, rate, [one for _, one in asked], answered, table))
        windows += after
        before = after
    return LiveEngineCheck(engine=name, runs=tuple(runs), windows=tuple(windows))


async def _windows(engine: LiveEngine, options: LiveCheckOptions) -> list[LiveWindow]:
    return [
        await engine.window(lengths, concurrency, window_s=options.window_s)
        for concurrency in measured_concurrencies(options.limits.max_num_seqs)
        for lengths in _WINDOW_LENGTHS
    ]


def measured_concurrencies(max_num_seqs: int) -> tuple[int, ...]:
    """Return 1, 2, 4, … up to all requests that the engine takes at a time."""
    powers = itertools.takewhile(lambda n: n < max_num_seqs, (2**i for i in itertools.count()))
    return (*powers, max_num_seqs)


def capacity_per_s(windows: Sequence[LiveWindow]) -> float:
    """Return the requests per second of the drawn lengths with the most in flight.

    Prompts and answers of mean length lie between those of the windows: seconds of a request are
    interpolated over prompt tokens for each output token.
    """
    n_most = max(window.concurrency for window in windows)
    most = [window for window in windows if window.concurrency == n_most]
    ratios = [window.lengths.prompt_tokens / window.lengths.output_tokens for window in most]
    token_s = [1 / window.output_tokens_per_s for window in most]
    output = sum(_OUTPUT_TOKENS) / 2
    ratio = sum(_PROMPT_TOKENS) / 2 / output
    return 1 / (output * float(np.interp(ratio, ratios, token_s)))


def drawn_requests(
    requests_per_s: float, run_s: float, *, seed: int
) -> list[tuple[float, Lengths]]:
    """Draw a Poisson process of `run_s` seconds, one request at least."""
    random = np.random.default_rng(seed)
    n = max(1, int(random.poisson(requests_per_s * run_s)))
    at_s = np.sort(random.uniform(0, run_s, n))
    prompts = random.integers(*_PROMPT_TOKENS, n, endpoint=True)
    outputs = random.integers(*_OUTPUT_TOKENS, n, endpoint=True)
    return [
        (float(at), Lengths(prompt_tokens=int(prompt), output_tokens=int(output)))
        for at, prompt, output in zip(at_s, prompts, outputs, strict=True)
    ]


def compared(
    load: float,
    requests_per_s: float,
    lengths: Sequence[Lengths],
    answered: Answered,
    table: StepTable,
) -> LiveRun:
    """Simulate the requests at the times at which they were sent."""
    n = len(lengths)
    requests = checked_requests(
        np.array(answered.sent_s),
        np.array([one.prompt_tokens for one in lengths]),
        np.array([one.output_tokens for one in lengths]),
    )
    run = run_tier([ReplicaLife(table=table)], requests)
    idle_s = max(0.0, answered.seconds - float(run.busy_s.sum()))
    simulated_cpu_s = float(run.energy_j.sum()) + idle_s * table.idle_w
    is_known = answered.engine_cpu_s is not None
    other_s = answered.other_cpu_s
    return LiveRun(
        load=load,
        requests_per_s=requests_per_s,
        n_requests=n,
        latency_s=float(np.mean(answered.latency_s)),
        simulated_latency_s=float((run.finish_s - requests.arrival_s).mean()),
        cpu_s=answered.engine_cpu_s / n if answered.engine_cpu_s is not None else None,
        simulated_cpu_s=simulated_cpu_s / n if is_known else None,
        other_cores=None if other_s is None else other_s / answered.seconds,
    )


def _summary(runs: Sequence[LiveRun]) -> LoadSummary:
    return LoadSummary(
        load=runs[0].load,
        latency_s=median(run.latency_s for run in runs),
        simulated_latency_s=median(run.simulated_latency_s for run in runs),
        latency_error=median(run.latency_error for run in runs),
        cpu_s=_median_known([run.cpu_s for run in runs]),
        simulated_cpu_s=_median_known([run.simulated_cpu_s for run in runs]),
        cpu_error=_median_known([run.cpu_error for run in runs]),
    )


def _median_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
