"""The real clock; tests use `hybridserve_llm.testing.FakeClock`."""

import time


class SystemClock:
    """The machine's own time, as `interfaces.Clock` asks for it."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""
        return time.monotonic()

    def wall_s(self) -> float:
        """Seconds since the Unix epoch."""
        return time.time()
