"""What is counted of requests and attempts, and how Prometheus is told of it when it scrapes.

prometheus_client's own counters take a lock and check their arguments at every step: 7 us a request
of two attempts, where these take 2. They belong to one thread, that of the event loop: requests are
counted there, and `/metrics` is answered there.
"""

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import accumulate

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_ENERGY_BUCKETS_J = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


class Tally:
    """A histogram: how many values were at most each bound, and their sum."""

    __slots__ = ("_bounds", "_counts", "sum")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        """`bounds` rise; values above the last are counted too."""
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        """Counts one value; O(log of the bounds)."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.sum += value

    @property
    def buckets(self) -> list[tuple[str, float]]:
        """Upper bounds as Prometheus writes them, each with the number of values up to it."""
        names = [*(str(float(bound)) for bound in self._bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))

    @property
    def is_empty(self) -> bool:
        """Whether nothing was counted."""
        return not any(self._counts)


class TierCounts:
    """Everything that is counted of one tier; tokens are None until an engine reports some."""

    __slots__ = (
        "completion_tokens",
        "confidence",
        "decisions",
        "energy_j",
        "latency_s",
        "prompt_tokens",
        "requests",
        "ttft_s",
    )

    def __init__(self) -> None:
        self.requests = 0
        self.decisions: dict[str, int] = {}
        self.latency_s = Tally(LATENCY_BUCKETS_S)
        self.ttft_s = Tally(LATENCY_BUCKETS_S)
        self.confidence = Tally(_CONFIDENCE_BUCKETS)
        self.energy_j = Tally(_ENERGY_BUCKETS_J)
        self.prompt_tokens: int | None = None
        self.completion_tokens: int | None = None


class CountsCollector(Collector):
    """The counts in Prometheus' words; what was never counted has no sample."""

    def __init__(self, tiers: Mapping[str, TierCounts], request_latency_s: Tally) -> None:
        self._tiers = tiers
        self._request_latency_s = request_latency_s

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All families, as they stand now."""
        yield from self._counters()
        whole = HistogramMetricFamily(
            "hybridserve_request_latency_seconds",
            "Seconds from a request's arrival to its answer's end",
        )
        whole.add_metric([], self._request_latency_s.buckets, self._request_latency_s.sum)
        yield whole
        for name, (field, meaning) in _HISTOGRAMS.items():
            family = HistogramMetricFamily(f"hybridserve_{name}", meaning, labels=["tier"])
            for tier, counts in self._tiers.items():
                tally: Tally = getattr(counts, field)
                if not tally.is_empty:
                    family.add_metric([tier], tally.buckets, tally.sum)
            yield family

    def _counters(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "hybridserve_requests",
            "Requests that ended, by the tier that answered (none: failed or given up)",
            labels=["tier"],
        )
        attempts = CounterMetricFamily(
            "hybridserve_attempts",
            "Attempts that ended, by tier and decision",
            labels=["tier", "decision"],
        )
        prompt = CounterMetricFamily(
            "hybridserve_prompt_tokens", "Prompt tokens that engines reported", labels=["tier"]
        )
        completion = CounterMetricFamily(
            "hybridserve_completion_tokens",
            "Output tokens that engines reported, of rejected answers too",
            labels=["tier"],
        )
        for tier, counts in self._tiers.items():
            if counts.requests:
                requests.add_metric([tier], counts.requests)
            for decision, n in counts.decisions.items():
                attempts.add_metric([tier, decision], n)
            if counts.prompt_tokens is not None:
                prompt.add_metric([tier], counts.prompt_tokens)
            if counts.completion_tokens is not None:
                completion.add_metric([tier], counts.completion_tokens)
        yield from (requests, attempts, prompt, completion)


_HISTOGRAMS = {
    "attempt_latency_seconds": ("latency_s", "Seconds of one tier's attempt"),
    "attempt_ttft_seconds": (
        "ttft_s",
        "Seconds from asking a tier to its first token, where it was streamed",
    ),
    "attempt_confidence_ratio": (
        "confidence",
        "Confidence in a tier's answers, where it was computed",
    ),
    "request_energy_joules": (
        "energy_j",
        "Active joules of a user's request over all its tiers, where they were metered",
    ),
}
