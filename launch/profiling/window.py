"""One measurement: what an engine did in a stretch of time under a steady load."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.interfaces import Clock, EnergyMeter, Engine
from hybridserve_llm.values.joules import Activity
from launch.profiling.closed_loop import ClosedLoop, closed_loop
from launch.profiling.counters import EngineCounters, counters_of
from launch.profiling.cpu_time import CpuTime
from launch.profiling.power import Pause, Power, mean_power
from launch.profiling.prompts import RequestSource


class MeasuredEngine(Engine, Protocol):
    """An engine that tells its counters; `engines.vllm_http.VllmHttpEngine` is one."""

    async def metrics(self) -> str:
        """Its metrics, in Prometheus' text format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What a window is measured with.

    Attributes:
        clock: Reads seconds.
        pause: Lets so many seconds pass.
        cpu_time: Reads the CPU-seconds used so far.
        meter: Joules of all devices of the engine.
    """

    clock: Clock
    cpu_time: Callable[[], CpuTime]
    meter: EnergyMeter
    pause: Pause = asyncio.sleep


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """One measurement of an engine with `concurrency` requests in flight.

    Attributes:
        seconds: How long it took.
        n_requests: Requests that ended in it.
        output_tokens_per_s: Generated, of all requests together.
        prompt_tokens_per_s: Computed, likewise.
        itl_s: Mean seconds between two tokens of a request, as the engine counts them.
        ttft_s: Mean seconds to the first token, as the engine counts them; None where none came.
        preemptions: Requests that were thrown out of the batch for lack of KV cache.
        power_w: Mean watts of all devices of the engine; None where nobody can tell.
        power_source: The meter of them; `unavailable` for none.
        power_reason: Why they are not known, or what else to know of them; None for nothing.
        power_edge_w: By how much they may be off since the meter is read ten times a second.
        engine_cores: CPU cores that the engine's processes used, on average.
        other_cores: The same of all else on the machine; None where it is not known.
    """

    concurrency: int
    seconds: float
    n_requests: int
    output_tokens_per_s: float
    prompt_tokens_per_s: float
    itl_s: float | None
    ttft_s: float | None
    preemptions: int
    power_w: float | None
    power_source: str
    power_reason: str | None
    power_edge_w: float
    engine_cores: float
    other_cores: float | None

    @property
    def requests_per_s(self) -> float:
        """Requests that ended, per second."""
        return self.n_requests / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    at_s: float
    counters: EngineCounters
    cpu: CpuTime
    n_finished: int


async def measure_window(
    engine: MeasuredEngine,
    source: RequestSource,
    concurrency: int,
    *,
    window_s: float,
    instruments: Instruments,
) -> Window:
    """Loads the engine, waits until the load is steady, and measures it for `window_s`.

    Raises:
        CannotBeDone: No request ended in the window, or the engine does not count what is needed.
        HybridServeError: The engine refuses a request, or fails.
    """
    async with closed_loop(engine, source, concurrency) as loop:
        begin = await _read(engine, loop, instruments)
        await instruments.pause(window_s)
        end = await _read(engine, loop, instruments)
    power = await _power(instruments, begin.at_s, end.at_s, n_running=concurrency)
    window = _between(begin, end, concurrency, power)
    if window.n_requests == 0 or window.output_tokens_per_s <= 0:
        raise CannotBeDone(
            f"no request of {source.output_tokens} output tokens ended in {window_s:g} s with "
            f"{concurrency} in flight: give a longer --window-s or fewer --output-tokens"
        )
    return window


async def measure_idle(window_s: float, instruments: Instruments) -> Power:
    """Mean watts of `window_s` while nothing is asked of the devices."""
    begin_s = instruments.clock.monotonic_s()
    await instruments.pause(window_s)
    return await _power(instruments, begin_s, instruments.clock.monotonic_s(), n_running=0)


async def _read(engine: MeasuredEngine, loop: ClosedLoop, instruments: Instruments) -> _Reading:
    asked_s = instruments.clock.monotonic_s()
    counters = counters_of(await engine.metrics())
    # The engine read its counters somewhere between question and answer.
    at_s = (asked_s + instruments.clock.monotonic_s()) / 2
    return _Reading(
        at_s=at_s,
        counters=counters,
        cpu=instruments.cpu_time(),
        n_finished=loop.n_finished,
    )


def _between(begin: _Reading, end: _Reading, concurrency: int, power: Power) -> Window:
    seconds = end.at_s - begin.at_s
    counted = end.counters.since(begin.counters)
    return Window(
        concurrency=concurrency,
        seconds=seconds,
        n_requests=end.n_finished - begin.n_finished,
        output_tokens_per_s=counted.output_tokens / seconds,
        prompt_tokens_per_s=counted.prompt_tokens / seconds,
        itl_s=counted.itl_s,
        ttft_s=counted.ttft_s,
        preemptions=round(counted.preemptions),
        power_w=power.power_w,
        power_source=power.source,
        power_reason=power.reason,
        power_edge_w=power.edge_w,
        engine_cores=(end.cpu.engine_s - begin.cpu.engine_s) / seconds,
        other_cores=_other_cores(begin.cpu, end.cpu, seconds),
    )


def _other_cores(begin: CpuTime, end: CpuTime, seconds: float) -> float | None:
    if begin.others_s is None or end.others_s is None:
        return None
    # Linux counts the machine in other steps than a process, so that a quiet one may come out < 0.
    return max(0.0, end.others_s - begin.others_s) / seconds


async def _power(
    instruments: Instruments, begin_s: float, end_s: float, *, n_running: int
) -> Power:
    activity = Activity(running=n_running)
    return await mean_power(instruments.meter, begin_s, end_s, activity, pause=instruments.pause)
