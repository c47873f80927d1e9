"""One component of one place: devices that are metered together, and the replicas that use them.

site "gpu of large/0 over GPU-1 and GPU-2"    exclusive: all of it is that replica's
site "gpu of small/0, medium/0 over GPU-0"    shared: by measured activity, or allocated
site "cpu of this node"                       shared, with the rest of the machine as others
site "gpu of nobody over GPU-7"               parked: no replica, all of it is the pool's
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from hybridserve_llm.energy.account import Account
from hybridserve_llm.energy.attribution import (
    Booking,
    Slice,
    Stint,
    Sweep,
    TokenWeights,
    busy_edges,
    shares,
    slices,
    split,
    windows,
)
from hybridserve_llm.interfaces import EnergyMeter
from hybridserve_llm.values.joules import Activity, Flag, Joules

ActivityShares = Callable[[float, float], Mapping[str, float] | None]
"""Measured activity of replicas in a span, in any unit; None where it was not measured.

The key `OTHERS` stands for whatever else used the devices.
"""
OTHERS = "others"
_NOBODY = "nobody"
_NO_FLAGS: frozenset[Flag] = frozenset()
_ESTIMATED = frozenset({Flag.ESTIMATED})
_EACH_TOKEN_ONE = TokenWeights()
_NOTHING = (0.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """What a site is made of.

    Attributes:
        component: `gpu`, `cpu` or `dram`.
        replicas: The replicas on it (`tier/number`), each with its tier.
        activity: What a shared site is split by.
        is_activity_late: Activity comes in samples longer than a window, as a GPU's do: what is
            seen of a replica without work was before or after, and is its who works in the window.
        weights: What tokens count, by tier; 1 each where a tier is not named.
    """

    component: str
    replicas: Mapping[str, str]
    activity: ActivityShares | None = None
    is_activity_late: bool = False
    weights: Mapping[str, TokenWeights]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A part of one window: a tier's work of one kind, or nobody's (idle, others)."""

    tier: str | None
    booking: Booking
    seconds: float
    joules: Joules


