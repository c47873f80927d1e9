"""Learn how long a tier takes to answer, and so how long to wait for it.

A tier below the final one must not use up the time that a tier above needs. Nothing is known of a
tier that has just started, and long prompts take their time. So patience is wide: several times the
longest of the recent answers, and never less than some seconds.
"""

from collections import deque

_REMEMBERED = 200
_LEAST_ATTEMPTS = 20
_SHORTEST_PATIENCE_S = 10.0
_PATIENCE_IN_LONGEST = 5.0


class Pace:
    """Remember the latencies of a tier's recent attempts."""

    __slots__ = ("_latencies_s",)

    def __init__(self) -> None:
        self._latencies_s = deque[float](maxlen=_REMEMBERED)

    def took(self, latency_s: float) -> None:
        """Remember an attempt that was answered, or that was given up after so long.

        The latter make patience grow. Otherwise a tier that became slow would never answer again.
        """
        self._latencies_s.append(latency_s)

    @property
    def patience_s(self) -> float | None:
        """Return the seconds to wait for an answer; None before 20 attempts are known. O(200)."""
        if len(self._latencies_s) < _LEAST_ATTEMPTS:
            return None
        return max(_SHORTEST_PATIENCE_S, _PATIENCE_IN_LONGEST * max(self._latencies_s))
