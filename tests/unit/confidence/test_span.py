"""Which tokens are scored: answers without reasoning, JSON and tool calls without boilerplate."""

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.confidence.json_span import JsonValue, scan_json
from hybridserve_llm.confidence.span import ScoredSpan, answer_start, scored_span, tokens_holding
from hybridserve_llm.values.answers import Answer, ToolCall, Usage
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

END_THINK = 6


def spanned(answer: Answer, *, is_reasoning: bool = False, **asked: Any) -> ScoredSpan | str:
    values: dict[str, Any] = {"request_id": "r", "endpoint": Endpoint.CHAT, "payload": {}, **asked}
    return scored_span(
        GenerateRequest(**values),
        answer,
        Usage(),
        is_reasoning=is_reasoning,
        reasoning_end_id=END_THINK if is_reasoning else None,
    )


def answered(*pieces: bytes, text: str | None = None, **parts: Any) -> Answer:
    """An answer of these tokens; token i has log-probability -(i + 1), so that sums tell which."""
    values: dict[str, Any] = {
        "text": b"".join(pieces).decode() if text is None else text,
        "finish_reason": "stop",
        "logprobs": tuple(-float(i + 1) for i in range(len(pieces))),
        "token_bytes": pieces,
        **parts,
    }
    return Answer(**values)


def kept(span: ScoredSpan | str) -> list[int]:
    """Indices of the scored tokens of `answered`."""
    assert isinstance(span, ScoredSpan), span
    return [round(-value) - 1 for value in span.logprobs]


def test_text_is_scored_whole() -> None:
    span = spanned(answered(b"The", b" sum", b" is 42", b"<|end|>", text="The sum is 42"))
    assert kept(span) == [0, 1, 2, 3]
    assert isinstance(span, ScoredSpan)
    assert (span.values, span.reasoning, span.margins) == (None, (), None)


def test_json_is_scored_on_the_tokens_that_hold_a_value() -> None:
    #        0       1        2      3     4       5      6        7
    tokens = b'{"', b"name", b'": "', b"Ada", b'", "', b"age", b'": 3', b"6}"
    span = spanned(
        answered(*tokens, b"<|end|>", text='{"name": "Ada", "age": 36}'), json_answer=True
    )
    assert kept(span) == [3, 6, 7]  # Ada; `": 3` holds the 3, `6}` the 6


def test_json_that_nobody_asked_for_is_text() -> None:
    assert kept(spanned(answered(b'{"a', b'": ', b"1}"))) == [0, 1, 2]


def test_numbers_glued_to_commas_are_value_tokens() -> None:
    assert kept(spanned(answered(b"[", b"1,2", b",", b"3]"), json_answer=True)) == [1, 3]


def test_half_characters_are_scored_with_their_value() -> None:
    # "é" is 0xC3 0xA9. Tokens of other engines hold one byte each; the key's halves are left out.
    tokens = (b'{"', b"\xc3", b"\xa9", b'":"', b"\xc3", b"\xa9", b'"}')
    assert kept(spanned(answered(*tokens), json_answer=True)) == [4, 5]


def test_a_token_that_vllm_left_empty_goes_with_the_character_that_follows() -> None:
    # vLLM writes both bytes to the last of the tokens that share a character.
    tokens = (b'{"', b"", "é".encode(), b'":"', b"", "é".encode(), b"", b'"}')
    # Token 6 is empty before a quote, so it is markup.
    assert kept(spanned(answered(*tokens), json_answer=True)) == [4, 5]


def test_a_tool_call_is_scored_on_its_name_and_its_arguments_values() -> None:
    tokens = (b'<tool_call>{"name": "', b"add", b'", "arguments": {"a', b'": ', b"1", b"}}")
    call = ToolCall(name="add", arguments='{"a": 1}')
    answer = answered(*tokens, b"</tool_call>", text="", tool_calls=(call,))
    assert kept(spanned(answer, tool_names=frozenset({"add"}))) == [1, 4]


UNMATCHED = {
    "no bytes": {"token_bytes": None},
    "too few bytes": {"token_bytes": (b'{"a": ', b"1")},
    "other text": {"token_bytes": (b"{", b'"a":', b"1}")},
    "placeholders": {"token_bytes": (b"token_id:1", b"token_id:2", b"token_id:3")},
}


