"""Zeus behind the meter: a fake of its module that follows version 0.16.0; none is installed."""

import sys
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace

import pytest

from hybridserve_llm.energy.nvml import GpuMeter
from hybridserve_llm.energy.zeus import APPLE, ZeusReader
from hybridserve_llm.errors import CannotBeDone, MeterFault
from hybridserve_llm.testing import FakeClock


class ZeusBaseError(Exception):
    """As `zeus.exception.ZeusBaseError`."""


@dataclass
class FakeZeus:
    """Two AMD GPUs of 200 W, and where `gpu_mj` is told an Apple chip."""

    clock: FakeClock
    missing: set[str] = field(default_factory=set)
    gpu_mj: int | None = None
    has_soc: bool = True

    def _told(self, what: str, index: int, value: float) -> int:
        if what in self.missing:
            raise ZeusBaseError(f"{what} is not supported")
        return [round(value), round(value)][index]

    def get_total_energy_consumption(self, index: int) -> int:
        return self._told("energy", index, self.clock.monotonic_s() * 200_000)

    def get_instant_power_usage(self, index: int) -> int:
        return self._told("instant", index, 200_000)

    def get_average_power_usage(self, index: int) -> int:
        return self._told("average", index, 190_000)

    def get_power_management_limit(self, index: int) -> int:
        if "number" in self.missing:
            return int("N/A")  # as with Zeus 0.16.0 where amdsmi has none
        return self._told("limit", index, 750_000)

    def get_soc(self) -> SimpleNamespace:
        if not self.has_soc:
            raise ZeusBaseError("No observable SoC was found")
        told = SimpleNamespace(gpu_mj=self.gpu_mj)
        return SimpleNamespace(get_total_energy_consumption=lambda: told)


@pytest.fixture
def zeus(monkeypatch: pytest.MonkeyPatch) -> FakeZeus:
    fake = FakeZeus(FakeClock())
    device, exception = ModuleType("zeus.device"), ModuleType("zeus.exception")
    vars(device).update(get_gpus=lambda: fake, get_soc=fake.get_soc)
    vars(exception).update(ZeusBaseError=ZeusBaseError)
    for module in (ModuleType("zeus"), device, exception):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return fake


def sampled(zeus: FakeZeus, uuid: str) -> GpuMeter:
    """A GPU read ten times a second for a second."""
    meter = GpuMeter(uuid, ZeusReader(), clock=zeus.clock)
    meter.sample()
    for _ in range(10):
        zeus.clock.advance(0.1)
        if zeus.gpu_mj is not None:
            zeus.gpu_mj += 1_500  # 15 W
        meter.sample()
    return meter


def test_a_gpu_counts_by_the_counter_that_zeus_reads(zeus: FakeZeus) -> None:
    told = sampled(zeus, "1").trace.between(1000, 1001)
    assert told.energy_j == pytest.approx(200)  # 200 W for 1 s
    assert told.source == "zeus_energy"


@pytest.mark.parametrize(("missing", "joules"), [({"energy"}, 200), ({"energy", "instant"}, 190)])
def test_without_a_counter_the_power_is_integrated(
    zeus: FakeZeus, missing: set[str], joules: float
) -> None:
    zeus.missing = missing
    told = sampled(zeus, "0").trace.between(1000, 1001)
    assert told.energy_j == pytest.approx(joules)
    assert told.source == "zeus_power_integrated"
    assert told.reason is not None
    assert "energy is not supported" in told.reason


def test_a_gpu_that_tells_nothing_has_no_joules(zeus: FakeZeus) -> None:
    zeus.missing = {"energy", "instant", "average", "limit"}
    told = sampled(zeus, "0").trace.between(1000, 1001)
    assert (told.energy_j, told.source) == (None, "unavailable")


def test_an_index_that_is_not_there_is_a_fault(zeus: FakeZeus) -> None:
    with pytest.raises(MeterFault, match="GPU 2: Zeus gives no energy"):
        ZeusReader().energy_mj("2")


def test_a_driver_that_tells_no_number_is_a_fault(zeus: FakeZeus) -> None:
    zeus.missing = {"number"}
    with pytest.raises(MeterFault, match="GPU 0: Zeus gives no power limit"):
        ZeusReader().power_limit_mw("0")


def test_an_apple_chip_counts_what_its_gpu_used(zeus: FakeZeus) -> None:
    zeus.gpu_mj = 7
    told = sampled(zeus, APPLE).trace.between(1000, 1001)
    assert told.energy_j == pytest.approx(15)  # ten readings of 1.5 J
    assert told.source == "zeus_energy"


def test_an_apple_chip_that_is_not_there_or_tells_nothing_is_a_fault(zeus: FakeZeus) -> None:
    reader = ZeusReader()
    with pytest.raises(MeterFault, match="no energy of this chip's GPU"):
        reader.energy_mj(APPLE)
    with pytest.raises(MeterFault, match="no power limit of an Apple chip's GPU"):
        reader.power_limit_mw(APPLE)
    zeus.has_soc = False
    with pytest.raises(MeterFault, match="No observable SoC"):
        reader.energy_mj(APPLE)


def test_activity_of_processes_is_never_told(zeus: FakeZeus) -> None:
    with pytest.raises(MeterFault, match="no activity of processes"):
        ZeusReader().process_activity("0", 0)


def test_a_machine_without_zeus_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus.device", None)  # as if it were not installed
    with pytest.raises(CannotBeDone, match=r"pip install 'hybridserve-llm\[zeus\]'"):
        ZeusReader()
