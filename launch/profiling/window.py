"""Measure what an engine did in a stretch of time under a steady load."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.interfaces import Clock, EnergyMeter
from hybridserve_llm.load.closed_loop import loaded
from hybridserve_llm.load.process_times import CpuTime
from hybridserve_llm.load.reading import CountingEngine, Stretch, read_engine
from hybridserve_llm.load.request_source import RequestSource
from hybridserve_llm.values.joules import Activity
from launch.profiling.power import Pause, Power, mean_power


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """Hold the instruments that a window is measured with.

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
class MeasuredWindow:
    """Hold one measurement of an engine with `concurrency` requests in flight.

    Attributes:
        seconds: How long it took.
        n_requests: Requests that ended in it.
        output_tokens_per_s: Generated, of all requests together.
        prompt_tokens_per_s: Computed, of all requests together.
        itl_s: Mean seconds between two tokens of a request, as the engine counts them.
        ttft_s: Mean seconds to the first token, as the engine counts them; None where none came.
        preemptions: Requests that were thrown out of the batch for lack of KV cache.
        power_w: Mean watts of all devices of the engine; None where they are not known.
        power_source: The meter of them; `unavailable` for none.
        power_reason: Why they are not known, or what else to know of them; None for nothing.
        power_edge_w: By how much they may be off since the meter is read ten times a second.
        engine_cores: CPU cores that the engine's processes used, on average; None where unknown.
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
    engine_cores: float | None
    other_cores: float | None

    @property
    def requests_per_s(self) -> float:
        """Return the requests that ended per second."""
        return self.n_requests / self.seconds


async def measure_window(
    engine: CountingEngine,
    source: RequestSource,
    concurrency: int,
    *,
    window_s: float,
    instruments: Instruments,
) -> MeasuredWindow:
    """Load the engine, wait until the load is steady, and measure it for `window_s`.

    Raises:
        CannotBeDone: No request ended in the window, or the engine does not count what is needed.
        HybridServeError: The engine refuses a request, or fails.
    """
    async with loaded(engine, source, concurrency) as loop:
        begin = await read_engine(engine, instruments.clock, instruments.cpu_time)
        n_before = loop.n_finished
        await instruments.pause(window_s)
        end = await read_engine(engine, instruments.clock, instruments.cpu_time)
        n_requests = loop.n_finished - n_before
    power = await _power(instruments, begin.at_s, end.at_s, n_running=concurrency)
    stretch = end.since(begin)
    if n_requests == 0 or stretch.output_tokens_per_s <= 0:
        raise CannotBeDone(
            f"no request of {source.lengths.output_tokens} output tokens ended in {window_s:g} s "
            f"with {concurrency} in flight: give a longer --window-s or fewer --output-tokens"
        )
    return _window(stretch, n_requests, concurrency, power)


async def measure_idle(window_s: float, instruments: Instruments) -> Power:
    """Return the mean watts of `window_s` while nothing is asked of the devices."""
    begin_s = instruments.clock.monotonic_s()
    await instruments.pause(window_s)
    return await _power(instruments, begin_s, instruments.clock.monotonic_s(), n_running=0)


def _window(stretch: Stretch, n_requests: int, concurrency: int, power: Power) -> MeasuredWindow:
    return MeasuredWindow(
        concurrency=concurrency,
        seconds=stretch.seconds,
        n_requests=n_requests,
        output_tokens_per_s=stretch.output_tokens_per_s,
        prompt_tokens_per_s=stretch.counted.prompt_tokens / stretch.seconds,
        itl_s=stretch.counted.itl_s,
        ttft_s=stretch.counted.ttft_s,
        preemptions=round(stretch.counted.preemptions),
        power_w=power.power_w,
        power_source=power.source,
        power_reason=power.reason,
        power_edge_w=power.edge_w,
        engine_cores=stretch.engine_cores,
        other_cores=stretch.other_cores,
    )


async def _power(
    instruments: Instruments, begin_s: float, end_s: float, *, n_running: int
) -> Power:
    activity = Activity(running=n_running)
    return await mean_power(instruments.meter, begin_s, end_s, activity, pause=instruments.pause)
