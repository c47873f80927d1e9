"""The books: who works where and when, what that cost once its time is settled, and the totals.

    began ── ended ── request_finished         told by replicas and router, in the event loop; O(1)
               └── settle (once a second) ──> on_settled(SettledEnergy), and the totals grow

Time is settled when the meters are final for it and every request that ran in it has ended, so that
its tokens are known. A request that runs for longer than `settle_within_s` is not waited for: its
share is estimated, and flagged.
"""

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hybridserve_llm.energy.account import Account
from hybridserve_llm.energy.attribution import Booking, Stint
from hybridserve_llm.energy.joules import total
from hybridserve_llm.energy.loaded import IdleLoad
from hybridserve_llm.energy.site import Entry, Site
from hybridserve_llm.interfaces import Clock, WorkEnd
from hybridserve_llm.records import ComponentEnergy, GenerateRequest, Joules, SettledEnergy, Usage

_METER_PATIENCE_S = 10.0
"""A meter that has not been read for so long (its driver hangs) has no answer for that time."""
_FORGOTTEN_S = 3600.0
"""A request whose end nobody told for so long is settled all the same: nothing piles up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TotalKey:
    """What joules are added up by; `tier` is None for what no tier used."""

    component: str
    tier: str | None
    booking: Booking
    source: str


@dataclass(slots=True, kw_only=True)
class Totals:
    """Everything settled so far.

    `joules` hold what is known; `unknown_s` the seconds of replicas for which nothing is, by tier
    and component.
    """

    joules: dict[TotalKey, float] = field(default_factory=dict)
    unknown_s: dict[tuple[str | None, str], float] = field(default_factory=dict)


@dataclass(slots=True)
class _Visit:
    """One stint and what each of its sites has charged for it so far."""

    stint: Stint
    sites: tuple[Site, ...]
    accounts: dict[str, Account]


@dataclass(slots=True)
class _Open:
    """A request that is not settled yet."""

    request_id: str
    visits: list[_Visit] = field(default_factory=list)
    tier: str | None = None
    is_finished: bool = False


class EnergyBooks:
    """An `interfaces.WorkObserver` that charges requests for what their work cost."""

    def __init__(
        self,
        sites: Sequence[Site],
        *,
        clock: Clock,
        on_settled: Callable[[SettledEnergy], None],
        settle_within_s: float = 120.0,
    ) -> None:
        """`sites` of one component must not share a replica; their first component is the main one.

        Raises:
            ValueError: There is no site, or two of one component share a replica.
        """
        if not sites:
            raise ValueError("the books need at least one site")
        self.totals = Totals()
        self.component = sites[0].component
        self._components = tuple(dict.fromkeys(site.component for site in sites))
        self._sites = tuple(sites)
        self._sites_of: dict[str, list[Site]] = {}
        self._clock = clock
        self._on_settled = on_settled
        self._settle_within_s = settle_within_s
        self._open: dict[str, _Open] = {}
        self._visits: dict[Stint, _Visit] = {}
        self._loads: dict[str, IdleLoad] = {}
        for site in sites:
            for replica, tier in site.settings.replicas.items():
                mine = self._sites_of.setdefault(replica, [])
                if any(one.component == site.component for one in mine):
                    raise ValueError(f"{replica} is in two sites of component {site.component}")
                mine.append(site)
                self._loads.setdefault(tier, IdleLoad())

    def began(self, request: GenerateRequest, tier: str, replica: str) -> Stint:
        """A replica begins to work on a request."""
        stint = Stint(
            request_id=request.request_id,
            tier=tier,
            replica=replica,
            booking=_booking_of(request),
            start_s=self._clock.monotonic_s(),
        )
        sites = tuple(self._sites_of.get(replica, ()))
        visit = _Visit(stint, sites, {site.component: Account() for site in sites})
        for site in sites:
            site.add(stint)
        self._visits[stint] = visit
        self._open.setdefault(stint.request_id, _Open(stint.request_id)).visits.append(visit)
        return stint

    def ended(self, stint: Stint, usage: Usage, first_token_s: float | None) -> None:
        """The work ended, whatever came of it; `usage` is what the engine told of it."""
        if usage.prompt_tokens is not None:
            stint.prompt_tokens = max(0, usage.prompt_tokens - (usage.cached_tokens or 0))
        stint.output_tokens = usage.completion_tokens
        stint.first_token_s = first_token_s
        stint.end_s = self._clock.monotonic_s()
        if (
            stint.booking is Booking.SHADOW
        ):  # the router knows nothing of it, so nobody else ends it
            self.request_finished(stint.request_id, stint.tier)

    def observe(self, request: GenerateRequest, tier: str, replica: str) -> WorkEnd:
        """As `began`; what it gives is called at the end, in place of `ended`."""
        return functools.partial(self.ended, self.began(request, tier, replica))

    def request_finished(self, request_id: str, tier: str | None) -> None:
        """The router is done with a request; `tier` answered, None where none did."""
        opened = self._open.get(request_id)
        if opened is not None:
            opened.tier, opened.is_finished = tier, True

    def settle(self) -> None:
        """Settles what can be settled now; call it about once a second.

        O(windows * requests in them): off the path of any request.
        """
        now_s = self._clock.monotonic_s()
        for site in self._sites:
            for entry in site.settle(self._settleable_until_s(site, now_s)):
                self._book(site, entry)
        for opened in [one for one in self._open.values() if self._is_settled(one, now_s)]:
            del self._open[opened.request_id]
            settled = self._settled(opened)
            for visit in opened.visits:
                del self._visits[visit.stint]
            self._on_settled(settled)

    def loaded_factor(self, tier: str) -> float | None:
        """Loaded joules for one active joule of the tier; None before any was metered."""
        return self._loads[tier].factor()

    def _settleable_until_s(self, site: Site, now_s: float) -> float:
        metered_s = max(min(site.known_until_s, now_s), now_s - _METER_PATIENCE_S)
        oldest_s = site.oldest_running_s
        if oldest_s is None:
            return metered_s
        return min(metered_s, max(oldest_s, now_s - self._settle_within_s))

    def _book(self, site: Site, entry: Entry) -> None:
        told = entry.joules
        if told.energy_j is None:
            place = entry.tier, site.component
            unknown_s = self.totals.unknown_s
            unknown_s[place] = unknown_s.get(place, 0.0) + entry.seconds
        else:
            key = TotalKey(
                component=site.component,
                tier=entry.tier,
                booking=entry.booking,
                source=told.label,
            )
            joules = self.totals.joules
            joules[key] = joules.get(key, 0.0) + told.energy_j
        if entry.stint is not None:
            self._visits[entry.stint].accounts[site.component].add(told)
        if entry.tier is not None and site.component == self.component:
            load, at_s = self._loads[entry.tier], site.settled_until_s
            if entry.booking is Booking.IDLE:
                load.add(at_s, idle_j=told.energy_j)
            else:
                load.add(at_s, active_j=told.energy_j)

    def _is_settled(self, opened: _Open, now_s: float) -> bool:
        ends_s = [visit.stint.end_s for visit in opened.visits]
        known_ends_s = [end_s for end_s in ends_s if end_s is not None]
        if len(known_ends_s) < len(ends_s):
            return False
        is_over = opened.is_finished or now_s - max(known_ends_s) > _FORGOTTEN_S
        return is_over and all(
            site.settled_until_s >= end_s
            for visit, end_s in zip(opened.visits, known_ends_s, strict=True)
            for site in visit.sites
        )

    def _settled(self, opened: _Open) -> SettledEnergy:
        components = {
            name: _component(total([_charged(visit, name) for visit in opened.visits]))
            for name in self._components
        }
        by_tier: dict[str, list[Joules]] = {}
        for visit in opened.visits:
            charged = _charged(visit, self.component)
            by_tier.setdefault(visit.stint.tier, []).append(charged)
        tiers = {tier: total(charges).energy_j for tier, charges in by_tier.items()}
        main = components[self.component]
        return SettledEnergy(
            request_id=opened.request_id,
            booking=opened.visits[0].stint.booking.value,
            tier=opened.tier,
            component=self.component,
            active_j=main.energy_j,
            loaded_j=self._loaded_j(tiers),
            source=main.source,
            reason=main.reason,
            edge_j=main.edge_j,
            flags=main.flags,
            tiers=tiers,
            components=components,
        )

    def _loaded_j(self, tiers: Mapping[str, float | None]) -> float | None:
        parts: list[float] = []
        for tier, active_j in tiers.items():
            factor = self._loads[tier].factor() if tier in self._loads else None
            if active_j is None or (factor is None and active_j > 0):
                return None
            parts.append(active_j * (factor or 1.0))
        return math.fsum(parts)


def _charged(visit: _Visit, component: str) -> Joules:
    """What one site charged for a visit; one that took no time cost what no time does."""
    account = visit.accounts.get(component)
    if account is None:
        return total(())
    told, end_s = account.joules(), visit.stint.end_s
    if account.is_empty and end_s is not None:
        (site,) = (site for site in visit.sites if site.component == component)
        return site.empty_span(end_s)
    return told


def _component(told: Joules) -> ComponentEnergy:
    return ComponentEnergy(
        energy_j=told.energy_j,
        source=told.label,
        reason=told.reason,
        edge_j=None if told.energy_j is None else told.edge_j,
        flags=tuple(sorted(told.flags)),
    )


def _booking_of(request: GenerateRequest) -> Booking:
    if request.is_shadow:
        return Booking.SHADOW
    return Booking.CALIBRATION if request.assess else Booking.USER
