"""Joules in Prometheus' words, and as `/v1/cascade` shows them: read from the books when asked."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hybridserve_llm.books.energy_report import EnergyReport
from hybridserve_llm.energy.attribution import Booking

NO_TIER = "none"


class EnergyCollector(Collector):
    """Metrics of the books; a joule that nobody measured has no sample."""

    def __init__(self, read: Callable[[], EnergyReport]) -> None:
        self._read = read

    def describe(self) -> Iterator[Metric]:
        """Nothing: a registry then does not collect when this is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        """All families, as the books stand now."""
        report = self._read()
        energy = CounterMetricFamily(
            "hybridserve_energy_joules",
            "Settled joules, by whose they are and by the meter they come from",
            labels=["component", "tier", "booking", "source"],
        )
        for one in report.booked:
            labels = [one.component, one.tier or NO_TIER, one.booking.value, one.source]
            energy.add_metric(labels, one.energy_j)
        unknown = CounterMetricFamily(
            "hybridserve_energy_unknown_seconds",
            "Seconds of work or idle time for which no meter had joules",
            labels=["component", "tier"],
        )
        for span in report.unmetered:
            unknown.add_metric([span.component, span.tier or NO_TIER], span.seconds)
        cpu = CounterMetricFamily(
            "hybridserve_engine_cpu_seconds",
            "CPU-seconds of a tier's engines, whole process trees",
            labels=["tier"],
        )
        for tier, seconds in report.cpu_s.items():
            cpu.add_metric([tier], seconds)
        ratios = GaugeMetricFamily(
            "hybridserve_gpu_counter_to_power_ratio",
            "A GPU's energy counter over its integrated power in the last minute compared",
            labels=["gpu"],
        )
        for uuid, ratio in report.gpu_ratios.items():
            ratios.add_metric([uuid], ratio)
        yield from (energy, unknown, cpu, ratios)


def energy_json(report: EnergyReport) -> dict[str, Any]:
    """What `/v1/cascade` says of energy; a tier's joules are null where none were metered."""
    parked = [one.energy_j for one in report.booked if one.booking is Booking.PARKED]
    main = [one for one in report.booked if one.component == report.component]
    return {
        "component": report.component,
        "sources": sorted({one.source for one in main}),
        "reason": report.reason if report.is_null else None,
        "parked_j": math.fsum(parked) if parked else None,
        "tiers": {tier: _tier_json(report, tier) for tier in report.tiers},
    }


def _tier_json(report: EnergyReport, tier: str) -> dict[str, Any]:
    main = report.component
    own = [one for one in report.booked if (one.component, one.tier) == (main, tier)]
    booked = {
        f"{booking.value}_j": math.fsum(one.energy_j for one in own if one.booking is booking)
        if own
        else None
        for booking in Booking
        if booking not in (Booking.OTHERS, Booking.PARKED)
    }
    unmetered_s = [
        one.seconds for one in report.unmetered if (one.component, one.tier) == (main, tier)
    ]
    return {
        **booked,
        "loaded_factor": report.loaded_factors[tier],
        "unknown_s": math.fsum(unmetered_s),
        "cpu_seconds": report.cpu_s.get(tier),
    }
