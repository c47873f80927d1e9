"""What the routes work with, joined by `build.py` and passed in: there are no globals."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from prometheus_client import CollectorRegistry

from hybridserve_llm.books.energy_report import EnergyReport
from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.config.cascade import ServerConfig
from hybridserve_llm.errors import Overloaded
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.promise.view import CascadeView
from hybridserve_llm.server.auth import ApiKeys
from hybridserve_llm.telemetry.counts import ResponseCounts
from hybridserve_llm.watch.control import Watch


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
    """Everything a route needs. `tiers` maps tier names, cheapest first, to their health.

    `answered` tells how many requests each tier has answered since the start, by tier, once
    `catch_up` has had those counted that ended just now; `energy` the books, None where nothing is
    metered.
    """

    config: ServerConfig
    router: CascadeRouter
    tiers: Mapping[str, TierHealth]
    clock: Clock
    registry: CollectorRegistry
    api_keys: ApiKeys = field(default_factory=ApiKeys)
    in_flight: InFlight
    started_at_s: int
    """Unix time, shown as `created` of the models."""
    cascade: CascadeView
    watch: Watch | None = None
    energy: Callable[[], EnergyReport] | None = None
    answered: Callable[[], Mapping[str, int]] = dict
    catch_up: Callable[[], None] = lambda: None
    responses: ResponseCounts = field(default_factory=ResponseCounts)


def promise_of(parts: Parts) -> str:
    """In one line, what a client may rely on."""
    view, certificate = parts.cascade, parts.cascade.certificate
    if certificate is None:
        return "uncertified: thresholds are on the raw score, no accuracy is promised"
    if view.standing.state == "certified":
        what = "harm" if certificate.loss == "harm" else "accuracy lost against the last tier"
        return (
            f"certified: {what} <= {certificate.epsilon:g} with probability "
            f"{1 - certificate.delta:g}, {certificate.cost_ratio:.2f}x cheaper"
        )
    more = len(view.standing.reasons) - 1
    why = view.standing.reasons[0] + (f" and {more} more" if more else "")
    if view.standing.state == "uncertified":
        return f"uncertified: {why}"
    return f"everything goes to the last tier: {why}"
