"""NVML as a meter sees it: one reading of one GPU by UUID, each call allowed to fail on its own.

The adapter over pynvml is thin and stands behind a protocol, so that tests drive every rung of the
ladder with a scripted NVML. A MIG slice has neither power nor energy of its own (NVML's manual), so
the GPU it is cut from has to be named.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import pynvml

from hybridserve_llm.energy.counter import CounterSettings, CounterTrace, Reading
from hybridserve_llm.energy.trace import Trace
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.units import mj_to_j, mw_to_w
from hybridserve_llm.values.joules import Source

_MOST_POWERFUL_GPU_W = 2000.0
"""Taken where NVML does not tell the limit: above any GPU sold until 2026 (GB300: 1400 W)."""
_COUNTER_RANGES_J = (mj_to_j(2**32), mj_to_j(2**64))
"""NVML counts millijoules in 64 bits; drivers that hand on a 32-bit field wrap after 4.29 MJ."""
NVML_SOURCES = (Source.NVML_ENERGY, Source.NVML_POWER)


class ProcessActivity(NamedTuple):
    """What one process used of a GPU in one of the driver's samples."""

    pid: int
    at_us: int
    sm_percent: float


class Nvml(Protocol):
    """What is asked of NVML; every method raises MeterFault where it has no answer."""

    @property
    def sources(self) -> tuple[Source, Source]:
        """What joules of its counter are called, and those of its power integrated."""

    def energy_mj(self, uuid: str) -> int:
        """Millijoules since the driver was loaded (Volta and newer)."""

    def instant_power_mw(self, uuid: str) -> int:
        """Milliwatts now."""

    def average_power_mw(self, uuid: str) -> int:
        """Milliwatts over the last second on Ampere (but for GA100) and newer."""

    def power_limit_mw(self, uuid: str) -> int:
        """Milliwatts that the GPU may draw."""

    def process_activity(self, uuid: str, since_us: int) -> Sequence[ProcessActivity]:
        """Samples of processes newer than `since_us` (Unix microseconds); empty without any."""


class GpuMeter:
    """The readings of one GPU, made into a trace."""

    def __init__(self, uuid: str, nvml: Nvml, *, clock: Clock, trace: Trace | None = None) -> None:
        self.uuid = uuid
        self._nvml = nvml
        self._clock = clock
        limit_w = _told(lambda: mw_to_w(nvml.power_limit_mw(uuid)))[0]
        settings = CounterSettings(
            source=nvml.sources[0],
            power_source=nvml.sources[1],
            max_power_w=limit_w or _MOST_POWERFUL_GPU_W,
            wraps_at_j=_COUNTER_RANGES_J,
        )
        self.counter = CounterTrace(settings, trace or Trace())

    @property
    def trace(self) -> Trace:
        """What the GPU used so far."""
        return self.counter.trace

    def sample(self) -> None:
        """Reads the GPU once; waits for the driver, so never in the event loop."""
        counter_j, counter_fault = _told(lambda: mj_to_j(self._nvml.energy_mj(self.uuid)))
        power_w, power_fault = _told(lambda: mw_to_w(self._nvml.instant_power_mw(self.uuid)))
        if power_w is None:
            power_w, _ = _told(lambda: mw_to_w(self._nvml.average_power_mw(self.uuid)))
        self.counter.add(
            Reading(
                # Read after the calls: a call that hung must not put its answer into the past.
                at_s=self._clock.monotonic_s(),
                counter_j=counter_j,
                power_w=power_w,
                fault=counter_fault or power_fault,
            )
        )


def _told(ask: Callable[[], float]) -> tuple[float | None, str | None]:
    """The answer, or None and why there is none."""
    try:
        return ask(), None
    except MeterFault as exc:
        return None, str(exc)


class PynvmlReader:
    """`Nvml` over the driver of this machine, open until the process ends."""

    sources = NVML_SOURCES

    def __init__(self) -> None:
        """Opens NVML.

        Raises:
            MeterFault: There is no NVIDIA driver.
        """
        self._handles: dict[str, Any] = {}
        try:
            pynvml.nvmlInit()
        except pynvml.NVMLError as exc:
            raise MeterFault(f"no NVML: {exc}") from exc

    def energy_mj(self, uuid: str) -> int:
        """Millijoules since the driver was loaded."""
        return int(self._ask(uuid, "energy", pynvml.nvmlDeviceGetTotalEnergyConsumption))

    def instant_power_mw(self, uuid: str) -> int:
        """Milliwatts now, of the whole GPU."""
        return int(self._ask(uuid, "instantaneous power", _instant_power_mw))

    def average_power_mw(self, uuid: str) -> int:
        """Milliwatts as `nvidia-smi` shows them."""
        return int(self._ask(uuid, "power", pynvml.nvmlDeviceGetPowerUsage))

    def power_limit_mw(self, uuid: str) -> int:
        """The limit that is enforced now."""
        return int(self._ask(uuid, "power limit", pynvml.nvmlDeviceGetEnforcedPowerLimit))

    def process_activity(self, uuid: str, since_us: int) -> Sequence[ProcessActivity]:
        """The driver's own samples; a GPU that nobody used has none."""

        def samples(handle: Any) -> list[ProcessActivity]:
            try:
                found = pynvml.nvmlDeviceGetProcessUtilization(handle, since_us)
            except pynvml.NVMLError_NotFound:
                return []
            return [ProcessActivity(one.pid, one.timeStamp, one.smUtil) for one in found]

        told: list[ProcessActivity] = self._ask(uuid, "activity of processes", samples)
        return told

    def _ask(self, uuid: str, what: str, call: Callable[[Any], Any]) -> Any:
        try:
            if uuid not in self._handles:
                self._handles[uuid] = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            return call(self._handles[uuid])
        except pynvml.NVMLError as exc:
            self._handles.pop(uuid, None)  # after a reset of the GPU an old handle stays dead
            raise MeterFault(f"GPU {uuid} tells no {what}: {exc}") from exc


def _instant_power_mw(handle: Any) -> int:
    (field,) = pynvml.nvmlDeviceGetFieldValues(handle, [pynvml.NVML_FI_DEV_POWER_INSTANT])
    if field.nvmlReturn != pynvml.NVML_SUCCESS:
        raise pynvml.NVMLError(field.nvmlReturn)
    return int(field.value.uiVal)