class Site:
    """Settles its time from the past on, window by window, each exactly once."""

    def __init__(self, settings: SiteSettings, meter: EnergyMeter, *, start_s: float) -> None:
        self.settings = settings
        self.settled_until_s = start_s
        self._meter = meter
        self._stints: list[Stint] = []

    @property
    def component(self) -> str:
        """What it meters."""
        return self.settings.component

    @property
    def known_until_s(self) -> float:
        """Until when its meter is final."""
        return self._meter.known_until_s

    @property
    def oldest_running_s(self) -> float | None:
        """When the oldest stint that still runs began."""
        running = [stint.start_s for stint in self._stints if stint.end_s is None]
        return min(running, default=None)

    def add(self, stint: Stint) -> None:
        """A stint began on one of its replicas."""
        self._stints.append(stint)

    def empty_span(self, at_s: float) -> Joules:
        """What no time at all costs: nothing where the meter measures, else unknown."""
        return self._meter.between(at_s, at_s, Activity(running=0.0))

    def settle(self, until_s: float) -> list[Entry]:
        """Charges every stint for its part of the time that was not settled yet, up to `until_s`.

        What it gives are the sums by tier and booking, idle time included: their joules sum to the
        meter's. O(windows * stints that run at a time).
        """
        if until_s <= self.settled_until_s:
            return []
        by_replica: dict[str, list[Stint]] = {name: [] for name in self.settings.replicas}
        for stint in self._stints:
            by_replica[stint.replica].append(stint)
        edges = [edge for stints in by_replica.values() for edge in busy_edges(stints)]
        entries: list[Entry] = []
        sweeps = {name: Sweep(stints) for name, stints in by_replica.items()}
        for start_s, end_s in windows(self.settled_until_s, until_s, edges):
            present = {
                name: slices(sweep.within(start_s, end_s), start_s, end_s)
                for name, sweep in sweeps.items()
            }
            entries += self._settle_window(start_s, end_s, present)
        self.settled_until_s = until_s
        self._stints = [one for one in self._stints if one.end_s is None or one.end_s > until_s]
        return entries

    def _settle_window(
        self, start_s: float, end_s: float, present: Mapping[str, Sequence[Slice]]
    ) -> list[Entry]:
        everyone = [one for found in present.values() for one in found]
        whole = self._meter.between(start_s, end_s, _activity(everyone, end_s - start_s))
        parts = self._replica_parts(start_s, end_s, present)
        flags = _NO_FLAGS if parts.is_measured else frozenset({Flag.ALLOCATED})
        entries: list[Entry] = []
        amounts = split(1.0, list(parts.values.values()))
        for name, part in zip(parts.values, amounts, strict=True):
            own = _part(whole, part, flags)
            entries += self._charge(name, own, present.get(name, ()), end_s - start_s)
        return entries

    def _replica_parts(
        self, start_s: float, end_s: float, present: Mapping[str, Sequence[Slice]]
    ) -> "_Parts":
        """How the replicas share a window: by activity, else equally among those that are busy."""
        if not present:
            return _Parts(values={_NOBODY: 1.0}, is_measured=True)
        if len(present) == 1 and self.settings.activity is None:
            return _Parts(values=dict.fromkeys(present, 1.0), is_measured=True)
        measured = self.settings.activity(start_s, end_s) if self.settings.activity else None
        if measured is not None and self.settings.is_activity_late:
            measured = _of_those_that_work(measured, present)
        if measured is not None and sum(measured.values()) > 0:
            values = {**dict.fromkeys(present, 0.0), **measured}
            return _Parts(values=values, is_measured=True)
        busy = [name for name, stints in present.items() if stints] or list(present)
        return _Parts(values=dict.fromkeys(busy, 1.0), is_measured=False)

    def _charge(
        self, name: str, own: Joules, present: Sequence[Slice], length_s: float
    ) -> list[Entry]:
        """Charges what ran on one replica in a window; without work it was idle, or others'."""
        tier = self.settings.replicas.get(name)
        if tier is None or not present:
            booking = Booking.IDLE
            if tier is None:
                booking = Booking.PARKED if name == _NOBODY else Booking.OTHERS
            return [Entry(tier=tier, booking=booking, seconds=length_s, joules=own)]
        component = self.settings.component
        weights = self.settings.weights.get(tier, _EACH_TOKEN_ONE)
        sums: dict[Booking, tuple[float, float]] = {}  # seconds and part
        for one, part in zip(present, shares(present, weights=weights), strict=True):
            stint, ran_s, tokens = one
            account = stint.accounts.get(component)
            if account is None:
                account = stint.accounts[component] = Account()
            account.add(own, part, _ESTIMATED if tokens is None else _NO_FLAGS)
            seconds, so_far = sums.get(stint.booking, _NOTHING)
            sums[stint.booking] = seconds + ran_s, so_far + part
        return [
            Entry(tier=tier, booking=booking, seconds=seconds, joules=_part(own, part, _NO_FLAGS))
            for booking, (seconds, part) in sums.items()
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    values: Mapping[str, float]
    is_measured: bool


def _of_those_that_work(
    measured: Mapping[str, float], present: Mapping[str, Sequence[Slice]]
) -> Mapping[str, float] | None:
    """Activity without that of replicas that have no work, where any has; None if that is all."""
    busy = {name: measured.get(name, 0.0) for name, stints in present.items() if stints}
    if not busy:
        return measured
    return {**busy, OTHERS: measured.get(OTHERS, 0.0)} if any(busy.values()) else None


def _part(whole: Joules, part: float, flags: frozenset[Flag]) -> Joules:
    """A part of a window's joules; its edges are as uncertain in proportion."""
    if whole.energy_j is None:
        return replace(whole, flags=whole.flags | flags)
    return Joules(  # written out: `replace` takes five times as long, and every window comes here
        energy_j=whole.energy_j * part,
        source=whole.source,
        reason=whole.reason,
        edge_j=whole.edge_j * part,
        grade=whole.grade,
        flags=whole.flags | flags if flags else whole.flags,
    )


def _activity(present: Sequence[Slice], length_s: float) -> Activity:
    """What all replicas of the site did in a window; tokens None where a stint's are not known."""
    running = sum(one.seconds for one in present) / length_s
    known = [one.tokens for one in present if one.tokens is not None]
    if len(known) < len(present):
        return Activity(running=running)
    return Activity(
        running=running,
        prompt_tokens_per_s=sum(prompt for prompt, _ in known) / length_s,
        output_tokens_per_s=sum(output for _, output in known) / length_s,
    )
