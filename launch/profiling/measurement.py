"""Measures one engine at several loads, and makes the points of its profile of the windows.

Points are measured in rounds, each round going through all of them, so that a machine that gets
slower or busier meanwhile does so for all points alike. Each point's figures are the medians of its
windows: one window that something else disturbed does not move them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from hybridserve_llm.profiles.profile_file import ProfilePoint
from hybridserve_llm.values.joules import Source
from launch.profiling.closed_loop import closed_loop
from launch.profiling.power import worst_source
from launch.profiling.prompts import RequestSource
from launch.profiling.window import Instruments, MeasuredEngine, Window, measure_window


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounds:
    """What to measure: `concurrency` in flight, each in `repeats` windows of `window_s` seconds."""

    concurrency: tuple[int, ...]
    window_s: float
    repeats: int


async def measure_rounds(
    engine: MeasuredEngine,
    source: RequestSource,
    rounds: Rounds,
    *,
    instruments: Instruments,
    tell: Callable[[int, int], None],
) -> Mapping[int, tuple[Window, ...]]:
    """The windows of every point, in the order of `rounds.concurrency`.

    Before the first round the largest load runs once for one request a worker, so that what an
    engine does only once (compiling, filling its caches) is over.

    Args:
        engine: What is measured; nothing else may ask it meanwhile.
        source: Requests.
        rounds: What to measure.
        instruments: What with.
        tell: Called before every window with the round, from 1, and the requests in flight.

    Raises:
        CannotBeDone: No request ended in a window, or the engine does not count what is needed.
        HybridServeError: The engine refuses a request, or fails.
    """
    async with closed_loop(engine, source, max(rounds.concurrency)):
        pass
    windows: dict[int, list[Window]] = {c: [] for c in rounds.concurrency}
    for number in range(1, rounds.repeats + 1):
        for concurrency in _order(rounds.concurrency, number):
            tell(number, concurrency)
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
    """Up in odd rounds, down in even ones: what drifts within a round evens out over two."""
    return concurrency if number % 2 else reversed(concurrency)


def point_of(windows: Sequence[Window]) -> ProfilePoint:
    """The profile's point of windows at one load: medians, and the range of the throughput."""
    tokens_per_s = [window.output_tokens_per_s for window in windows]
    concurrency = windows[0].concurrency
    return ProfilePoint(
        concurrency=concurrency,
        step_time_s=concurrency / median(tokens_per_s),
        output_tokens_per_s=median(tokens_per_s),
        power_w=_median(window.power_w for window in windows),
        power_source=worst_source([window.power_source for window in windows]),
        power_reason=next((one.power_reason for one in windows if one.power_reason), None),
        ttft_s=_median(window.ttft_s for window in windows),
        itl_s=_median(window.itl_s for window in windows),
        requests_per_s=median(window.requests_per_s for window in windows),
        prompt_tokens_per_s=median(window.prompt_tokens_per_s for window in windows),
        engine_cores=median(window.engine_cores for window in windows),
        other_cores=_median(window.other_cores for window in windows),
        lowest_output_tokens_per_s=min(tokens_per_s),
        highest_output_tokens_per_s=max(tokens_per_s),
        repeats=len(windows),
    )


def points_of(windows: Iterable[Sequence[Window]]) -> tuple[ProfilePoint, ...]:
    """The points of a profile, one for the windows at each load.

    Where one has no watts none has: a table of power with holes cannot be read between its points.
    """
    points = tuple(point_of(found) for found in windows)
    without = [point for point in points if point.power_w is None]
    if not without or len(without) == len(points):
        return points
    first = without[0]
    reason = f"not known with {first.concurrency:g} in flight: {first.power_reason}"
    gone = {"power_w": None, "power_source": Source.UNAVAILABLE.value, "power_reason": reason}
    return tuple(
        point if point.power_w is None else point.model_copy(update=gone) for point in points
    )


def _median(values: Iterable[float | None]) -> float | None:
    """The median; None where one value is not known, since the others may not be like it."""
    known = list(values)
    return None if None in known else median(value for value in known if value is not None)
