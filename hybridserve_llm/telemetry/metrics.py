"""Every Prometheus metric of the front end: name with unit, bounded labels, one line of help.

Each has a row in `docs/metrics.md`; a test compares the two.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hybridserve_llm.records import Attempt, Ledger, SettledEnergy

_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_ENERGY_BUCKETS_J = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


class Metrics:
    """A RecordSink that counts. The registry is passed in, so that tests do not share one.

    Children are kept by their labels, which are few: prometheus_client's own look-up takes longer
    than counting does.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = cache(
            self._counter(
                "requests",
                "Requests that ended, by the tier that answered (none: failed or given up)",
                "tier",
            ).labels
        )
        self._attempts = cache(
            self._counter(
                "attempts", "Attempts that ended, by tier and decision", "tier", "decision"
            ).labels
        )
        self._request_seconds = Histogram(
            "hybridserve_request_latency_seconds",
            "Seconds from a request's arrival to its answer's end",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._attempt_seconds = self._of_tier(
            "hybridserve_attempt_latency_seconds",
            "Seconds of one tier's attempt",
            _LATENCY_BUCKETS_S,
        )
        self._first_token_seconds = self._of_tier(
            "hybridserve_attempt_ttft_seconds",
            "Seconds from asking a tier to its first token, where it was streamed",
            _LATENCY_BUCKETS_S,
        )
        self._confidence = self._of_tier(
            "hybridserve_attempt_confidence_ratio",
            "Confidence in a tier's answers, where it was computed",
            _CONFIDENCE_BUCKETS,
        )
        self._prompt_tokens = cache(
            self._counter("prompt_tokens", "Prompt tokens that engines reported", "tier").labels
        )
        self._completion_tokens = cache(
            self._counter(
                "completion_tokens",
                "Output tokens that engines reported, of rejected answers too",
                "tier",
            ).labels
        )
        self._request_energy = self._of_tier(
            "hybridserve_request_energy_joules",
            "Active joules of a user's request over all its tiers, where they were metered",
            _ENERGY_BUCKETS_J,
        )

    def _counter(self, name: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"hybridserve_{name}", meaning, labels, registry=self.registry)

    def _of_tier(
        self, name: str, meaning: str, buckets: Sequence[float]
    ) -> Callable[[str], Histogram]:
        histogram = Histogram(name, meaning, ["tier"], buckets=buckets, registry=self.registry)
        return cache(histogram.labels)

    def attempt_finished(self, request_id: str, attempt: Attempt) -> None:
        """Counts the attempt; tokens only where the engine reported them."""
        tier = attempt.tier
        self._attempts(tier, attempt.decision.value).inc()
        if attempt.latency_s is not None:
            self._attempt_seconds(tier).observe(attempt.latency_s)
        if attempt.ttft_s is not None:
            self._first_token_seconds(tier).observe(attempt.ttft_s)
        if attempt.confidence is not None:
            self._confidence(tier).observe(attempt.confidence)
        if attempt.prompt_tokens is not None:
            self._prompt_tokens(tier).inc(attempt.prompt_tokens)
        if attempt.completion_tokens is not None:
            self._completion_tokens(tier).inc(attempt.completion_tokens)

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """Counts the request under the tier that answered."""
        self._requests(ledger.tier or "none").inc()
        self._request_seconds.observe(latency_s)

    def request_settled(self, energy: SettledEnergy) -> None:
        """Counts the joules of users' requests; those that nobody knows are no observation."""
        if energy.booking == "user" and energy.active_j is not None:
            self._request_energy(energy.tier or "none").observe(energy.active_j)

    def show_state(self, state: str, states: Sequence[str]) -> None:
        """Says which of `states` the cascade is in; it does not change while it serves."""
        gauge = Gauge(
            "hybridserve_cascade_state",
            "1 for what the cascade may promise (docs/calibrate.md)",
            ["state"],
            registry=self.registry,
        )
        for name in states:
            gauge.labels(name).set(float(name == state))

    def watch_gauges(
        self,
        in_flight: Callable[[], int],
        healthy_replicas: Mapping[str, Callable[[], int]],
        outstanding: Mapping[str, Callable[[], int]],
    ) -> None:
        """Registers gauges that are read when scraped; the last two are by tier."""
        gauge = Gauge(
            "hybridserve_requests_in_flight",
            "Requests being served now",
            registry=self.registry,
        )
        gauge.set_function(in_flight)
        replicas = Gauge(
            "hybridserve_healthy_replicas",
            "Replicas of a tier that answer their health probe",
            ["tier"],
            registry=self.registry,
        )
        for tier, read in healthy_replicas.items():
            replicas.labels(tier).set_function(read)
        waiting = Gauge(
            "hybridserve_outstanding_requests",
            "Requests that a tier's engines were asked and have not answered: working or queued",
            ["tier"],
            registry=self.registry,
        )
        for tier, read in outstanding.items():
            waiting.labels(tier).set_function(read)