@pytest.mark.parametrize("parts", UNMATCHED.values(), ids=UNMATCHED)
def test_json_whose_bytes_cannot_be_matched_is_scored_whole(parts: dict[str, Any]) -> None:
    span = spanned(answered(b'{"a"', b": 1", b"}", **parts), json_answer=True)
    assert kept(span) == [0, 1, 2]
    assert isinstance(span, ScoredSpan)
    assert span.values is None


def test_margins_and_values_are_those_of_the_scored_tokens() -> None:
    answer = answered(b'{"a":', b"null", b"}", margins=(0.1, 0.2, None))
    span = spanned(answer, json_answer=True)
    assert isinstance(span, ScoredSpan)
    assert span.margins == (0.2,)
    assert span.values == (JsonValue(5, 9, is_null=True),)


@pytest.mark.parametrize("margins", [None, (0.1, None), (0.1,), (0.1, float("nan"))])
def test_margins_that_are_not_known_for_every_token_are_none(margins: Any) -> None:
    span = spanned(answered(b"a", b"b", margins=margins))
    assert isinstance(span, ScoredSpan)
    assert span.margins is None


def test_reasoning_is_told_from_the_answer_and_its_marker_belongs_to_neither() -> None:
    ids = (50, 51, END_THINK, 52)
    answer = answered(b"hm", b"so", b"</think>", b"42", text="42", token_ids=ids)
    span = spanned(answer, is_reasoning=True)
    assert isinstance(span, ScoredSpan)
    assert span.reasoning == (-1.0, -2.0)
    assert kept(span) == [3]


def test_json_that_was_thought_of_is_not_the_answer() -> None:
    ids = (50, END_THINK, 51, 52, 53)
    tokens = (b'{"a": 1}', b"</think>", b'{"a": ', b"1", b"}")
    answer = answered(*tokens, text='{"a": 1}', token_ids=ids)
    assert kept(spanned(answer, is_reasoning=True, json_answer=True)) == [3]


def test_a_tier_that_did_not_reason_has_no_reasoning() -> None:
    span = spanned(answered(b"4", b"2", token_ids=(50, 51)), is_reasoning=True)
    assert isinstance(span, ScoredSpan)
    assert (span.reasoning, kept(span)) == ((), [0, 1])


def test_reasoning_without_a_log_probability_is_none_and_the_answer_is_scored() -> None:
    ids = (50, END_THINK, 51)
    answer = answered(b"a", b"b", b"c", logprobs=(None, -2.0, -3.0), token_ids=ids)
    span = spanned(answer, is_reasoning=True)
    assert isinstance(span, ScoredSpan)
    assert span.reasoning is None
    assert kept(span) == [2]


@pytest.mark.parametrize("missing", [None, float("nan"), float("-inf")])
def test_boilerplate_without_a_log_probability_is_a_missing_one_too(missing: float | None) -> None:
    answer = answered(b'{"a":', b"1", b"}", logprobs=(missing, -1.0, -1.0))
    assert spanned(answer, json_answer=True) == "a token of the answer has no log-probability"


def test_a_failed_check_comes_before_a_missing_log_probability() -> None:
    assert spanned(answered(b" ", logprobs=None)) == "the answer is empty"


def test_the_last_end_of_reasoning_counts() -> None:
    assert answer_start([1, END_THINK, 2, END_THINK, 3], END_THINK) == 4
    assert answer_start([1, 2], END_THINK) == 0


def cut(text: bytes, places: list[int]) -> list[bytes]:
    ends = [0, *sorted(place % (len(text) + 1) for place in places), len(text)]
    return [text[a:b] for a, b in pairwise(ends) if a < b]


JSON_OBJECTS = st.dictionaries(
    st.text(max_size=4),
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.lists(st.integers(0, 99)),
    min_size=1,
    max_size=4,
)


@given(JSON_OBJECTS, st.booleans(), st.lists(st.integers(0, 500), max_size=40))
def test_however_the_text_is_cut_a_token_counts_if_it_holds_a_byte_of_a_value(
    value: dict[str, Any], is_ascii: bool, places: list[int]
) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode()
    pieces = cut(text, places)
    values = scan_json(text).values
    in_value = {i for span in values for i in range(span.start, span.end)}
    expected, at = [], 0
    for i, piece in enumerate(pieces):
        if in_value & set(range(at, at + len(piece))):
            expected.append(i)
        at += len(piece)
    assert list(tokens_holding(values, pieces)) == expected
    assert expected
