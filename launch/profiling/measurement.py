"""Measure one engine at several loads.

Points are measured in rounds, each round going through all of them. So a machine that gets slower
or busier meanwhile does so for all points alike.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hybridserve_llm.load.closed_loop import loaded
from hybridserve_llm.load.reading import CountingEngine
from hybridserve_llm.load.request_source import RequestSource
from launch.profiling.window import Instruments, MeasuredWindow, measure_window


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """Hold the loads to measure, each in `repeats` windows of `window_s` seconds."""

    concurrency: tuple[int, ...]
    window_s: float
    repeats: int


async def measure_rounds(
    engine: CountingEngine,
    source: RequestSource,
    rounds: Rounds,
    *,
    instruments: Instruments,
    on_window: Callable[[int, int], None],
) -> Mapping[int, tuple[MeasuredWindow, ...]]:
    """Measure the windows of every point, and return them in the order of `rounds.concurrency`.

    Before the first round the largest load runs once for one request a worker, so that what an
    engine does only once (compiling, filling its caches) is over.

    Args:
        engine: What is measured; nothing else may ask it meanwhile.
        source: Requests.
        rounds: What to measure.
        instruments: What with.
        on_window: Called before every window with the round, from 1, and the requests in flight.

    Raises:
        CannotBeDone: No request ended in a window, or the engine does not count what is needed.
        HybridServeError: The engine refuses a request, or fails.
    """
    async with loaded(engine, source, max(rounds.concurrency)):
        pass
    windows: dict[int, list[MeasuredWindow]] = {c: [] for c in rounds.concurrency}
    for number in range(1, rounds.repeats + 1):
        for concurrency in _order(rounds.concurrency, number):
            on_window(number, concurrency)
            windows[concurrency].append(
                await measure_window(
                    engine,
                    source,
                    concurrency,
                    window_s=rounds.window_s,
                    instruments=instruments,
                )
            )
    return {concurrency: tuple(found) for concurrency, found in windows.items()}


def _order(concurrency: Sequence[int], number: int) -> Iterable[int]:
    """Return the loads up in odd rounds, down in even ones: a drift evens out over two."""
    return concurrency if number % 2 else reversed(concurrency)
