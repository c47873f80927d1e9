"""The JSON scanner: which bytes are values, against json and orjson on generated texts."""

import json
import time
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.confidence.json_span import (
    json_answer_values,
    scan_json,
    tool_call_values,
)
from hybridserve_llm.values.answers import ToolCall

EMPTY = object()
"""Stands for an empty string, object or array among the leaves of a generated text."""
SPACE = st.sampled_from(["", "", " ", "\n", "\t \r\n"])


def values_of(text: str) -> list[bytes]:
    stream = text.encode()
    return [stream[value.start : value.end] for value in scan_json(stream).values]


def written_string(text: str, *, is_ascii: bool) -> str:
    return json.dumps(text, ensure_ascii=is_ascii)


STRINGS = st.builds(
    lambda text, is_ascii: (written_string(text, is_ascii=is_ascii), [text or EMPTY]),
    st.text(),
    is_ascii=st.booleans(),
)
SCALARS = st.builds(
    lambda value: (json.dumps(value), [value]),
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False),
)


def arrays(children: st.SearchStrategy) -> st.SearchStrategy:
    items = st.lists(st.tuples(SPACE, children, SPACE), max_size=4)
    return st.builds(
        lambda items, space: (
            "[" + (",".join(a + child[0] + b for a, child, b in items) or space) + "]",
            [leaf for _, child, _ in items for leaf in child[1]] or [EMPTY],
        ),
        items,
        SPACE,
    )


def objects(children: st.SearchStrategy) -> st.SearchStrategy:
    key = st.sampled_from(["a", "b", "", 'k"e\\y', "schlüssel", "null"])  # few: some come twice
    pairs = st.lists(st.tuples(SPACE, key, SPACE, SPACE, children, SPACE), max_size=4)
    return st.builds(
        lambda pairs, space: (
            "{"
            + (
                ",".join(f"{a}{json.dumps(k)}{b}:{c}{v[0]}{d}" for a, k, b, c, v, d in pairs)
                or space
            )
            + "}",
            [leaf for pair in pairs for leaf in pair[4][1]] or [EMPTY],
        ),
        pairs,
        SPACE,
    )


JSON_TEXTS = st.recursive(
    STRINGS | SCALARS, lambda children: arrays(children) | objects(children), max_leaves=20
)


def test_keys_and_punctuation_are_left_out() -> None:
    text = '{"name": "Ada", "age": 36, "tags": ["x", true], "in": {"deep": -1.5e3}}'
    assert values_of(text) == [b"Ada", b"36", b"x", b"true", b"-1.5e3"]


def test_a_scalar_is_all_value() -> None:
    assert values_of("42") == [b"42"]
    assert values_of(' "yes" ') == [b"yes"]


def test_escapes_end_no_string() -> None:
    assert values_of(r'{"a\"b": "c\\", "d": "\"e:\u00e9"}') == [rb"c\\", rb"\"e:\u00e9"]


def test_both_values_of_a_key_that_comes_twice_are_kept() -> None:
    assert values_of('{"a": 1, "a": 2}') == [b"1", b"2"]


def test_what_is_empty_is_stood_for_by_its_closing_delimiter() -> None:
    assert values_of('{"a": "", "b": [], "c": { }}') == [b'"', b"]", b"}"]
    assert values_of("{}") == [b"}"]


def test_null_is_marked_and_the_word_null_is_not() -> None:
    values = scan_json(b'[null, "null", {"null": 1}]').values
    assert [value.is_null for value in values] == [True, False, False]


def test_objects_are_told_innermost_first_and_the_scan_stops_at_the_texts_end() -> None:
    text = b'{"a": {"b": 1}} {"c": 2}'
    scan = scan_json(text)
    assert [text[slice(*extent)] for extent in scan.objects] == [b'{"b": 1}', b'{"a": {"b": 1}}']
    assert scan.end == len(b'{"a": {"b": 1}}')


@pytest.mark.parametrize("text", [b"", b"}", b'{"a', b'{"a": ~}', b"[[[[", b'"\\'])
def test_what_is_no_json_is_scanned_as_far_as_it_goes(text: bytes) -> None:
    assert scan_json(text).objects == ()


@given(JSON_TEXTS, SPACE)
def test_the_values_are_the_leaves(generated: tuple[str, list[Any]], space: str) -> None:
    text, leaves = generated
    stream = (space + text).encode()
    orjson.loads(stream)  # the generator writes JSON
    scan = scan_json(stream)
    assert scan.end == len(stream)
    assert len(scan.values) == len(leaves)
    for value, leaf in zip(scan.values, leaves, strict=True):
        piece = stream[value.start : value.end]
        if leaf is EMPTY:
            assert piece in (b'"', b"]", b"}")
        elif isinstance(leaf, str):
            assert orjson.loads(b'"' + piece + b'"') == leaf
        else:
            assert json.loads(piece) == leaf
        assert value.is_null == (leaf is None)


@given(JSON_TEXTS)
def test_every_object_parses(generated: tuple[str, list[Any]]) -> None:
    stream = generated[0].encode()
    extents = scan_json(stream).objects
    assert all(isinstance(orjson.loads(stream[a:b]), dict) for a, b in extents)
    n_objects = 0

    def counted(pairs: list[tuple[str, Any]]) -> None:
        nonlocal n_objects
        n_objects += 1

    json.loads(stream, object_pairs_hook=counted)
    assert len(extents) == n_objects


