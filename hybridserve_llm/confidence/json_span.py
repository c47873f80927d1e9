"""Which bytes of an answer are JSON values: what a model decided, apart from what JSON demands.

Braces, quotes, commas, colons, whitespace and keys come from the schema or the grammar; under a
grammar their log-probability is about 0 and says nothing. Values, and the name of a called tool,
are the answer.

All offsets count bytes of the token stream, the tokens' bytes one after the other: tokens of
byte-level tokenizers cut characters in half, so characters cannot be counted. Whether a text *is*
JSON is not judged here: answers come here after their checks, and what is searched for in a stream
is parsed by orjson before it is believed.
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
    """Bytes [start, end) of one scalar; a string's are those between its quotes.

    An empty string, object or array has no byte of its own: the closing delimiter stands for it,
    since choosing that one is how the model left it empty. A tuple, since one is made for every
    value on the hot path, and a frozen dataclass takes three times as long.
    """

    start: int
    end: int
    is_null: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonScan:
    """What one pass over a JSON text found; `end` is where it stopped.

    `values` are in order; `objects` are [start, end) of every closed object, the inner ones first.
    """

    values: tuple[JsonValue, ...]
    objects: tuple[tuple[int, int], ...]
    end: int


def scan_json(stream: bytes, start: int = 0) -> JsonScan:
    """The values and objects of the JSON text that begins at `start`; O(bytes read), iterative.

    Stops at the end of that text, and at the first byte that no JSON text has in its place.
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
    """Values of the JSON answer `text` within `stream`; None where the stream does not hold it."""
    start = stream.find(_encoded(text.strip()))
    return None if start < 0 else scan_json(stream, start).values


def tool_call_values(stream: bytes, calls: Sequence[ToolCall]) -> tuple[JsonValue, ...] | None:
    """Names and argument values of all `calls` within `stream`, None where one is not found.

    Engines parse the model's markup and may write the arguments anew, with other whitespace and
    escapes; so they are found as the object in the stream that parses to the same arguments.
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
    """Where the call's arguments are, and the scan of the outermost object around them."""
    arguments = orjson.loads(call.arguments)
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
    """The tool's name beside its arguments; nothing where the model did not write it.

    In JSON markup it is a value of the object around the arguments, mostly before them. Other
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


def _parsed(candidate: bytes) -> Any:
    """The parsed object; None, which equals no arguments, where it is not JSON."""
    try:
        return orjson.loads(candidate)
    except orjson.JSONDecodeError:
        return None


def _encoded(text: str) -> bytes:
    # A lone surrogate has no bytes; replaced, it is not found, and the whole answer is scored.
    return text.encode(errors="replace")
