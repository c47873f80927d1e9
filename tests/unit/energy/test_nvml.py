"""Every rung of the GPU's ladder, driven by a scripted NVML, and the label that each one gives."""

import time

import pytest

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.energy.meters import AbsentMeter, Ladder, ModelMeter, TraceMeter
from hybridserve_llm.energy.nvml import GpuMeter, PynvmlReader
from hybridserve_llm.energy.sampler import Sampler
from hybridserve_llm.testing import FakeClock, ScriptedNvml
from hybridserve_llm.values.joules import Activity, Flag, Joules, Source

UUID = "GPU-1"
QUIET = Activity(running=0)


class Bench:
    """One GPU at 300 W on a clock that starts at 1000 s, read every 100 ms."""

    def __init__(self, **script: object) -> None:
        self.clock = FakeClock()
        self.nvml = ScriptedNvml(clock=self.clock, **script)  # type: ignore[arg-type]  # by keyword
        self.gpu = GpuMeter(UUID, self.nvml, clock=self.clock)
        self.gpu.sample()

    def run(self, seconds: float, *, period_s: float = 0.1) -> None:
        for _ in range(round(seconds / period_s)):
            self.clock.advance(period_s)
            self.gpu.sample()

    def between(self, start_s: float, end_s: float) -> Joules:
        return self.gpu.trace.between(1000 + start_s, 1000 + end_s)


def test_the_counter_is_the_first_rung() -> None:
    bench = Bench()
    bench.run(5)
    told = bench.between(1, 3)
    assert told.energy_j == pytest.approx(600)  # 2 s of 300 W
    assert (told.label, told.reason, told.flags) == ("nvml_energy", None, frozenset())


def test_a_counter_that_ticks_slower_than_it_is_read_gives_no_empty_windows() -> None:
    bench = Bench(tick_s=0.1)
    bench.run(3, period_s=0.03)
    # 50 ms hold less than one tick: 15 J at 300 W, though the counter may not have moved in them.
    told = bench.between(1.0, 1.05)
    assert told.energy_j == pytest.approx(15, rel=0.25)
    # An edge inside a segment may be off by all of it: two edges, each at most 0.12 s of 300 W.
    assert 15 < told.edge_j <= 2 * 0.12 * 300


def test_a_lone_reading_tells_nothing() -> None:
    told = Bench().between(0, 1)
    assert told.energy_j is None
    assert told.reason == "the meter has no reading for this time"


def test_a_counter_that_stands_still_is_replaced_by_integrated_power() -> None:
    bench = Bench()
    bench.run(2)
    bench.nvml.stalled = True
    bench.run(4)
    told = bench.between(2.5, 5.5)
    assert told.energy_j == pytest.approx(900)
    assert told.label == "nvml_power_integrated"
    assert told.flags == {Flag.STALLED}
    assert told.reason == "the energy counter stands still"


@pytest.mark.parametrize("catches_up", [True, False])
def test_energy_of_a_stall_is_not_counted_twice_when_the_counter_moves_on(
    *, catches_up: bool
) -> None:
    bench = Bench(catches_up=catches_up)
    bench.run(2)
    bench.nvml.stalled = True
    bench.run(4)
    bench.nvml.stalled = False
    bench.run(4)
    assert bench.between(0, 10).energy_j == pytest.approx(3000, rel=0.01)
    assert bench.between(7, 9).label == "nvml_energy"


def test_a_counter_that_stands_still_for_less_is_waited_for() -> None:
    bench = Bench()
    bench.run(2)
    bench.nvml.stalled = True
    bench.run(1.5)
    assert bench.gpu.trace.known_until_s == pytest.approx(1002)
    bench.nvml.stalled = False
    bench.run(1)
    assert bench.between(1, 4).energy_j == pytest.approx(900)
    assert bench.between(1, 4).label == "nvml_energy"


def test_a_reset_counter_is_bridged_by_power_and_believed_again() -> None:
    bench = Bench()
    bench.run(2)
    bench.nvml.reset()
    bench.run(2)
    told = bench.between(1, 3)
    assert told.energy_j == pytest.approx(600)
    assert told.flags == {Flag.RESET}
    assert told.label == "nvml_power_integrated"  # the sum carries its worst part
    assert bench.between(3, 4).label == "nvml_energy"


def test_a_counter_that_wraps_at_32_bits_loses_nothing() -> None:
    bench = Bench(counter_mj=2**32 - 450_000, range_mj=2**32)  # 1.5 s of 300 W below its end
    bench.run(3)
    told = bench.between(0, 3)
    assert told.energy_j == pytest.approx(900)
    assert (told.label, told.flags) == ("nvml_energy", {Flag.WRAPPED})


def test_a_counter_that_jumps_is_not_believed() -> None:
    bench = Bench()
    bench.run(1)
    bench.nvml.counter_mj += 10_000_000  # 10 kJ within 0.1 s
    bench.run(1)
    told = bench.between(0, 2)
    assert told.energy_j == pytest.approx(600)
    assert told.flags == {Flag.JUMPED}


def test_without_a_counter_power_is_integrated() -> None:
    bench = Bench(missing={"energy_mj"})
    bench.run(5)
    told = bench.between(1, 3)
    assert told.energy_j == pytest.approx(600)
    assert told.label == "nvml_power_integrated"
    assert told.reason == "energy_mj is not supported"


