"""Provide a clock that stands still until a test moves it."""


class FakeClock:
    """Act as an `interfaces.Clock` whose two readings move together, by `advance` alone."""

    def __init__(self, *, monotonic_s: float = 1000.0, wall_s: float = 1_700_000_000.0) -> None:
        self._monotonic_s = monotonic_s
        self._wall_s = wall_s

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start."""
        return self._monotonic_s

    def wall_s(self) -> float:
        """Return seconds since the Unix epoch."""
        return self._wall_s

    def advance(self, seconds: float) -> None:
        """Move both readings forward.

        Raises:
            ValueError: `seconds` is negative; a monotonic clock never goes back.
        """
        if seconds < 0:
            raise ValueError(f"a clock cannot go back by {-seconds} s")
        self._monotonic_s += seconds
        self._wall_s += seconds