@given(st.binary() | st.text(alphabet='{}[]",:\\ anul1-', max_size=60).map(str.encode))
def test_any_bytes_are_scanned_within_their_bounds(stream: bytes) -> None:
    scan = scan_json(stream)
    assert 0 <= scan.end <= len(stream)
    assert all(0 <= value.start < value.end <= len(stream) for value in scan.values)
    assert list(scan.values) == sorted(scan.values)


HOSTILE = {
    "unclosed objects": "{" * 200_000,
    "unclosed objects with keys": '{"a":' * 40_000,
    "closed objects": '{"a":' * 3000 + "1" + "}" * 3000,
    "unclosed string": '{"' + "\\" * 200_000,
    "escaped quotes": '{"' + '\\"' * 100_000,
    "escaped quotes and objects": '{"' + '{\\"' * 70_000,
    "strings without commas": '{"a' * 70_000,
    "whitespace": "{" + " " * 200_000,
    "keys": "{" + '"a" ' * 50_000,
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_costs_its_length_and_not_its_square(text: str) -> None:
    # 200 kB, whose square would take minutes.
    start_s = time.process_time()
    assert tool_call_values(text.encode(), (ToolCall(name="f", arguments="{}"),)) is None
    assert time.process_time() - start_s < 5


def test_values_of_an_answer_among_other_tokens() -> None:
    stream = '\n\n{"é": "ü"}<|end|>'.encode()
    values = json_answer_values(stream, ' {"é": "ü"}\n')
    assert values is not None
    assert [stream[value.start : value.end] for value in values] == ["ü".encode()]


@pytest.mark.parametrize("text", ['{"a": 2}', '{"a":1}', '"\ud800"'])
def test_an_answer_that_the_tokens_do_not_spell_has_no_known_values(text: str) -> None:
    assert json_answer_values(b'{"a": 1}', text) is None


def call(name: str, **arguments: Any) -> ToolCall:
    return ToolCall(name=name, arguments=json.dumps(arguments))


def called(stream: str, *calls: ToolCall) -> list[str] | None:
    encoded = stream.encode()
    values = tool_call_values(encoded, calls)
    return (
        None if values is None else [encoded[value.start : value.end].decode() for value in values]
    )


MARKUPS = {
    "hermes": '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "x"}}\n</tool_call><|end|>',
    "other whitespace": '<tool_call>{"name":"add","arguments":{ "a":1,\n"b":"x" }}</tool_call>',
    "other escapes": '{"name": "add", "arguments": {"a": 1, "\\u0062": "x"}}',
    "arguments first": '[{"parameters": {"a": 1, "b": "x"}, "name": "add"}]',
    "name outside": '[TOOL_CALLS]add{"a": 1, "b": "x"}',
    "prose before": 'I add {them}: {"name": "add", "arguments": {"a": 1, "b": "x"}}',
}


@pytest.mark.parametrize("stream", MARKUPS.values(), ids=MARKUPS)
def test_the_name_and_the_arguments_values_are_kept(stream: str) -> None:
    assert called(stream, call("add", a=1, b="x")) == ["add", "1", "x"]


def test_a_forced_call_has_no_name_of_its_own() -> None:
    assert called('{"a": 1}', call("add", a=1)) == ["1"]


def test_a_call_without_arguments_is_its_name_and_the_bracket_that_left_them_out() -> None:
    assert called('{"name": "now", "arguments": {}}', call("now")) == ["now", "}"]


def test_a_name_is_not_mistaken_for_a_key() -> None:
    stream = '{"name": "name", "arguments": {"name": "name"}}'
    encoded = stream.encode()
    wanted = ToolCall(name="name", arguments='{"name": "name"}')
    values = tool_call_values(encoded, (wanted,))
    assert values is not None
    assert [value.start for value in values] == [
        stream.index('"name",') + 1,
        stream.rindex('name"}}'),
    ]


def test_several_calls_in_one_array() -> None:
    stream = (
        '[{"name": "add", "parameters": {"a": 1}}, {"name": "add", "parameters": {"a": 1}},'
        ' {"name": "sub", "parameters": {"a": 2}}]'
    )
    found = called(stream, call("add", a=1), call("add", a=1), call("sub", a=2))
    assert found == ["add", "1", "add", "1", "sub", "2"]
    wrapped = f'{{"calls": {stream}}}'
    assert called(wrapped, call("add", a=1), call("add", a=1), call("sub", a=2)) == found


@pytest.mark.parametrize(
    ("stream", "wanted"),
    [
        ("<function=add><parameter=a>1</parameter></function>", call("add", a=1)),
        ('{"name": "add", "arguments": {"a": 2}}', call("add", a=1)),
        ("null", ToolCall(name="add", arguments="null")),
        ("{~}", ToolCall(name="add", arguments="null")),
    ],
)
def test_arguments_that_are_not_in_the_tokens_are_not_guessed(stream: str, wanted: ToolCall):
    assert called(stream, wanted) is None


@given(
    st.dictionaries(
        st.text(max_size=5), st.text(max_size=5) | st.integers(0, 9) | st.none(), max_size=4
    ),
    st.booleans(),
    st.sampled_from([None, 0, 2]),
)
def test_arguments_are_found_however_they_were_written(
    arguments: dict[str, Any], is_ascii: bool, indent: int | None
) -> None:
    written = json.dumps(
        {"name": "f1", "arguments": arguments}, ensure_ascii=is_ascii, indent=indent
    )
    stream = f"<tool_call>{written}</tool_call>".encode()
    values = tool_call_values(stream, (ToolCall(name="f1", arguments=json.dumps(arguments)),))
    assert values is not None
    assert len(values) == 1 + max(1, len(arguments))
    assert [value.is_null for value in values[1:]] == (
        [value is None for value in arguments.values()] or [False]
    )
