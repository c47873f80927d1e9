"""Every Prometheus metric of the front end: name with unit, bounded labels, one line of help.

Each has a row in `docs/metrics.md`; a test compares the two.
"""

from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from hybridserve_llm.records import Attempt, Ledger, SettledEnergy

_LATENCY_BUCKETS_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_ENERGY_BUCKETS_J = (0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000, 100_000)


class Metrics:
    """A RecordSink that counts. The registry is passed in, so that tests do not share one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "hybridserve_requests",
            "Requests that ended, by the tier that answered (none: failed or given up)",
            ["tier"],
            registry=registry,
        )
        self._attempts = Counter(
            "hybridserve_attempts",
            "Attempts that ended, by tier and decision",
            ["tier", "decision"],
            registry=registry,
        )
        self._request_seconds = Histogram(
            "hybridserve_request_latency_seconds",
            "Seconds from a request's arrival to its answer's end",
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._attempt_seconds = Histogram(
            "hybridserve_attempt_latency_seconds",
            "Seconds of one tier's attempt",
            ["tier"],
            buckets=_LATENCY_BUCKETS_S,
            registry=registry,
        )
        self._prompt_tokens = Counter(
            "hybridserve_prompt_tokens",
            "Prompt tokens that engines reported",
            ["tier"],
            registry=registry,
        )
        self._completion_tokens = Counter(
            "hybridserve_completion_tokens",
            "Output tokens that engines reported, of rejected answers too",
            ["tier"],
            registry=registry,
        )

        self._request_energy = Histogram(
            "hybridserve_request_energy_joules",
            "Active joules of a user's request over all its tiers, where they were metered",
            ["tier"],
            buckets=_ENERGY_BUCKETS_J,
            registry=registry,
        )

    def attempt_finished(self, request_id: str, attempt: Attempt) -> None:
        """Counts the attempt; tokens only where the engine reported them."""
        self._attempts.labels(attempt.tier, attempt.decision.value).inc()
        if attempt.latency_s is not None:
            self._attempt_seconds.labels(attempt.tier).observe(attempt.latency_s)
        if attempt.prompt_tokens is not None:
            self._prompt_tokens.labels(attempt.tier).inc(attempt.prompt_tokens)
        if attempt.completion_tokens is not None:
            self._completion_tokens.labels(attempt.tier).inc(attempt.completion_tokens)

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """Counts the request under the tier that answered."""
        self._requests.labels(ledger.tier or "none").inc()
        self._request_seconds.observe(latency_s)

    def request_settled(self, energy: SettledEnergy) -> None:
        """Counts the joules of users' requests; those that nobody knows are no observation."""
        if energy.booking == "user" and energy.active_j is not None:
            self._request_energy.labels(energy.tier or "none").observe(energy.active_j)

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
    ) -> None:
        """Registers gauges that are read when scraped: requests in flight, healthy replicas."""
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
