"""Watts of one engine: which meters see the devices it is placed on, and a mean over a span.

    GPUs    NVML by UUID, all GPUs of the engine together
    CPU     RAPL: whole packages, whatever else runs on them; without it CPU-seconds of the engine's
            processes by the watts that the user named (`model:user`)

Unlike the front end's accounts, nothing is shared out: an engine that is profiled runs alone. What
nothing here can tell is null with its reason.
"""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridserve_llm.books.meter_sites import Probes
from hybridserve_llm.books.metering import SWITCHED_OFF
from hybridserve_llm.config.cascade import EnergyConfig
from hybridserve_llm.energy.cpu_time import CpuTimeMeter, engine_roots
from hybridserve_llm.energy.joules import RANK
from hybridserve_llm.energy.meters import AbsentMeter, CpuWattsMeter, TraceMeter
from hybridserve_llm.energy.nvml import GpuMeter
from hybridserve_llm.energy.rapl import RaplMeter, rapl_zones, traces_of
from hybridserve_llm.energy.sampler import Sampled, Sampler
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.interfaces import Clock, EnergyMeter
from hybridserve_llm.planner.plan import Placement
from hybridserve_llm.values.joules import Activity, Flag, Source

Pause = Callable[[float], Awaitable[None]]

_READING_INTERVAL_S = 0.1
_READING_LIMIT_S = 5.0
"""Longer than a counter may stand still before power is integrated (`energy/counter.py`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """Mean watts of a span.

    Attributes:
        power_w: None where it is not known; `reason` then says why.
        source: The meter, as records show it: `nvml_energy`, `rapl`, `nvml_power_integrated`,
            `model:user` or `unavailable`.
        reason: Why it is not known, or what else a reader has to know of it; None for nothing.
        edge_w: By how much it may be off because the span begins and ends between two readings.
    """

    power_w: float | None
    source: str
    reason: str | None = None
    edge_w: float = 0.0


@contextlib.asynccontextmanager
async def metered(
    placement: Placement,
    socket_path: Path,
    config: EnergyConfig,
    *,
    clock: Clock,
    probes: Probes | None = None,
) -> AsyncIterator[EnergyMeter]:
    """The meter of all devices of an engine, read in a thread of its own while the block lasts.

    Args:
        placement: The engine's.
        socket_path: What the command lines of its processes name, and no other's.
        config: How often meters are read, and the watts of a busy core.
        clock: What readings and spans are timed by.
        probes: Where this machine's meters are; None for where Linux and NVML have them.
    """
    sampled, meter = meter_of(
        placement, socket_path, config, clock=clock, probes=probes or Probes()
    )
    sampler = Sampler(sampled, clock=clock, period_s=config.sample_interval_s)
    sampler.sample()  # now, so that spans may begin when the block does
    if sampled:
        sampler.start()
    try:
        yield meter
    finally:
        await asyncio.to_thread(sampler.stop)


def meter_of(
    placement: Placement, socket_path: Path, config: EnergyConfig, *, clock: Clock, probes: Probes
) -> tuple[Sequence[Sampled], EnergyMeter]:
    """What has to be read again and again, and the meter of it; see `metered`."""
    if not config.enabled:
        return (), AbsentMeter(SWITCHED_OFF)
    if placement.device == "gpu":
        return _gpu_meter(placement.gpu_uuids, clock, probes)
    return _cpu_meter(placement.name, socket_path, config, clock, probes)


def _gpu_meter(
    uuids: Sequence[str], clock: Clock, probes: Probes
) -> tuple[Sequence[Sampled], EnergyMeter]:
    try:
        nvml = probes.open_nvml()
    except MeterFault as exc:
        return (), AbsentMeter(str(exc))
    gpus = [GpuMeter(uuid, nvml, clock=clock) for uuid in uuids]
    return gpus, TraceMeter([gpu.trace for gpu in gpus])


def _cpu_meter(
    name: str, socket_path: Path, config: EnergyConfig, clock: Clock, probes: Probes
) -> tuple[Sequence[Sampled], EnergyMeter]:
    try:
        zones = [RaplMeter(zone, clock=clock) for zone in rapl_zones(probes.powercap)]
    except MeterFault as exc:
        no_rapl = str(exc)
    else:
        packages = traces_of(zones, "cpu")
        if packages:
            return zones, TraceMeter(packages)
        no_rapl = f"no RAPL counter of a CPU package in {probes.powercap}"
    watts = config.watts_per_busy_core
    if watts is None:
        return (), AbsentMeter(
            f"no energy counter: {no_rapl}; energy.watts_per_busy_core would make watts of CPU time"
        )
    words = {name: str(socket_path)}
    cpu_time = CpuTimeMeter(
        words, lambda parents: engine_roots(words, parents, under=os.getpid()), clock=clock
    )
    return (cpu_time,), CpuWattsMeter(cpu_time.traces[name], watts_per_core=watts)


async def mean_power(
    meter: EnergyMeter, start_s: float, end_s: float, activity: Activity, *, pause: Pause
) -> Power:
    """Watts from `start_s` to `end_s`, once the meter has read so far.

    Waits for that at most `_READING_LIMIT_S`; what was not read by then is not known.
    """
    for _ in range(round(_READING_LIMIT_S / _READING_INTERVAL_S)):
        if meter.known_until_s >= end_s:
            break
        await pause(_READING_INTERVAL_S)
    found = meter.between(start_s, end_s, activity)
    seconds = end_s - start_s
    if found.energy_j is None:
        return _unknown(found.reason)
    if found.energy_j == 0 and activity.running > 0:
        return _unknown(f"the meter counted nothing in {seconds:.3g} s of work: measure for longer")
    reason = found.reason
    if Flag.INCONSISTENT in found.flags:
        reason = "counter and integrated power differ by more than 10 %"
    return Power(
        power_w=found.energy_j / seconds,
        source=found.label,
        reason=reason,
        edge_w=found.edge_j / seconds,
    )


def _unknown(reason: str | None) -> Power:
    return Power(power_w=None, source=Source.UNAVAILABLE, reason=reason)


def worst_source(sources: Sequence[str]) -> str:
    """The label furthest down the ladder of meters."""
    return max(sources, key=lambda label: RANK[Source(label.partition(":")[0])])
