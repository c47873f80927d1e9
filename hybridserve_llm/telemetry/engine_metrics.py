"""Report the launcher's engines to Prometheus; they are read when scraped, so counted only once.

The starter of engines passes its view of them on as `EngineReport`s; nothing here knows a launcher.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridserve_llm.telemetry.counts import counter_of

ENGINE_STATES = ("starting", "healthy", "restarting", "failed")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineReport:
    """Describe one engine as its starter sees it.

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
    """Report state and restarts of every engine that was started from here."""

    def __init__(self, engines: Callable[[], Sequence[EngineReport]]) -> None:
        self._engines = engines

    def describe(self) -> Iterator[Metric]:
        """Return nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """Yield both families, as the engines stand now."""
        state = GaugeMetricFamily(
            "hybridserve_engine_state",
            "1 for the state that the launcher reports of an engine",
            labels=["tier", "replica", "state"],
        )
        engines = self._engines()
        for engine in engines:
            for name in ENGINE_STATES:
                state.add_metric([engine.tier, engine.replica, name], float(engine.state == name))
        yield state
        yield counter_of(
            "hybridserve_engine_restarts",
            "Times that the launcher started a failed engine again",
            ("tier", "replica"),
            (((engine.tier, engine.replica), engine.restarts) for engine in engines),
        )
