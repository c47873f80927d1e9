"""When an engine that failed is started again: after a growing pause, a few times in a row."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class RestartRules:
    """Exponential back-off with a cap, a limit, and forgetting after a healthy time.

    The k-th restart in a row comes `min(backoff_s * 2**(k - 1), backoff_limit_s)` seconds after the
    failure. There is no jitter: engines do not contend for anything but their GPU, which they take
    in turn.

    Attributes:
        limit: Restarts in a row; 0 restarts nothing.
        backoff_s: Seconds before the first.
        backoff_limit_s: Seconds before any at most.
        forget_after_s: Seconds of health after which the next failure counts as the first again.
    """

    limit: int
    backoff_s: float
    backoff_limit_s: float
    forget_after_s: float


class Restarts:
    """Counts the restarts of one engine.

    Attributes:
        in_a_row: Since the engine was last healthy for long.
        total: Ever.
    """

    def __init__(self, rules: RestartRules) -> None:
        self._rules = rules
        self.in_a_row = 0
        self.total = 0

    def pause_s(self, *, healthy_s: float) -> float | None:
        """Counts one more restart; seconds to wait before it, or None where the limit is reached.

        `healthy_s` is how long the engine was healthy before it failed; 0 for a start that failed.
        """
        if healthy_s >= self._rules.forget_after_s:
            self.in_a_row = 0
        if self.in_a_row >= self._rules.limit:
            return None
        self.in_a_row += 1
        self.total += 1
        pause_s = self._rules.backoff_s * 2.0 ** (self.in_a_row - 1)
        return min(pause_s, self._rules.backoff_limit_s)