def test_average_power_stands_in_for_instantaneous_power() -> None:
    bench = Bench(missing={"energy_mj", "instant_power_mw"})
    bench.run(5)
    assert bench.between(1, 3).energy_j == pytest.approx(600)


def test_power_is_not_integrated_over_long_gaps() -> None:
    bench = Bench(missing={"energy_mj"})
    bench.run(1)
    bench.run(5, period_s=5)
    bench.run(1)
    told = bench.between(0, 7)
    assert told.energy_j is None
    assert told.reason == "energy_mj is not supported, and power readings more than 1 s apart"
    assert bench.between(0, 0.9).energy_j == pytest.approx(270)
    assert bench.between(6.1, 6.6).energy_j == pytest.approx(150)


def test_a_counter_bridges_a_long_gap() -> None:
    bench = Bench()
    bench.run(1)
    bench.run(5, period_s=5)
    assert bench.between(0, 6).energy_j == pytest.approx(1800)


def test_a_lost_gpu_is_unknown_and_never_zero() -> None:
    bench = Bench()
    bench.run(2)
    bench.nvml.is_lost = True
    bench.run(2)
    told = bench.between(1, 3)
    assert told.energy_j is None
    assert told.label == "unavailable"
    assert told.reason == "GPU GPU-1 is lost, and no power reading"
    assert bench.between(0, 2).energy_j == pytest.approx(600)


def test_a_gpu_that_comes_back_is_measured_again() -> None:
    bench = Bench()
    bench.run(1)
    bench.nvml.is_lost = True
    bench.run(1)
    bench.nvml.is_lost = False
    bench.nvml.reset()
    bench.run(2)
    assert bench.between(2.5, 3.5).energy_j == pytest.approx(300)
    assert bench.between(2.5, 3.5).label == "nvml_energy"


def test_counter_and_power_that_disagree_are_flagged_and_both_shown() -> None:
    bench = Bench(power_w=100, counter_share=0.6)
    bench.run(70)
    told = bench.between(65, 69)
    assert told.flags == {Flag.INCONSISTENT}
    assert told.energy_j == pytest.approx(240)  # 4 s of the counter's 60 W
    assert bench.gpu.counter.check.ratio == pytest.approx(0.6, rel=0.01)
    assert bench.gpu.counter.check.integrated_j == pytest.approx(6000, rel=0.01)


def test_the_ladder_goes_down_rung_by_rung_and_says_why() -> None:
    bench = Bench()
    ladder = Ladder(
        [
            TraceMeter([bench.gpu.trace]),
            ModelMeter(lambda activity: 250.0 + 10 * activity.running, grade="datasheet"),
        ]
    )
    bench.run(1)
    bench.nvml.missing = {"energy_mj"}
    bench.run(1)
    bench.nvml.is_lost = True
    bench.run(1)
    counter, power, model = (ladder.between(1000.2 + i, 1000.8 + i, QUIET) for i in range(3))
    assert [one.label for one in (counter, power, model)] == [
        "nvml_energy",
        "nvml_power_integrated",
        "model:datasheet",
    ]
    assert model.energy_j == pytest.approx(150)  # 0.6 s of 250 W
    assert model.reason == "GPU GPU-1 is lost, and no power reading"


def test_the_last_rung_is_null_with_every_reason() -> None:
    ladder = Ladder([AbsentMeter("no NVML"), AbsentMeter("no profile of this GPU")])
    told = ladder.between(0, 1, QUIET)
    assert told.energy_j is None
    assert told.source is Source.UNAVAILABLE
    assert told.reason == "no NVML; no profile of this GPU"


def test_a_model_looks_at_what_the_replica_did() -> None:
    meter = ModelMeter(lambda activity: 200 + 50 * activity.running, grade="fleet-fit")
    told = meter.between(10, 12, Activity(running=2))
    assert (told.energy_j, told.label) == (600, "model:fleet-fit")


def test_gpus_of_a_tensor_parallel_replica_add_up_and_one_lost_makes_it_unknown() -> None:
    one, two = Bench(), Bench(power_w=100)
    meter = TraceMeter([one.gpu.trace, two.gpu.trace])
    one.run(3)
    two.run(2)
    assert meter.known_until_s == pytest.approx(1002)
    assert meter.between(1000, 1002, QUIET).energy_j == pytest.approx(800)
    two.nvml.is_lost = True
    two.run(1)
    assert meter.between(1001, 1003, QUIET).energy_j is None


@pytest.mark.gpu
def test_a_real_gpu_is_metered_by_its_counter(real_gpu: str) -> None:
    clock, nvml = SystemClock(), PynvmlReader()
    meter = GpuMeter(real_gpu, nvml, clock=clock)
    sampler = Sampler([meter], clock=clock)
    sampler.start()
    time.sleep(0.5)
    start_s, before_mj = clock.monotonic_s(), nvml.energy_mj(real_gpu)
    time.sleep(3)
    end_s, after_mj = clock.monotonic_s(), nvml.energy_mj(real_gpu)
    sampler.stop()
    told = meter.trace.between(start_s, end_s)
    assert told.label == "nvml_energy"
    # The counter by hand is off by a tick of 0.1 s at either end, and the GPU's power may change.
    assert told.energy_j == pytest.approx((after_mj - before_mj) / 1000, rel=0.15)
