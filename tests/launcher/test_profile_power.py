"""Watts of an engine that is profiled, by every meter there may be."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest

from hybridserve_llm.books.metering import Probes
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.config.cascade import EnergyConfig
from hybridserve_llm.energy.sampler import Sampler
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.planner.plan import Placement
from hybridserve_llm.testing import FakeClock, ScriptedNvml
from hybridserve_llm.values.joules import Activity
from launch.profiling.power import Power, mean_power, meter_of, metered, worst_source

NO_RAPL = Path("/nowhere")
SOCKET = Path("/run/hs/t-0.sock")
ON_GPUS = Placement(name="t/0", device="gpu", tensor_parallel_size=2, gpu_uuids=("GPU-a", "GPU-b"))
ON_CPU = Placement(name="t/0", device="cpu", cpu_threads=1)
BUSY, IDLE = Activity(running=4), Activity(running=0)


def no_driver() -> Any:
    raise MeterFault("no NVML: Driver Not Loaded")


class Bench:
    """The meter of one placement on a clock that moves 0.1 s at a time, read at every step."""

    def __init__(self, placement: Placement, probes: Probes, clock: FakeClock, **config: Any):
        self.clock = clock
        settings = EnergyConfig(**config)
        sampled, self.meter = meter_of(placement, SOCKET, settings, clock=clock, probes=probes)
        self.sampler = Sampler(sampled, clock=clock)
        self.sampler.sample()

    async def pause(self, seconds: float) -> None:
        for _ in range(round(seconds * 10)):
            self.clock.advance(0.1)
            self.sampler.sample()

    async def power(self, seconds: float, activity: Activity = BUSY) -> Power:
        start_s = self.clock.monotonic_s()
        await self.pause(seconds)
        end_s = self.clock.monotonic_s()
        return await mean_power(self.meter, start_s, end_s, activity, pause=self.pause)


def gpu_bench(**nvml: Any) -> tuple[Bench, ScriptedNvml]:
    clock = FakeClock()
    scripted = ScriptedNvml(clock=clock, power_w=200.0, **nvml)
    return Bench(ON_GPUS, Probes(open_nvml=lambda: scripted), clock), scripted


async def test_watts_of_gpus_are_those_of_all_the_engines_gpus() -> None:
    # One scripted NVML has one counter, so each GPU is read by itself: power alone is used here.
    bench, _ = gpu_bench(missing={"energy_mj"})
    told = await bench.power(4.0)
    assert told.power_w == pytest.approx(400.0)
    assert (told.source, told.reason) == ("nvml_power_integrated", "energy_mj is not supported")


async def test_the_energy_counter_is_waited_for_until_it_covers_the_span() -> None:
    clock = FakeClock()
    # It moves every 0.5 s only, so that the end of a span is known half a second later at most.
    nvml = ScriptedNvml(clock=clock, power_w=200.0, tick_s=0.5)
    one = Placement(name="t/0", device="gpu", gpu_uuids=("GPU-a",))
    bench = Bench(one, Probes(open_nvml=lambda: nvml), clock)
    await bench.pause(0.7)
    told = await bench.power(4.0)
    assert told.power_w == pytest.approx(200.0)
    assert (told.source, told.reason) == ("nvml_energy", None)
    # Either edge lies within a segment of 100 J: at most 100 J each, of 4 s.
    assert 0 < told.edge_w <= 2 * 100 / 4
    nvml.power_w = 50.0
    await bench.pause(1.0)
    assert (await bench.power(2.0, IDLE)).power_w == pytest.approx(50.0)


async def test_a_gpu_that_is_lost_leaves_watts_unknown() -> None:
    bench, nvml = gpu_bench()
    nvml.is_lost = True
    told = await bench.power(1.0)
    assert (told.power_w, told.source) == (None, "unavailable")
    assert told.reason == "GPU GPU-a is lost, and no power reading"


async def test_a_meter_that_hangs_is_not_waited_for_without_end() -> None:
    bench, _ = gpu_bench()
    bench.sampler = Sampler([], clock=bench.clock)  # the thread waits for the driver
    begin_s = bench.clock.monotonic_s()
    told = await bench.power(1.0)
    assert told.reason == "the meter has no reading for this time"
    assert bench.clock.monotonic_s() - begin_s == pytest.approx(1.0 + 5.0)


async def test_no_driver_is_the_reason() -> None:
    bench = Bench(ON_GPUS, Probes(open_nvml=no_driver), FakeClock())
    assert await bench.power(1.0) == Power(
        power_w=None, source="unavailable", reason="no NVML: Driver Not Loaded"
    )


async def test_counter_and_power_that_differ_are_told() -> None:
    clock = FakeClock()
    nvml = ScriptedNvml(clock=clock, power_w=200.0, counter_share=0.7)
    one = Placement(name="t/0", device="gpu", gpu_uuids=("GPU-a",))
    bench = Bench(one, Probes(open_nvml=lambda: nvml), clock)
    await bench.pause(70.0)  # compared once a minute
    told = await bench.power(4.0)
    assert told.power_w == pytest.approx(140.0)
    assert told.reason == "counter and integrated power differ by more than 10 %"


def rapl(folder: Path, zones: dict[str, str]) -> None:
    for zone, name in zones.items():
        (folder / zone).mkdir()
        (folder / zone / "name").write_text(name)
        (folder / zone / "max_energy_range_uj").write_text("262143328850")
        (folder / zone / "energy_uj").write_text("0")


async def test_watts_of_a_cpu_are_those_of_all_its_packages_without_dram(tmp_path: Path) -> None:
    rapl(
        tmp_path,
        {"intel-rapl:0": "package-0", "intel-rapl:0:0": "dram", "intel-rapl:1": "package-1"},
    )
    bench = Bench(ON_CPU, Probes(powercap=tmp_path), FakeClock(), watts_per_busy_core=8)
    start_s = bench.clock.monotonic_s()
    bench.clock.advance(1.0)
    for zone, microjoules in (("0", 90_000_000), ("0:0", 7_000_000), ("1", 40_000_000)):
        (tmp_path / f"intel-rapl:{zone}" / "energy_uj").write_text(str(microjoules))
    bench.sampler.sample()
    told = await mean_power(bench.meter, start_s, start_s + 1.0, BUSY, pause=bench.pause)
    assert (told.power_w, told.source) == (pytest.approx(130.0), "rapl")


async def test_dram_alone_is_no_meter_of_a_cpu(tmp_path: Path) -> None:
    rapl(tmp_path, {"intel-rapl:0:0": "dram"})
    bench = Bench(ON_CPU, Probes(powercap=tmp_path), FakeClock())
    told = await bench.power(1.0)
    assert told.reason == (
        f"no energy counter: no RAPL counter of a CPU package in {tmp_path}; "
        "energy.watts_per_busy_core would make watts of CPU time"
    )


async def test_cpu_time_by_the_users_watts_is_called_a_model() -> None:
    bench = Bench(ON_CPU, Probes(powercap=NO_RAPL), FakeClock(), watts_per_busy_core=8)
    # No process of this machine names that socket: no CPU time while idle, and none to believe
    # where work was done.
    assert await bench.power(1.0, IDLE) == Power(power_w=0.0, source="model:user")
    told = await bench.power(1.0)
    assert told.power_w is None
    assert told.reason == "the meter counted nothing in 1 s of work: measure for longer"


async def test_energy_that_is_switched_off_is_not_measured() -> None:
    bench = Bench(ON_CPU, Probes(powercap=NO_RAPL), FakeClock(), enabled=False)
    assert (await bench.power(1.0)).reason == "energy.enabled is false"


async def test_meters_are_read_while_the_block_lasts_and_not_after() -> None:
    clock = SystemClock()
    nvml = ScriptedNvml(clock=clock, power_w=200.0, tick_s=0.02)
    probes = Probes(open_nvml=lambda: nvml)
    one = Placement(name="t/0", device="gpu", gpu_uuids=("GPU-a",))
    config = EnergyConfig(sample_interval_s=0.02)
    async with metered(one, SOCKET, config, clock=clock, probes=probes) as meter:
        begin_s = clock.monotonic_s()
        assert is_reading()
        told = await mean_power(meter, begin_s, begin_s + 0.1, BUSY, pause=asyncio.sleep)
        assert told.source == "nvml_energy"
    assert not is_reading()


def is_reading() -> bool:
    return any(thread.name == "energy-sampler" for thread in threading.enumerate())


def test_the_worst_of_several_sources() -> None:
    assert worst_source(["nvml_energy", "rapl", "nvml_energy"]) == "rapl"
    assert worst_source(["model:user", "rapl"]) == "model:user"
    assert worst_source(["model:user", "unavailable"]) == "unavailable"
