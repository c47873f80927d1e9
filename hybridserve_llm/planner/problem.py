"""Describe the choice of a planner in numbers: columns, and what each serves, costs and takes.

A column is one way to serve one tier, or several tiers that share GPUs. Exactly one column serves
each tier, and together they keep the budgets: a set partitioning problem with budget rows.
`columns.py` knows what the numbers stand for, `milp.py` finds the best choice.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
IntArray: TypeAlias = npt.NDArray[np.int64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

SAME_POWER = 1e-6
"""Watts that differ by less than this share count as equal, and the next wish decides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """Hold the columns and the bounds on those that are chosen.

    Wishes are lexicographic: least power, then fewest GPUs, then least latency, then the columns
    that come first.

    Attributes:
        n_tiers: Tiers to serve.
        serves: Bit i is set where a column serves tier i, shape [n]; never 0.
        power_w: Watts of a column beyond those of its GPUs parked, shape [n].
        gpus: GPUs of a column, shape [n].
        latency_s: Seconds that a column adds to the mean latency of a request, shape [n].
        uses: Amount that a column takes of each budget, shape [n, n_budgets].
        budgets: Amount of each budget, shape [n_budgets].
        latency_limit_s: Bound on the sum of `latency_s`; None for none.
    """

    n_tiers: int
    serves: IntArray
    power_w: FloatArray
    gpus: IntArray
    latency_s: FloatArray
    uses: IntArray
    budgets: IntArray
    latency_limit_s: float | None = None

    @property
    def n_columns(self) -> int:
        """Return the number of columns."""
        return len(self.serves)

    def subset(self, kept: IntArray) -> "Problem":
        """Return the same problem with only the columns `kept`, in that order."""
        return Problem(
            n_tiers=self.n_tiers,
            serves=self.serves[kept],
            power_w=self.power_w[kept],
            gpus=self.gpus[kept],
            latency_s=self.latency_s[kept],
            uses=self.uses[kept],
            budgets=self.budgets,
            latency_limit_s=self.latency_limit_s,
        )

    def power_of(self, chosen: tuple[int, ...]) -> float:
        """Return the watts of the `chosen` columns together."""
        return float(self.power_w[list(chosen)].sum())

    def is_kept_by(self, chosen: tuple[int, ...]) -> bool:
        """Return True if the `chosen` columns serve every tier once and keep all bounds."""
        rows = list(chosen)
        n_bits = int(np.bitwise_count(self.serves[rows]).sum())
        all_tiers = int(np.bitwise_or.reduce(self.serves[rows], initial=0))
        slow = self.latency_limit_s is not None and self.latency_s[
            rows
        ].sum() > self.latency_limit_s * (1 + 1e-9)
        return (
            n_bits == self.n_tiers
            and all_tiers == (1 << self.n_tiers) - 1
            and bool((self.uses[rows].sum(axis=0) <= self.budgets).all())
            and not slow
        )
