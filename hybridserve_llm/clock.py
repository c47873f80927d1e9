"""Provide the real clock; tests use `hybridserve_llm.testing.FakeClock`."""

import time


class SystemClock:
    """Read the machine's own time, as `interfaces.Clock` asks for it."""

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start; they never go back."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Return seconds since the Unix epoch."""
        return time.time()
