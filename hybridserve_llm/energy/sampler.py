"""Read every meter ten times a second, in one thread per node, away from the event loop.

A driver call can hang for seconds, so it must not be made where requests are served. What was read
late is not lost: counters go on counting, and a span is settled only once it was read.
"""

import threading
import time
from collections.abc import Sequence
from typing import Protocol

from hybridserve_llm.interfaces import Clock

_COUNTERS_MOVE_S = 0.25
"""Two moves of a counter at least: the last is the one up to which it is final."""


class Sampled(Protocol):
    """Represent a meter that is read at every turn of the sampler."""

    def sample(self) -> None:
        """Take one reading; raise no error of ours; may wait for a driver."""


class Sampler:
    """Read `meters` every `period_s` from `start` until `stop`."""

    def __init__(self, meters: Sequence[Sampled], *, clock: Clock, period_s: float = 0.1) -> None:
        self._meters = tuple(meters)
        self._clock = clock
        self._period_s = period_s
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, with a first reading of everything at once."""
        self._thread = threading.Thread(target=self._run, name="energy-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End with a last reading and wait for it, for 2 s at most: a driver may hang.

        It is taken when counters, which move ten times a second, have moved once more, so that what
        ended just before is metered.
        """
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2.0)

    def sample(self) -> None:
        """Take one reading of every meter."""
        for meter in self._meters:
            meter.sample()

    def _run(self) -> None:
        due_s = self._clock.monotonic_s()
        while not self._stopping.is_set():
            self.sample()
            due_s += self._period_s
            now_s = self._clock.monotonic_s()
            due_s = max(due_s, now_s)  # turns that a hanging driver missed are not made up for
            self._stopping.wait(due_s - now_s)
        time.sleep(_COUNTERS_MOVE_S)
        self.sample()
