"""The books: who works where and when, what that cost once its time is settled, and the totals.

    begin ── the stint's end ── request_finished      told by `notes.NotedWork`, in batches
                    └── settle (once a second) ──> on_settled(SettledEnergy), and the totals grow

Time is settled when the meters are final for it and every request that ran in it has ended, so that
its tokens are known. A request that runs for longer than `settle_within_s` is not waited for: its
share is estimated, and flagged.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hybridserve_llm.energy.account import Account
from hybridserve_llm.energy.attribution import Booking, Stint
from hybridserve_llm.energy.joules import unknown
from hybridserve_llm.energy.loaded import IdleLoad
from hybridserve_llm.energy.site import Entry, Site
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.values.joules import ComponentEnergy, SettledEnergy

_METER_PATIENCE_S = 10.0
"""A meter that has not been read for so long (its driver hangs) has no answer for that time."""
_STOPPED = "the server stopped before its meters were final"
_TOO_EARLY = "it began before its meters did"
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
class _Open:
    """A request that is not settled yet, its stints, and what they were charged by tier."""

    stints: list[Stint]
    accounts: dict[str, dict[str, Account]]
    tier: str | None = None
    is_finished: bool = False


class EnergyBooks:
    """Charges requests for what their work cost."""

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
        self._began_s = max(site.settled_until_s for site in sites)
        self._sites_of: dict[str, list[Site]] = {}
        self._clock = clock
        self._on_settled = on_settled
        self._settle_within_s = settle_within_s
        self._begun: list[Stint] = []
        self._finished: list[tuple[str, str | None]] = []
        self._open: dict[str, _Open] = {}
        self._loads: dict[str, IdleLoad] = {}
        for site in sites:
            for replica, tier in site.settings.replicas.items():
                mine = self._sites_of.setdefault(replica, [])
                if any(one.component == site.component for one in mine):
                    raise ValueError(f"{replica} is in two sites of component {site.component}")
                mine.append(site)
                self._loads.setdefault(tier, IdleLoad())

        n_components = len(self._components)
        self._wholly_metered = frozenset(
            name for name, mine in self._sites_of.items() if len(mine) == n_components
        )

    def begin(self, stint: Stint) -> None:
        """A replica began to work on a request; who tells it fills in the end of it."""
        self._begun.append(stint)

    def request_finished(self, request_id: str, tier: str | None) -> None:
        """The router is done with a request; `tier` answered, None where none did."""
        self._finished.append((request_id, tier))

    def settle(self) -> None:
        """Settles what can be settled now; call it about once a second.

        O(windows * requests in them): off the path of any request.
        """
        now_s = self._clock.monotonic_s()
        self._take_what_was_told()
        for site in self._sites:
            for entry in site.settle(self._settleable_until_s(site, now_s)):
                self._book(site, entry)
        settled = [name for name, one in self._open.items() if self._is_settled(one, now_s)]
        factors = {tier: load.factor() for tier, load in self._loads.items()}
        for request_id in settled:
            self._on_settled(self._settled(request_id, self._open.pop(request_id), factors))

    def close(self) -> None:
        """Settles for the last time: whatever the meters are not final for is unknown, and told so.

        Totals of joules stay those of the time that was settled.
        """
        self.settle()
        now_s = self._clock.monotonic_s()
        factors = {tier: load.factor() for tier, load in self._loads.items()}
        for request_id, opened in self._open.items():
            for stint in opened.stints:
                stint.end_s = now_s if stint.end_s is None else stint.end_s
                for name in self._components:
                    stint.accounts.setdefault(name, Account()).add(unknown(_STOPPED))
            self._on_settled(self._settled(request_id, opened, factors))
        self._open.clear()

    def _take_what_was_told(self) -> None:
        """Enters what requests only noted, so that they wait for no more than an append."""
        begun, self._begun = self._begun, []
        for stint in begun:
            for site in self._sites_of.get(stint.replica, ()):
                site.add(stint)
            opened = self._open.get(stint.request_id)
            if opened is None:
                self._open[stint.request_id] = _Open([stint], {stint.tier: stint.accounts})
            else:
                opened.stints.append(stint)
                stint.accounts = opened.accounts.setdefault(stint.tier, stint.accounts)
            if stint.start_s < self._began_s:  # only books that took over from others meet one
                for name in self._components:
                    stint.accounts.setdefault(name, Account()).add(unknown(_TOO_EARLY))
        finished, self._finished = self._finished, []
        for request_id, tier in finished:
            opened = self._open.get(request_id)
            if opened is not None:
                opened.tier, opened.is_finished = tier, True

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
        if entry.tier is not None and site.component == self.component:
            load, at_s = self._loads[entry.tier], site.settled_until_s
            if entry.booking is Booking.IDLE:
                load.add(at_s, idle_j=told.energy_j)
            else:
                load.add(at_s, active_j=told.energy_j)

    def _is_settled(self, opened: _Open, now_s: float) -> bool:
        last_end_s = -math.inf
        for stint in opened.stints:
            end_s = stint.end_s
            if end_s is None:
                return False
            for site in self._sites_of.get(stint.replica, ()):
                if site.settled_until_s < end_s:
                    return False
            last_end_s = max(last_end_s, end_s)
        return opened.is_finished or now_s - last_end_s > _FORGOTTEN_S

    def _settled(
        self, request_id: str, opened: _Open, factors: Mapping[str, float | None]
    ) -> SettledEnergy:
        for stint in opened.stints:
            if stint.start_s == stint.end_s or stint.replica not in self._wholly_metered:
                self._charge_no_time(stint)
        by_tier = opened.accounts
        components = {name: _sum(name, by_tier) for name in self._components}
        tiers = {tier: accounts[self.component].energy_j for tier, accounts in by_tier.items()}
        main = components[self.component]
        return SettledEnergy(
            request_id=request_id,
            booking=opened.stints[0].booking.value,
            tier=opened.tier,
            component=self.component,
            active_j=main.energy_j,
            loaded_j=_loaded_j(tiers, factors),
            source=main.source,
            reason=main.reason,
            edge_j=main.edge_j,
            flags=main.flags,
            tiers=tiers,
            components=components,
        )

    def _charge_no_time(self, stint: Stint) -> None:
        """Charges what no window did: a stint that took no time, or what nobody meters there."""
        sites = {site.component: site for site in self._sites_of.get(stint.replica, ())}
        for name in self._components:
            account = stint.accounts.setdefault(name, Account())
            if name not in sites:
                account.add(unknown("nothing was metered"))
            elif stint.start_s == stint.end_s:
                account.add(sites[name].empty_span(stint.start_s))


def _sum(component: str, by_tier: Mapping[str, Mapping[str, Account]]) -> ComponentEnergy:
    """A request's energy of one component over all its tiers."""
    if len(by_tier) == 1:
        (accounts,) = by_tier.values()
        return accounts[component].component()
    whole = Account()
    for accounts in by_tier.values():
        whole.absorb(accounts[component])
    return whole.component()


def _loaded_j(
    tiers: Mapping[str, float | None], factors: Mapping[str, float | None]
) -> float | None:
    parts: list[float] = []
    for tier, active_j in tiers.items():
        factor = factors.get(tier)
        if active_j is None or (factor is None and active_j > 0):
            return None
        parts.append(active_j * (factor or 1.0))
    return math.fsum(parts)
