"""The Prometheus metrics of the front end: name with unit, bounded labels, one line of help.

Counters and histograms are in `counts.py`, gauges here. Each has a row in `docs/metrics.md`; a test
compares the two.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge

from hybridserve_llm.records import Attempt, Ledger, SettledEnergy
from hybridserve_llm.telemetry.counts import (
    LATENCY_BUCKETS_S,
    CountsCollector,
    Tally,
    TierCounts,
)

_NO_TIER = "none"


class Metrics:
    """A RecordSink that counts. The registry is passed in, so that tests do not share one."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._tiers = defaultdict[str, TierCounts](TierCounts)
        self._request_latency_s = Tally(LATENCY_BUCKETS_S)
        registry.register(CountsCollector(self._tiers, self._request_latency_s))

    def answered(self) -> dict[str, int]:
        """How many requests each tier has answered, by tier; those that none did are left out."""
        return {
            name: counts.requests
            for name, counts in self._tiers.items()
            if counts.requests and name != _NO_TIER
        }

    def attempt_finished(self, request_id: str, attempt: Attempt) -> None:
        """Counts the attempt; tokens only where the engine reported them."""
        counts, decision = self._tiers[attempt.tier], attempt.decision
        counts.decisions[decision] = counts.decisions.get(decision, 0) + 1
        if attempt.latency_s is not None:
            counts.latency_s.add(attempt.latency_s)
        if attempt.ttft_s is not None:
            counts.ttft_s.add(attempt.ttft_s)
        if attempt.confidence is not None:
            counts.confidence.add(attempt.confidence)
        if attempt.prompt_tokens is not None:
            counts.prompt_tokens = (counts.prompt_tokens or 0) + attempt.prompt_tokens
        if attempt.completion_tokens is not None:
            counts.completion_tokens = (counts.completion_tokens or 0) + attempt.completion_tokens

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """Counts the request under the tier that answered."""
        self._tiers[ledger.tier or _NO_TIER].requests += 1
        self._request_latency_s.add(latency_s)

    def request_settled(self, energy: SettledEnergy) -> None:
        """Counts the joules of users' requests; those that nobody knows are no observation."""
        if energy.booking == "user" and energy.active_j is not None:
            self._tiers[energy.tier or _NO_TIER].energy_j.add(energy.active_j)

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
