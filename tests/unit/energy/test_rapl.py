"""RAPL zones in a folder like Linux' powercap."""

from pathlib import Path

import pytest

from hybridserve_llm.energy.rapl import RaplMeter, rapl_zones, traces_of
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.testing import FakeClock


def zone(powercap: Path, folder: str, name: str, *, energy_uj: int = 0) -> Path:
    path = powercap / folder
    path.mkdir(parents=True)
    (path / "name").write_text(f"{name}\n")
    (path / "energy_uj").write_text(f"{energy_uj}\n")
    (path / "max_energy_range_uj").write_text("262143328850\n")
    return path


def test_packages_and_dram_are_found_and_their_parts_left_out(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    zone(tmp_path, "intel-rapl:0:0", "core")
    zone(tmp_path, "intel-rapl:0:1", "dram")
    zone(tmp_path, "intel-rapl:1", "psys")
    found = rapl_zones(tmp_path)
    assert [(one.folder.name, one.component) for one in found] == [
        ("intel-rapl:0", "cpu"),
        ("intel-rapl:0:1", "dram"),
    ]
    assert found[0].range_j == pytest.approx(262143.32885)


def test_a_machine_without_rapl_says_so(tmp_path: Path) -> None:
    with pytest.raises(MeterFault, match="no RAPL counter in"):
        rapl_zones(tmp_path)


def test_counters_that_may_not_be_read_say_so(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0")
    (folder / "energy_uj").unlink()
    (folder / "energy_uj").mkdir()  # as root may read everything, a folder stands in for denial
    with pytest.raises(MeterFault, match=r"energy_uj cannot be read: Is a directory"):
        rapl_zones(tmp_path)


def test_a_counter_that_wraps_loses_nothing(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0", energy_uj=262_140_000_000)
    clock = FakeClock()
    meter = RaplMeter(rapl_zones(tmp_path)[0], clock=clock)
    meter.sample()
    clock.advance(0.1)
    # 3.32885 J to the end of the range and 6.67115 J after it: 10 J, so 100 W over 0.1 s
    (folder / "energy_uj").write_text("6671150")
    meter.sample()
    (trace,) = traces_of([meter], "cpu")
    told = trace.between(1000, 1000.1)
    assert told.energy_j == pytest.approx(10)
    assert told.label == "rapl"
    assert traces_of([meter], "dram") == []


def test_a_counter_that_never_moves_as_in_some_virtual_machines_is_unknown(tmp_path: Path) -> None:
    zone(tmp_path, "intel-rapl:0", "package-0")
    clock = FakeClock()
    meter = RaplMeter(rapl_zones(tmp_path)[0], clock=clock)
    for _ in range(40):
        meter.sample()
        clock.advance(0.1)
    told = meter.trace.between(1000, 1003)
    assert told.energy_j is None
    assert told.reason == "the energy counter stands still, and no power reading"


def test_a_counter_that_vanishes_is_unknown(tmp_path: Path) -> None:
    folder = zone(tmp_path, "intel-rapl:0", "package-0")
    clock = FakeClock()
    meter = RaplMeter(rapl_zones(tmp_path)[0], clock=clock)
    meter.sample()
    (folder / "energy_uj").unlink()
    clock.advance(0.1)
    meter.sample()
    told = meter.trace.between(1000, 1000.1)
    assert told.energy_j is None
    assert "energy_uj cannot be read: No such file" in (told.reason or "")
