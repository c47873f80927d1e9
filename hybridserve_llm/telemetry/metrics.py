"""Define the front end's Prometheus metrics: name with unit, bounded labels, one line of help.

Counters and histograms are in `counts.py`, gauges here. Each has a row in `docs/metrics.md`; a test
compares the two.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from prometheus_client import CollectorRegistry, Gauge

from hybridserve_llm.telemetry.counts import (
    NONE,
    CountsCollector,
    JoulesTally,
    KindCounts,
    ResponseCounts,
    TierCounts,
)
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import Attempt, FinishedRequest, Ledger, RequestEnd, RequestKind


class Metrics:
    """Count requests, attempts and joules for Prometheus, as a RecordSink.

    The registry is passed in, so that tests do not share one.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._kinds = {kind: KindCounts() for kind in RequestKind}
        self._tiers = defaultdict[str, TierCounts](TierCounts)
        self.joules = JoulesTally()
        self.responses = ResponseCounts()
        registry.register(CountsCollector(self._kinds, self._tiers, self.joules.tiers))
        registry.register(self.responses)

    def answered(self) -> dict[str, int]:
        """Return how many requests to the cascade each tier has answered, by tier; no zeros.

        Requests to a tier by its own name, and those for calibration, say nothing of shares.
        """
        return {
            tier: n
            for (tier, end), n in self._kinds[RequestKind.CASCADE].requests.items()
            if end is RequestEnd.ANSWERED
        }

    def requests_finished(self, finished: Sequence[FinishedRequest]) -> None:
        """Count requests and their attempts."""
        for one in finished:
            self._count_request(one.ledger, one.latency_s)

    def _count_request(self, ledger: Ledger, latency_s: float) -> None:
        """Count the request under the tier that answered, and its attempts."""
        kind = ledger.kind
        counts = self._kinds[kind]
        ended = ledger.tier or NONE, ledger.end
        counts.requests[ended] = counts.requests.get(ended, 0) + 1
        counts.latency_s.add(latency_s)
        if ledger.uncovered is not None:
            gap = ledger.uncovered.gap
            counts.uncovered[gap] = counts.uncovered.get(gap, 0) + 1
        if ledger.ttft_s is not None:
            counts.ttft_s.add(ledger.ttft_s)
        decided = counts.attempts
        for attempt in ledger.attempts:
            decision = attempt.tier, attempt.decision
            decided[decision] = decided.get(decision, 0) + 1
            if attempt.error is not None:
                failure = attempt.tier, attempt.error
                counts.failures[failure] = counts.failures.get(failure, 0) + 1
            of_tier = self._tiers[attempt.tier]
            self._count_attempt(attempt, of_tier)
            if attempt.confidence is not None and kind is RequestKind.CASCADE:
                of_tier.confidence.add(attempt.confidence)

    @staticmethod
    def _count_attempt(attempt: Attempt, counts: TierCounts) -> None:
        """Count the times and tokens of one attempt; tokens only where the engine reported them."""
        if attempt.latency_s is not None:
            counts.latency_s.add(attempt.latency_s)
        if attempt.ttft_s is not None:
            counts.ttft_s.add(attempt.ttft_s)
        if attempt.prompt_tokens is not None:
            counts.prompt_tokens = (counts.prompt_tokens or 0) + attempt.prompt_tokens
        if attempt.completion_tokens is not None:
            counts.completion_tokens = (counts.completion_tokens or 0) + attempt.completion_tokens

    def request_settled(self, energy: SettledEnergy) -> None:
        """Count the joules of users' requests."""
        self.joules.count(energy)

    def show_state(self, state: str, states: Sequence[str]) -> None:
        """Show which of `states` the cascade is in; it does not change while it serves."""
        gauge = Gauge(
            "hybridserve_cascade_state",
            "1 for the promise that the cascade may make (docs/calibrate.md)",
            ["state"],
            registry=self.registry,
        )
        for name in states:
            gauge.labels(name).set(float(name == state))

    def show_certificate(self, status: str, statuses: Sequence[str]) -> None:
        """Show which of `statuses` the certificate has; it does not change while it serves."""
        gauge = Gauge(
            "hybridserve_certificate_status",
            "1 for the status of the certificate in the cascade that runs",
            ["status"],
            registry=self.registry,
        )
        for name in statuses:
            gauge.labels(name).set(float(name == status))

    def show_cascade(self, last_tier: str, component: str | None) -> None:
        """Show what dashboards need of the cascade; it does not change while it serves.

        `component` is the one that joules of requests are of; None where nothing is metered.
        """
        gauge = Gauge(
            "hybridserve_cascade_info",
            "1; the last tier, and the component that joules of requests are of",
            ["last_tier", "component"],
            registry=self.registry,
        )
        gauge.labels(last_tier, component or NONE).set(1)

    def watch_gauges(
        self,
        in_flight: Callable[[], int],
        healthy_replicas: Mapping[str, Callable[[], int]],
        outstanding: Mapping[str, Callable[[], int]],
    ) -> None:
        """Register gauges that are read when scraped; the last two are by tier."""
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
