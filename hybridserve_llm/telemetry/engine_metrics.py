"""The launcher's engines in Prometheus' words: read when scraped, so nothing is counted twice.

Who starts engines hands its view of them down as `EngineReport`s; nothing here knows a launcher.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

ENGINE_STATES = ("starting", "healthy", "restarting", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """One engine as who started it sees it.

    Attributes:
        tier: The tier that it is a replica of.
        replica: Its index in the tier, from "0".
        state: One of `ENGINE_STATES`; `failed` is final.
        restarts: Times it was started again since the launch.
    """

    tier: str
    replica: str
    state: str
    restarts: int


class EngineCollector(Collector):
    """State and restarts of every engine that was started from here."""

    def __init__(self, engines: Callable[[], Sequence[EngineReport]]) -> None:
        self._engines = engines

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Both families, as the engines stand now."""
        state = GaugeMetricFamily(
            "hybridserve_engine_state",
            "1 for what the launcher says of an engine",
            labels=["tier", "replica", "state"],
        )
        restarts = CounterMetricFamily(
            "hybridserve_engine_restarts",
            "Times that the launcher started a failed engine again",
            labels=["tier", "replica"],
        )
        for engine in self._engines():
            for name in ENGINE_STATES:
                state.add_metric([engine.tier, engine.replica, name], float(engine.state == name))
            restarts.add_metric([engine.tier, engine.replica], engine.restarts)
        yield state
        yield restarts
