"""Check if a device's energy counter and its integrated power agree.

They need not: idle GPUs were seen where the counter says 37 W and the power reading 65 W
(ml-energy/zeus, issue 181). Both are shown, the counter is used, and its joules carry a flag.
"""

from dataclasses import dataclass, field

_AGREES = (0.9, 1.1)


@dataclass(slots=True)
class CrossCheck:
    """Compare both over windows of `window_s`; `ratio` is the last one's, counter by power."""

    window_s: float = 60.0
    ratio: float | None = None
    counter_j: float | None = None
    integrated_j: float | None = None
    _elapsed_s: float = field(default=0.0, init=False)
    _counter_j: float = field(default=0.0, init=False)
    _integrated_j: float = field(default=0.0, init=False)

    @property
    def is_inconsistent(self) -> bool:
        """Return True where they differed by more than 10 % in the last whole window."""
        return self.ratio is not None and not _AGREES[0] <= self.ratio <= _AGREES[1]

    def add(self, duration_s: float, *, counter_j: float, integrated_j: float | None) -> None:
        """Add a span for which the counter is known; without a power reading it is left out."""
        if integrated_j is None:
            return
        self._elapsed_s += duration_s
        self._counter_j += counter_j
        self._integrated_j += integrated_j
        if self._elapsed_s < self.window_s:
            return
        self.counter_j, self.integrated_j = self._counter_j, self._integrated_j
        self.ratio = self._counter_j / self._integrated_j if self._integrated_j > 0 else None
        self._elapsed_s = self._counter_j = self._integrated_j = 0.0
