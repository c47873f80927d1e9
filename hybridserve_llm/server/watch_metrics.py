"""Show the watch as Prometheus metrics, read from its snapshot at each scrape."""

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridserve_llm.watch.snapshot import WatchSnapshot

_STATUSES = ("ok", "warning", "alarm")
_LEVELS = ("normal", "strict", "escalate")
_OUTCOMES = ("compared", "disagreed", "cannot_tell", "failed", "dropped", "stale")


class WatchCollector(Collector):
    """Collect the metrics of one watch."""

    def __init__(self, snapshot: Callable[[], WatchSnapshot]) -> None:
        self._snapshot = snapshot

    def describe(self) -> Iterator[Metric]:
        """Return nothing, so that a registry does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families, as the watch stands now."""
        snapshot = self._snapshot()
        status = GaugeMetricFamily(
            "hybridserve_watch_status", "1 for what the watch reports now", labels=["status"]
        )
        for name in _STATUSES:
            status.add_metric([name], float(snapshot.status == name))
        level = GaugeMetricFamily(
            "hybridserve_watch_level",
            "1 for the policy that the watch lets serve",
            labels=["level"],
        )
        for name in _LEVELS:
            level.add_metric([name], float(snapshot.level == name))
        yield status
        yield level
        yield from _evidence(snapshot)
        yield from _answers(snapshot)


def _evidence(snapshot: WatchSnapshot) -> Iterator[Metric]:
    e_value = GaugeMetricFamily(
        "hybridserve_watch_e_value",
        "Evidence that accepted answers lose more than their budget",
        labels=["monitor"],
    )
    alarm_at = GaugeMetricFamily(
        "hybridserve_watch_alarm_e_value", "Evidence that raises the alarm", labels=["monitor"]
    )
    for monitor in snapshot.monitors:
        e_value.add_metric([monitor.name], monitor.e_value)
        alarm_at.add_metric([monitor.name], monitor.alarm_at)
    yield e_value
    yield alarm_at


def _answers(snapshot: WatchSnapshot) -> Iterator[Metric]:
    accepted = CounterMetricFamily(
        "hybridserve_watch_accepted",
        "Accepted answers below the last tier that the certificate covers",
        labels=["tier"],
    )
    shadowed = CounterMetricFamily(
        "hybridserve_watch_shadowed", "Accepted answers drawn to be compared", labels=["tier"]
    )
    settled = CounterMetricFamily(
        "hybridserve_watch_settled",
        "Drawn answers by what became of them; disagreed ones are compared ones too",
        labels=["tier", "outcome"],
    )
    for tier in snapshot.tiers:
        accepted.add_metric([tier.tier], tier.counts.accepted)
        shadowed.add_metric([tier.tier], tier.counts.shadowed)
        for outcome in _OUTCOMES:
            settled.add_metric([tier.tier, outcome], getattr(tier.counts, outcome))
    yield accepted
    yield shadowed
    yield settled
    tokens = CounterMetricFamily(
        "hybridserve_watch_shadow_tokens",
        "Tokens that shadowing cost the last tier, since the process started",
        labels=["kind"],
    )
    tokens.add_metric(["prompt"], snapshot.shadow_prompt_tokens)
    tokens.add_metric(["completion"], snapshot.shadow_completion_tokens)
    yield tokens
