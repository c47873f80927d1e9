"""Compute the factor from active to loaded joules: the idle energy that a tier's work carries."""

from collections import deque
from dataclasses import dataclass

_BUCKET_S = 60.0
_HORIZON_S = 3600.0


@dataclass(slots=True)
class _Bucket:
    start_s: float
    active_j: float = 0.0
    idle_j: float = 0.0
    is_known: bool = True


class IdleLoad:
    """Hold active and idle joules of one tier over the last hour, in buckets of a minute."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()

    def add(self, at_s: float, *, active_j: float | None = 0.0, idle_j: float | None = 0.0) -> None:
        """Add what was settled for about `at_s`; None marks the minute as not known."""
        if not self._buckets or at_s >= self._buckets[-1].start_s + _BUCKET_S:
            self._buckets.append(_Bucket(at_s - at_s % _BUCKET_S))
            while self._buckets[0].start_s < at_s - _HORIZON_S:
                self._buckets.popleft()
        bucket = self._buckets[-1]
        if active_j is None or idle_j is None:
            bucket.is_known = False
            return
        bucket.active_j += active_j
        bucket.idle_j += idle_j

    def factor(self) -> float | None:
        """Return loaded joules for one active joule, at least 1; None before any work was metered.

        Minutes with unknown joules are left out. Idle time is shared by active energy, so the
        loaded joules of an hour's requests sum to all that the tier used in it.
        """
        known = [bucket for bucket in self._buckets if bucket.is_known]
        active_j = sum(bucket.active_j for bucket in known)
        idle_j = sum(bucket.idle_j for bucket in known)
        return 1 + idle_j / active_j if active_j > 0 else None
