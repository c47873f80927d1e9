"""How a window's joules are shared: by tokens computed, exactly, with nothing left over."""

import itertools
import math

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hybridserve_llm.energy.attribution import (
    Booking,
    Stint,
    TokenWeights,
    busy_edges,
    shares,
    slices,
    split,
    tokens_in,
    windows,
)

EQUAL = TokenWeights()


def stint(
    start_s: float,
    end_s: float | None,
    *,
    prompt: int | None = None,
    output: int | None = None,
    first_token_s: float | None = None,
) -> Stint:
    return Stint(
        request_id="r",
        tier="small",
        replica="small/0",
        booking=Booking.USER,
        start_s=start_s,
        end_s=end_s,
        first_token_s=first_token_s,
        prompt_tokens=prompt,
        output_tokens=output,
    )


def parts(*stints: Stint, start_s: float, end_s: float) -> list[float]:
    return shares(slices(stints, start_s, end_s), weights=EQUAL)


def test_windows_are_cut_where_the_replica_turns_busy_or_idle() -> None:
    # A lone request of 50 ms in a second: it must not take the other 950 ms.
    edges = busy_edges([stint(10.4, 10.45)])
    assert edges == [10.4, 10.45]
    assert windows(10, 11, edges) == [(10, 10.4), (10.4, 10.45), (10.45, 11)]


def test_windows_are_no_longer_than_a_second() -> None:
    assert windows(0, 2.5, []) == [
        (0, pytest.approx(2.5 / 3)),
        (pytest.approx(2.5 / 3), pytest.approx(5 / 3)),
        (pytest.approx(5 / 3), 2.5),
    ]


def test_overlapping_requests_make_one_busy_span() -> None:
    assert busy_edges([stint(1, 3), stint(2, 5), stint(7, 8), stint(5, 5.5)]) == [1, 5.5, 7, 8]
    assert busy_edges([stint(1, None), stint(2, 3)]) == [1]
    assert busy_edges([]) == []


def test_requests_that_touch_or_nearly_do_are_not_cut_apart() -> None:
    assert busy_edges([stint(1, 2), stint(2, 3)]) == [1, 3]
    assert busy_edges([stint(1, 2), stint(2.01, 3)]) == [1, 3]  # 10 ms
    assert busy_edges([stint(1, 2), stint(2.03, 3)]) == [1, 2, 2.03, 3]  # 30 ms


def test_joules_are_shared_by_tokens_computed() -> None:
    # A computes 30 prompt and 10 output tokens, B 0 (all cached) and 10: 40 to 10.
    a, b = stint(0, 1, prompt=30, output=10), stint(0, 1, prompt=0, output=10)
    assert parts(a, b, start_s=0, end_s=1) == pytest.approx([0.8, 0.2])


def test_weights_of_a_step_model_are_used() -> None:
    a, b = stint(0, 1, prompt=30, output=10), stint(0, 1, prompt=0, output=10)
    found = shares(slices([a, b], 0, 1), weights=TokenWeights(prompt=0.1, output=1.0))
    assert found == pytest.approx([13 / 23, 10 / 23])


def test_tokens_lie_evenly_where_the_first_tokens_time_is_not_known() -> None:
    assert tokens_in(stint(0, 4, prompt=8, output=4), 1, 2) == (2, 1)


def test_the_prompt_lies_before_the_first_token_and_the_output_after() -> None:
    one = stint(0, 5, prompt=8, output=4, first_token_s=1)
    assert tokens_in(one, 0, 1) == (8, 0)
    assert tokens_in(one, 1, 3) == (0, 2)


def test_a_request_with_unknown_tokens_counts_as_the_others_do_per_second() -> None:
    known = stint(0, 1, prompt=0, output=20)  # 20 tokens a second
    cancelled = stint(0, 0.5)  # half a second: as 10 tokens
    found = shares(slices([known, cancelled], 0, 1), weights=EQUAL)
    assert found == pytest.approx([2 / 3, 1 / 3])


def test_where_no_token_came_seconds_share_the_window() -> None:
    assert parts(stint(0, 1), stint(0.5, None), start_s=0, end_s=1) == pytest.approx([2 / 3, 1 / 3])
    late = stint(0, 9, prompt=4, output=0, first_token_s=5)  # its prompt is done before 5
    assert parts(late, start_s=6, end_s=7) == [1]


def test_requests_outside_a_window_have_no_part() -> None:
    assert parts(stint(0, 1, prompt=1, output=1), start_s=1, end_s=2) == []


@example(amount=1.0, weights=[2e-311])  # 1 / 2e-311 is infinite
@given(
    amount=st.floats(0, 1e6),
    weights=st.lists(st.floats(0, 1e6), min_size=1, max_size=50),
)
def test_parts_sum_to_the_amount_and_none_is_negative(amount: float, weights: list[float]) -> None:
    found = split(amount, weights)
    assert math.fsum(found) == pytest.approx(amount, rel=1e-12, abs=1e-12)
    assert all(part >= 0 for part in found)


@given(
    start_s=st.floats(0, 1e6),
    length_s=st.floats(0.001, 100),
    cuts=st.lists(st.floats(0, 1), max_size=10),
)
def test_windows_leave_no_hole(start_s: float, length_s: float, cuts: list[float]) -> None:
    end_s = start_s + length_s
    found = windows(start_s, end_s, [start_s + cut * length_s for cut in cuts])
    assert found[0][0] == start_s
    assert found[-1][1] == end_s
    assert all(a[1] == b[0] for a, b in itertools.pairwise(found))
    assert all(finish_s - begin_s <= 1 + 1e-9 for begin_s, finish_s in found)
