"""RAPL: the energy counters of CPU packages and of DRAM, read from Linux' powercap files.

`/sys/class/powercap/intel-rapl:0` is a package (AMD's too), `…:0:1` a part of it; the file `name`
tells which. Reading needs root since Linux 5.10 (CVE-2020-8694). DRAM, where it is there, is not in
the package's counter; cores and uncore are, so they are left out. `psys` covers packages and is
left out too.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from hybridserve_llm.energy.counter import CounterSettings, CounterTrace, Reading
from hybridserve_llm.energy.trace import Trace
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.units import uj_to_j
from hybridserve_llm.values.joules import Source

POWERCAP = Path("/sys/class/powercap")
_MOST_POWERFUL_SOCKET_W = 2000.0
"""Far above any socket sold until 2026 (500 W); it tells a wrap from a reset."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RaplZone:
    """One counter of this machine; it begins anew after `range_j`."""

    folder: Path
    component: Literal["cpu", "dram"]
    range_j: float


def rapl_zones(powercap: Path = POWERCAP) -> tuple[RaplZone, ...]:
    """The counters of packages and DRAM that this process may read.

    Raises:
        MeterFault: There are none, or they may not be read.
    """
    zones = []
    for folder in sorted(powercap.glob("intel-rapl:*")):
        component = _component_of(_text(folder / "name"))
        if component is not None:
            _text(folder / "energy_uj")  # readable now, or say so now
            range_j = uj_to_j(int(_text(folder / "max_energy_range_uj")))
            zones.append(RaplZone(folder=folder, component=component, range_j=range_j))
    if not zones:
        raise MeterFault(f"no RAPL counter in {powercap}")
    return tuple(zones)


def _component_of(name: str) -> Literal["cpu", "dram"] | None:
    if name.startswith("package"):
        return "cpu"
    return "dram" if name == "dram" else None


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError as exc:
        raise MeterFault(f"{file} cannot be read: {exc.strerror}") from exc


class RaplMeter:
    """The readings of one zone, made into a trace."""

    def __init__(self, zone: RaplZone, *, clock: Clock, trace: Trace | None = None) -> None:
        self.zone = zone
        self._clock = clock
        settings = CounterSettings(
            source=Source.RAPL,
            max_power_w=_MOST_POWERFUL_SOCKET_W,
            wraps_at_j=(zone.range_j,),
        )
        # RAPL counts every millisecond.
        self._counter = CounterTrace(settings, trace or Trace(resolution_s=0.001))

    @property
    def trace(self) -> Trace:
        """What the zone used so far."""
        return self._counter.trace

    def sample(self) -> None:
        """Reads the zone once."""
        counter_j, fault = None, None
        try:
            counter_j = uj_to_j(int(_text(self.zone.folder / "energy_uj")))
        except MeterFault as exc:
            fault = str(exc)
        self._counter.add(Reading(at_s=self._clock.monotonic_s(), counter_j=counter_j, fault=fault))


def traces_of(meters: Sequence[RaplMeter], component: Literal["cpu", "dram"]) -> list[Trace]:
    """The traces of one component, a socket each."""
    return [meter.trace for meter in meters if meter.zone.component == component]
