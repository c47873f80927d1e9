import pytest

from hybridserve_llm.load.engine_counters import EngineCounters
from hybridserve_llm.load.process_times import CpuTime
from hybridserve_llm.load.reading import EngineReading


def reading(at_s: float, tokens: float, cpu: CpuTime) -> EngineReading:
    counters = EngineCounters(
        prompt_tokens=0.0,
        output_tokens=tokens,
        preemptions=0.0,
        n_first_tokens=0.0,
        ttft_sum_s=0.0,
        n_intervals=0.0,
        interval_sum_s=0.0,
    )
    return EngineReading(at_s=at_s, counters=counters, cpu=cpu)


def test_a_stretch_is_the_difference_of_two_readings() -> None:
    begin = reading(10.0, 100.0, CpuTime(engine_s=5.0, others_s=50.0))
    end = reading(12.0, 160.0, CpuTime(engine_s=8.0, others_s=50.5))
    stretch = end.since(begin)
    assert (stretch.seconds, stretch.output_tokens_per_s) == (2.0, 30.0)
    assert (stretch.engine_cores, stretch.other_cores) == (1.5, 0.25)


def test_cpu_time_that_is_not_known_stays_unknown_and_never_falls_below_0() -> None:
    begin = reading(10.0, 0.0, CpuTime(engine_s=5.0, others_s=50.0))
    unknown = reading(12.0, 0.0, CpuTime()).since(begin)
    assert (unknown.engine_cores, unknown.other_cores) == (None, None)
    # Linux counts the machine in other steps than a process.
    quiet = reading(12.0, 0.0, CpuTime(engine_s=5.1, others_s=49.9)).since(begin)
    assert quiet.other_cores == 0.0
    assert quiet.engine_cores == pytest.approx(0.05)
