"""The books as they stand at one moment, in plain values: to be shown, and to be sent."""

from collections.abc import Mapping
from dataclasses import dataclass

from hybridserve_llm.books.metering import Metering
from hybridserve_llm.energy.attribution import Booking


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """Settled joules; `tier` is None for what no tier used."""

    component: str
    tier: str | None
    booking: Booking
    source: str
    energy_j: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Unmetered:
    """Seconds of work or idle time for which no meter had joules."""

    component: str
    tier: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyReport:
    """What the books hold.

    Attributes:
        component: What joules of requests are of.
        reason: Why ledgers hold no joules.
        is_null: Some tier's joules are null for as long as it runs, as nothing here can meter it.
        tiers: All tiers, cheapest first.
        loaded_factors: Loaded joules for one active joule, by tier; None before any was metered.
        cpu_s: CPU-seconds of engines since the front end started, by tier.
        gpu_ratios: Counter over integrated power in the last minute compared, by GPU.
    """

    component: str
    reason: str
    is_null: bool
    tiers: tuple[str, ...]
    booked: tuple[Booked, ...]
    unmetered: tuple[Unmetered, ...]
    loaded_factors: Mapping[str, float | None]
    cpu_s: Mapping[str, float]
    gpu_ratios: Mapping[str, float]


def report_of(metering: Metering) -> EnergyReport:
    """As the books stand now."""
    books = metering.books
    tiers = tuple(dict.fromkeys(metering.replicas.values()))
    ratios = {gpu.uuid: gpu.counter.check.ratio for gpu in metering.gpus}
    return EnergyReport(
        component=books.component,
        reason=metering.reason,
        is_null=metering.is_null,
        tiers=tiers,
        booked=tuple(
            Booked(
                component=key.component,
                tier=key.tier,
                booking=key.booking,
                source=key.source,
                energy_j=energy_j,
            )
            for key, energy_j in books.totals.joules.items()
        ),
        unmetered=tuple(
            Unmetered(component=component, tier=tier, seconds=seconds)
            for (tier, component), seconds in books.totals.unknown_s.items()
        ),
        loaded_factors={tier: books.loaded_factor(tier) for tier in tiers},
        cpu_s=metering.cpu_seconds(),
        gpu_ratios={uuid: ratio for uuid, ratio in ratios.items() if ratio is not None},
    )
