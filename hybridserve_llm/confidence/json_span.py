"""Find the bytes of an answer that are JSON values: the model's choices, not JSON's own demands.

Braces, quotes, commas, colons, whitespace and keys come from the schema or the grammar; under a
grammar their log-probability is about 0 and says nothing. Values, and the name of a called tool,
are the answer.

All offsets count bytes of the token stream, which is the tokens' bytes one after the other. Tokens
of byte-level tokenizers cut characters in half, so characters cannot be counted. This file does not
check that a text *is* JSON: answers come here after their checks, and an object that is found in a
stream is parsed by orjson before it is used.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson

from hybridserve_llm.values.answers import ToolCall

_SPACE = rb"[ \t\n\r]*+"
_STRING = rb'"(%b[^"\\]*+(?:\\.[^"\\]*+)*+)"'
# A comma, a key and its colon, and the whitespace among them go with what follows, so that a pair
# is one match. Possessive repeats (`*+`) never give back: an unclosed string costs its length.
_LEXEME = re.compile(
    _SPACE + rb"(?:," + _SPACE + rb")?"
    rb"(?:" + _STRING % b"?:" + _SPACE + rb":" + _SPACE + rb")?+"
    rb"(?:" + _STRING % b"?P<string>" + rb"|(?P<scalar>[-+.0-9A-Za-z]++)"
    rb"|(?P<open>[{\[])|(?P<close>[}\]]))",
    re.DOTALL,
)


class JsonValue(NamedTuple):
    """Hold the bytes [start, end) of one scalar; a string's are those between its quotes.

    An empty string, object or array has no byte of its own. The closing delimiter stands for it,
    since the model left it empty by choosing that one. A tuple, since one is made for every value
    on the hot path, and a frozen dataclass takes three times as long.
    """

    start: int
    end: int
    is_null: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonScan:
    """Hold the result of one pass over a JSON text; `end` is where it stopped.

    `values` are in order; `objects` are [start, end) of every closed object, the inner ones first.
    """

    values: tuple[JsonValue, ...]
    objects: tuple[tuple[int, int], ...]
    end: int


def scan_json(stream: bytes, start: int = 0) -> JsonScan:
    """Return the values and objects of the JSON text that begins at `start`.

    It is iterative and takes O(bytes read). It stops at the end of that text, and at the first byte
    that no JSON text has in its place.
    """
    values: list[JsonValue] = []
    objects: list[tuple[int, int]] = []
    opened: list[int] = []
    at, before = start, None
    # Not finditer: that would search on past an unclosed string, from each of its quotes anew.
    while found := _LEXEME.match(stream, at):
        at, kind = found.end(), found.lastgroup
        if kind == "open":
            opened.append(at - 1)
        elif kind == "close":
            if not opened:
                break
            if before == "open":
                values.append(JsonValue(at - 1, at))
            first = opened.pop()
            if stream[first] == ord("{"):
                objects.append((first, at))
        elif kind == "string":
            first, last = found.span("string")
            values.append(JsonValue(first, max(last, first + 1)))
        elif kind == "scalar":
            values.append(JsonValue(*found.span("scalar"), is_null=found["scalar"] == b"null"))
        if not opened:
            break
        before = kind
    return JsonScan(values=tuple(values), objects=tuple(objects), end=at)


def json_answer_values(stream: bytes, text: str) -> tuple[JsonValue, ...] | None:
    """Return the values of the JSON answer `text` within `stream`; None where it is not found."""
    start = stream.find(_encoded(text.strip()))
    return None if start < 0 else scan_json(stream, start).values


def tool_call_values(stream: bytes, calls: Sequence[ToolCall]) -> tuple[JsonValue, ...] | None:
    """Return names and argument values of all `calls` within `stream`, None where one is missing.

    Engines parse the model's markup and may write the arguments anew, with other whitespace and
    escapes. So they are found as the object in the stream that parses to the same arguments.
    """
    values: list[JsonValue] = []
    cursor = 0
    for call in calls:
        located = _located(stream, cursor, call)
        if located is None:
            return None
        scan, (start, end) = located
        values += _named(stream, cursor, scan, (start, end), call.name)
        values += (value for value in scan.values if start <= value.start < end)
        cursor = end
    return tuple(values)


def _located(stream: bytes, cursor: int, call: ToolCall) -> tuple[JsonScan, tuple[int, int]] | None:
    """Find the call's arguments, and the scan of the outermost object around them."""
    arguments = _parsed(call.arguments)
    if not isinstance(arguments, dict):
        return None
    for scan in _scans(stream, cursor):
        for start, end in scan.objects:
            if _parsed(stream[start:end]) == arguments:
                return scan, (start, end)
    return None


def _scans(stream: bytes, cursor: int) -> Iterator[JsonScan]:
    start = stream.find(b"{", cursor)
    while start >= 0:
        scan = scan_json(stream, start)
        yield scan
        start = stream.find(b"{", scan.end)


def _named(
    stream: bytes, cursor: int, scan: JsonScan, arguments: tuple[int, int], name: str
) -> tuple[JsonValue, ...]:
    """Return the place of the tool's name near its arguments; empty where it was not written.

    In JSON markup the name is a value of the object around the arguments, mostly before them. Other
    markup (`[TOOL_CALLS]add{…}`) has it as bare text before them. A forced call may have neither.
    """
    start, end = arguments
    written = _encoded(name)
    values = [value for value in scan.values if stream[value.start : value.end] == written]
    ahead = [value for value in values if cursor <= value.start < start]
    behind = [value for value in values if value.start >= end]
    if ahead or behind:
        return (ahead[-1] if ahead else behind[0],)
    at = stream.rfind(written, cursor, start)
    return () if at < 0 or not written else (JsonValue(at, at + len(written)),)


def _parsed(candidate: bytes | str) -> Any:
    """Return the parsed object; None, which equals no arguments, where it is not JSON."""
    try:
        return orjson.loads(candidate)
    except orjson.JSONDecodeError:
        return None


def _encoded(text: str) -> bytes:
    # A lone surrogate has no bytes; replaced, it is not found, and the whole answer is scored.
    return text.encode(errors="replace")
