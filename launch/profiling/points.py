"""Make the points of a profile of the windows that were measured.

A point's figures are the medians of its windows, so one window that something else disturbed does
not move them.
"""

from collections.abc import Iterable, Sequence
from statistics import median

from hybridserve_llm.profiles.profile_file import ProfilePoint
from hybridserve_llm.values.joules import Source
from launch.profiling.power import worst_source
from launch.profiling.window import MeasuredWindow


def point_of(windows: Sequence[MeasuredWindow]) -> ProfilePoint:
    """Return the profile's point of windows at one load: medians, and the throughput's range."""
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
        engine_cores=_median(window.engine_cores for window in windows),
        other_cores=_median(window.other_cores for window in windows),
        lowest_output_tokens_per_s=min(tokens_per_s),
        highest_output_tokens_per_s=max(tokens_per_s),
        repeats=len(windows),
    )


def points_of(windows: Iterable[Sequence[MeasuredWindow]]) -> tuple[ProfilePoint, ...]:
    """Return the points of a profile, one for the windows at each load.

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
    """Return the median; None where one value is not known, since the others may differ."""
    known = list(values)
    return None if None in known else median(value for value in known if value is not None)
