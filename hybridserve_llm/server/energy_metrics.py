"""Joules in Prometheus' words, and as `/v1/cascade` shows them: read from the books when asked."""

from collections.abc import Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridserve_llm.energy.attribution import Booking
from hybridserve_llm.server.metering import Metering

NO_TIER = "none"


class EnergyCollector(Collector):
    """Metrics of the books; a joule that nobody measured has no sample."""

    def __init__(self, metering: Metering) -> None:
        self._metering = metering

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All families, as the books stand now."""
        totals = self._metering.books.totals
        energy = CounterMetricFamily(
            "hybridserve_energy_joules",
            "Settled joules, by whose they are and by the meter they come from",
            labels=["component", "tier", "booking", "source"],
        )
        for key, joules in totals.joules.items():
            labels = [key.component, key.tier or NO_TIER, key.booking.value, key.source]
            energy.add_metric(labels, joules)
        unknown = CounterMetricFamily(
            "hybridserve_energy_unknown_seconds",
            "Seconds of work or idle time for which no meter had joules",
            labels=["component", "tier"],
        )
        for (tier, component), seconds in totals.unknown_s.items():
            unknown.add_metric([component, tier or NO_TIER], seconds)
        cpu = CounterMetricFamily(
            "hybridserve_engine_cpu_seconds",
            "CPU-seconds of a tier's engines, whole process trees",
            labels=["tier"],
        )
        for tier, seconds in self._metering.cpu_seconds().items():
            cpu.add_metric([tier], seconds)
        ratio = GaugeMetricFamily(
            "hybridserve_gpu_counter_to_power_ratio",
            "A GPU's energy counter over its integrated power in the last minute compared",
            labels=["gpu"],
        )
        for gpu in self._metering.gpus:
            if gpu.counter.check.ratio is not None:
                ratio.add_metric([gpu.uuid], gpu.counter.check.ratio)
        yield from (energy, unknown, cpu, ratio)


def energy_json(metering: Metering) -> dict[str, Any]:
    """What `/v1/cascade` says of energy; a tier's joules are null where none were metered."""
    totals = metering.books.totals
    component = metering.books.component
    cpu_seconds = metering.cpu_seconds()
    tiers = {}
    for tier in dict.fromkeys(metering.replicas.values()):
        is_metered = any((key.component, key.tier) == (component, tier) for key in totals.joules)
        booked = {
            f"{booking.value}_j": sum(
                joules
                for key, joules in totals.joules.items()
                if (key.component, key.tier, key.booking) == (component, tier, booking)
            )
            if is_metered
            else None
            for booking in Booking
            if booking not in (Booking.OTHERS, Booking.PARKED)
        }
        tiers[tier] = {
            **booked,
            "loaded_factor": metering.books.loaded_factor(tier),
            "unknown_s": totals.unknown_s.get((tier, component), 0.0),
            "cpu_seconds": cpu_seconds.get(tier),
        }
    parked = [joules for key, joules in totals.joules.items() if key.booking is Booking.PARKED]
    sources = sorted({key.source for key in totals.joules if key.component == component})
    reason = metering.reason if metering.is_null else None
    return {
        "component": component,
        "sources": sources,
        "reason": reason,
        "parked_j": sum(parked) if parked else None,
        "tiers": tiers,
    }
