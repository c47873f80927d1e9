"""What one replica does at any load: tabulated once by `profiles/queueing.py`, then looked up."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from hybridserve_llm.planner.problem import FloatArray
from hybridserve_llm.profiles.grades import Grade, worst_grade

_LARGEST_UTILISATION = 0.999
_SMALLEST_UTILISATION = 1e-4
_N_RATES = 96

TierTime = Literal["ttft_s", "itl_s", "p95_ttft_s", "p95_itl_s", "p95_latency_s"]
"""A time of a tier's answers that may be bounded; those without p95 are means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaTable:
    """Figures of one replica at rising request rates; between them they are interpolated.

    All arrays, and `grades`, have shape [n_rates]; the first rate is 0, where the engine waits.

    Attributes:
        rate_per_s: Requests per second.
        power_w: Of all its GPUs.
        ttft_s: Mean time to first token.
        itl_s: Mean time between tokens.
        latency_s: Mean time of a request, waiting included.
        p95_ttft_s: Time to first token that 95 % of answers keep; `p95_itl_s` and `p95_latency_s`
            likewise, the former of tokens.
        busy_share: Share of the time in which it works on a request at least.
        max_rate_per_s: What it can carry with nothing to spare.
        idle_w: Of all its GPUs while it waits for work.
        tdp_w: Of all its GPUs at most.
        grades: What the figures are worth, at every rate.
    """

    rate_per_s: FloatArray
    power_w: FloatArray
    ttft_s: FloatArray
    itl_s: FloatArray
    latency_s: FloatArray
    p95_ttft_s: FloatArray
    p95_itl_s: FloatArray
    p95_latency_s: FloatArray
    busy_share: FloatArray
    max_rate_per_s: float
    idle_w: float
    tdp_w: float
    grades: tuple[Grade, ...]

    def grade_at(self, rate_per_s: float) -> Grade:
        """What the figures at this rate are worth: the worse of the two that it lies between."""
        place = int(np.searchsorted(self.rate_per_s, rate_per_s))
        last = len(self.grades) - 1
        return worst_grade(self.grades[min(i, last)] for i in (max(place - 1, 0), place))

    def power_at(self, rate_per_s: FloatArray) -> FloatArray:
        """Watts at the rates given; at most those of the last rate tabulated."""
        return np.interp(rate_per_s, self.rate_per_s, self.power_w)

    def latency_at(self, rate_per_s: FloatArray) -> FloatArray:
        """Seconds a request takes at the rates given; infinite beyond the table."""
        return self._at(rate_per_s, self.latency_s)

    def time_at(self, name: TierTime, rate_per_s: FloatArray) -> FloatArray:
        """The time called `name`, in seconds, at the rates given; infinite beyond the table."""
        return self._at(rate_per_s, self.times_s[name])

    @property
    def times_s(self) -> Mapping[TierTime, FloatArray]:
        """The times that may be bounded, at the rates tabulated."""
        return {
            "ttft_s": self.ttft_s,
            "itl_s": self.itl_s,
            "p95_ttft_s": self.p95_ttft_s,
            "p95_itl_s": self.p95_itl_s,
            "p95_latency_s": self.p95_latency_s,
        }

    def busy_at(self, rate_per_s: FloatArray) -> FloatArray:
        """Share of the time in which it is busy at the rates given."""
        return np.interp(rate_per_s, self.rate_per_s, self.busy_share)

    def _at(self, rate_per_s: FloatArray, times_s: FloatArray) -> FloatArray:
        return np.interp(rate_per_s, self.rate_per_s, times_s, right=np.inf)

    def perturbed(self, *, step_factor: float = 1.0, power_factor: float = 1.0) -> "ReplicaTable":
        """The same replica with all steps `step_factor` times as long.

        Then it is in the same state at 1 / `step_factor` of the rate. `power_factor` multiplies
        what it draws above its idle power, up to TDP.
        """
        above_idle_w = power_factor * (self.power_w - self.idle_w)
        return replace(
            self,
            rate_per_s=self.rate_per_s / step_factor,
            power_w=np.minimum(self.idle_w + above_idle_w, self.tdp_w),
            latency_s=self.latency_s * step_factor,
            ttft_s=self.ttft_s * step_factor,
            itl_s=self.itl_s * step_factor,
            p95_ttft_s=self.p95_ttft_s * step_factor,
            p95_itl_s=self.p95_itl_s * step_factor,
            p95_latency_s=self.p95_latency_s * step_factor,
            max_rate_per_s=self.max_rate_per_s / step_factor,
        )


def rates_to_tabulate(max_rate_per_s: float) -> FloatArray:
    """0, then rates by equal factors up to just below `max_rate_per_s`."""
    rising = np.geomspace(_SMALLEST_UTILISATION, _LARGEST_UTILISATION, _N_RATES)
    return np.concatenate([[0.0], max_rate_per_s * rising])
