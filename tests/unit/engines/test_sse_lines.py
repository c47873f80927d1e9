from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.engines.sse_lines import SseParser


def events_of(*chunks: bytes) -> list[bytes]:
    parser = SseParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_gives_the_data_of_each_event_in_order():
    assert events_of(b'data: {"a":1}\n\ndata: [DONE]\n\n') == [b'{"a":1}', b"[DONE]"]


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_reads_every_line_ending(line_end):
    stream = b"data: one\n\ndata: two\n\n".replace(b"\n", line_end)
    # The very last CR may be half of a CRLF, so a byte that follows lets the last event go.
    assert events_of(stream, b":") == [b"one", b"two"]


def test_passes_over_comments_and_unknown_fields():
    assert events_of(b": keep-alive\n\nevent: x\nid: 7\nretry: 1\ndata: one\n\n") == [b"one"]


def test_joins_several_data_lines_of_one_event():
    assert events_of(b"data: one\ndata: two\ndata\n\n") == [b"one\ntwo\n"]


def test_strips_one_space_after_the_colon_and_no_more():
    assert events_of(b"data:one\n\ndata:  two\n\n") == [b"one", b" two"]


def test_does_not_take_a_longer_field_name_for_data():
    assert events_of(b"database: one\n\n") == []


def test_never_gives_an_event_that_the_end_cut_off():
    assert events_of(b"data: one\n\ndata: two\n") == [b"one"]


STREAM = st.lists(
    st.sampled_from(
        [b"data: x", b"data:", b"data", b": c", b"id: 1", b"", b"\n", b"\r", b"\r\n", b" "]
    ),
    max_size=30,
).map(b"".join)


@given(stream=STREAM, cuts=st.lists(st.integers(0, 120)))
def test_any_split_of_the_bytes_gives_the_same_events(stream, cuts):
    places = [0, *sorted(cuts), len(stream)]
    pieces = [stream[a:b] for a, b in pairwise(places)]
    assert events_of(*pieces) == events_of(stream)


@given(stream=STREAM)
def test_crlf_and_lf_give_the_same_events(stream):
    with_lf = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n") + b":"
    assert events_of(with_lf.replace(b"\n", b"\r\n")) == events_of(with_lf)
