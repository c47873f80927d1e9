"""Predict loads that are not in a table, and compare them with what was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from hybridserve_llm.profiles.curve import curve_of_profile
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.throughput import output_tokens_per_s
from launch.profiling.window import MeasuredWindow


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Hold one load that was measured and left out of the table.

    Attributes:
        concurrency: Requests in flight.
        predicted_tokens_per_s: Output tokens per second, from the table alone.
        measured_tokens_per_s: The same of every window, as measured.
    """

    concurrency: int
    predicted_tokens_per_s: float
    measured_tokens_per_s: tuple[float, ...]

    @property
    def median_tokens_per_s(self) -> float:
        """Return the median of what was measured."""
        return median(self.measured_tokens_per_s)

    @property
    def error(self) -> float:
        """Return the predicted throughput over the median, minus 1."""
        return self.predicted_tokens_per_s / self.median_tokens_per_s - 1


def checks_of(
    profile: Profile, windows: Mapping[int, Sequence[MeasuredWindow]]
) -> tuple[Check, ...]:
    """Return the loads of `windows`, each predicted from `profile`.

    Raises:
        ConfigError: The profile does not reach from 1 to the largest of them.
    """
    if not windows:
        return ()
    curve = curve_of_profile(profile)
    return tuple(
        Check(
            concurrency=concurrency,
            predicted_tokens_per_s=output_tokens_per_s(curve, concurrency),
            measured_tokens_per_s=tuple(window.output_tokens_per_s for window in found),
        )
        for concurrency, found in windows.items()
    )
