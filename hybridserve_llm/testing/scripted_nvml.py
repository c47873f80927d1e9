"""An NVML that draws a constant power and fails as told: stall, reset, missing calls, lost GPU."""

from dataclasses import dataclass, field
from typing import ClassVar

from hybridserve_llm.energy.nvml import NVML_SOURCES, ProcessActivity
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.units import s_to_ms
from hybridserve_llm.values.joules import Source


@dataclass(slots=True, kw_only=True)
class ScriptedNvml:
    """Every GPU draws `power_w`; the counter moves every `tick_s`, as NVML's does.

    Attributes:
        counter_share: What the counter shows of the energy that is used; 1 is honest.
        missing: Methods that have no answer (`energy_mj`, `instant_power_mw`, …).
        stalled: Whether the counter stands still; the energy goes on being used.
        catches_up: Whether a counter that stood still shows afterwards what it missed.
        is_lost: Whether the GPU has fallen off the bus.
        activity: Samples of processes by GPU, which are told once they are newer than asked.
        range_mj: Where the counter begins anew, if it does.
    """

    sources: ClassVar[tuple[Source, Source]] = NVML_SOURCES

    clock: Clock
    power_w: float = 300.0
    limit_w: float = 700.0
    tick_s: float = 0.1
    counter_mj: int = 5_000_000
    counter_share: float = 1.0
    missing: set[str] = field(default_factory=set)
    stalled: bool = False
    catches_up: bool = True
    is_lost: bool = False
    activity: dict[str, list[ProcessActivity]] = field(default_factory=dict)
    range_mj: int | None = None
    _last_tick: int = field(init=False)
    _missed_mj: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._last_tick = self._ticks()

    def energy_mj(self, uuid: str) -> int:
        """The counter as of the last tick."""
        self._check("energy_mj", uuid)
        ticks = self._ticks()
        used_s = (ticks - self._last_tick) * self.tick_s
        used_mj = round(s_to_ms(used_s * self.power_w * self.counter_share))
        self._last_tick = ticks
        if self.stalled:
            self._missed_mj += used_mj if self.catches_up else 0
            return self.counter_mj
        self.counter_mj += used_mj + self._missed_mj
        self._missed_mj = 0
        if self.range_mj is not None:
            self.counter_mj %= self.range_mj
        return self.counter_mj

    def reset(self) -> None:
        """The driver was loaded anew: the counter begins at 0."""
        self.counter_mj = 0
        self._last_tick = self._ticks()

    def instant_power_mw(self, uuid: str) -> int:
        """The power, exactly."""
        self._check("instant_power_mw", uuid)
        return round(s_to_ms(self.power_w))

    def average_power_mw(self, uuid: str) -> int:
        """The same: the power is constant."""
        self._check("average_power_mw", uuid)
        return round(s_to_ms(self.power_w))

    def power_limit_mw(self, uuid: str) -> int:
        """The limit."""
        self._check("power_limit_mw", uuid)
        return round(s_to_ms(self.limit_w))

    def process_activity(self, uuid: str, since_us: int) -> list[ProcessActivity]:
        """What was scripted for the GPU and is newer."""
        self._check("process_activity", uuid)
        return [one for one in self.activity.get(uuid, ()) if one.at_us > since_us]

    def _ticks(self) -> int:
        return int(self.clock.monotonic_s() / self.tick_s + 1e-6)

    def _check(self, method: str, uuid: str) -> None:
        if self.is_lost:
            raise MeterFault(f"GPU {uuid} is lost")
        if method in self.missing:
            raise MeterFault(f"{method} is not supported")
