"""Traces, sums of joules, and the sampler's thread."""

import itertools
import math
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.energy.joules import total, unknown
from hybridserve_llm.energy.sampler import Sampler
from hybridserve_llm.energy.trace import Segment, Trace
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.joules import Flag, Joules, Source


def segment(start_s: float, end_s: float, energy_j: float | None) -> Segment:
    return Segment(
        start_s=start_s, end_s=end_s, energy_j=energy_j, source=Source.NVML_ENERGY, reason="why"
    )


@given(
    lengths_s=st.lists(st.floats(0.01, 1), min_size=1, max_size=20),
    cuts=st.lists(st.floats(0, 1), max_size=10),
    data=st.data(),
)
def test_parts_of_a_span_sum_to_the_span(
    lengths_s: list[float], cuts: list[float], data: st.DataObject
) -> None:
    trace, at_s = Trace(), 100.0
    for length_s in lengths_s:
        trace.append(segment(at_s, at_s + length_s, data.draw(st.floats(0, 1000))))
        at_s += length_s
    edges = [100.0, *sorted(100 + cut * (at_s - 100) for cut in cuts if cut < 1), at_s]
    parts = [trace.between(a, b).energy_j for a, b in itertools.pairwise(edges) if a < b]
    whole = trace.between(100, at_s).energy_j
    assert whole is not None
    assert math.fsum(part for part in parts if part is not None) == pytest.approx(whole, rel=1e-9)


def test_the_edges_uncertainty_is_what_the_cut_segments_hold() -> None:
    trace = Trace(resolution_s=0.1)
    trace.append(segment(0, 1, 100))
    trace.append(segment(1, 2, 40))
    told = trace.between(0.25, 1.5)
    assert told.energy_j == pytest.approx(75 + 20)
    # Before 0.25 may lie anything from 0 to 100 J, where 25 J are taken: off by 75 at most.
    # Before 1.5 anything from 0 to 40 J, where 20 J are taken: off by 20 at most.
    assert told.edge_j == pytest.approx(75 + 20)
    # On readings themselves, the counter's own step of 0.1 s is left: 10 J and 4 J.
    assert trace.between(0, 2).edge_j == pytest.approx(10 + 4)


def test_an_unknown_segment_makes_the_span_unknown() -> None:
    trace = Trace()
    trace.append(segment(0, 1, 1))
    trace.append(segment(1, 2, None))
    assert trace.between(0, 2) == unknown("why")
    assert trace.between(0, 1).energy_j == 1


def test_a_span_outside_the_trace_is_unknown() -> None:
    trace = Trace()
    assert trace.between(0, 1).energy_j is None
    trace.append(segment(0, 1, 1))
    assert trace.between(0.5, 1.5).energy_j is None
    assert trace.between(-0.5, 0.5).energy_j is None
    assert trace.known_until_s == 1


def test_a_span_of_no_length_holds_no_energy_where_the_meter_measures() -> None:
    trace = Trace()
    trace.append(segment(0, 1, 1))
    assert trace.between(0.5, 0.5).energy_j == 0
    assert trace.between(2, 2).energy_j is None


def test_old_segments_are_forgotten() -> None:
    trace = Trace(keep_s=10)
    for second in range(100):
        trace.append(segment(second, second + 1, 1))
    assert trace.between(10, 20).energy_j is None
    assert trace.between(95, 100).energy_j == 5


@pytest.mark.parametrize(
    ("start_s", "end_s", "message"),
    [(1.5, 2, "begins at 1.5, the last one ended at 1"), (1, 1, "has no length")],
)
def test_segments_leave_no_holes(start_s: float, end_s: float, message: str) -> None:
    trace = Trace()
    trace.append(segment(0, 1, 1))
    with pytest.raises(ValueError, match=message):
        trace.append(segment(start_s, end_s, 1))


def test_a_span_that_ends_before_it_starts_is_refused() -> None:
    with pytest.raises(ValueError, match="ends before it starts"):
        Trace().between(2, 1)


def joules(energy_j: float, source: Source, *flags: Flag, grade: str | None = None) -> Joules:
    return Joules(energy_j=energy_j, source=source, grade=grade, flags=frozenset(flags))


def test_a_sum_carries_the_worst_source_and_all_flags() -> None:
    told = total(
        [
            joules(1, Source.NVML_ENERGY, Flag.WRAPPED),
            joules(2, Source.MODEL, grade="fleet-fit"),
            joules(3, Source.NVML_POWER, Flag.STALLED),
        ]
    )
    assert (told.energy_j, told.label) == (6, "model:fleet-fit")
    assert told.flags == {Flag.WRAPPED, Flag.STALLED}


def test_a_sum_with_an_unknown_part_is_unknown() -> None:
    assert total([joules(1, Source.NVML_ENERGY), unknown("lost")]).reason == "lost"
    assert total([]).energy_j is None


def test_the_sampler_reads_off_the_calling_thread_until_stopped() -> None:
    seen: list[str] = []
    enough = threading.Event()

    class Meter:
        def sample(self) -> None:
            seen.append(threading.current_thread().name)
            if len(seen) == 3:
                enough.set()

    sampler = Sampler([Meter()], clock=FakeClock(), period_s=0.001)
    sampler.start()
    assert enough.wait(timeout=5)
    sampler.stop()
    n_seen = len(seen)
    assert set(seen) == {"energy-sampler"}
    sampler.sample()
    assert len(seen) == n_seen + 1
