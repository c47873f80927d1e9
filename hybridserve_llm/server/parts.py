"""What the routes work with, joined by `build.py` and passed in: there are no globals."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.config.cascade import ServerConfig
from hybridserve_llm.errors import Overloaded
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.server.auth import ApiKeys


class TierHealth(Protocol):
    """How the front end sees whether a tier can answer."""

    @property
    def is_ready(self) -> bool:
        """Whether at least one replica is healthy."""


@dataclass(slots=True)
class InFlight:
    """Requests being served now, and how many may be."""

    limit: int
    count: int = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Counts one request while it is served.

        Raises:
            Overloaded: `limit` requests are being served already.
        """
        if self.count >= self.limit:
            raise Overloaded(f"{self.limit} requests are in flight, which is the limit")
        self.count += 1
        try:
            yield
        finally:
            self.count -= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything a route needs. `tiers` maps tier names, cheapest first, to their health."""

    config: ServerConfig
    router: CascadeRouter
    tiers: Mapping[str, TierHealth]
    clock: Clock
    registry: CollectorRegistry
    api_keys: ApiKeys = field(default_factory=ApiKeys)
    in_flight: InFlight
    started_at_s: int
    """Unix time, shown as `created` of the models."""
