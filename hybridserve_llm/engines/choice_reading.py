"""Read one choice of an engine's answer, as far as scoring needs it.

An answer that is only passed on need not be readable. So nothing here raises: a choice that is not
in the shape of the API becomes an `Answer` that says in `unreadable` what could not be read. It
gets no score. A log-probability that the engine did not give is None and is never replaced by a
number. The file is pure; `Any` stops here.
"""

import math
from collections.abc import Iterable
from typing import Any

from hybridserve_llm.values.answers import Answer, ToolCall
from hybridserve_llm.values.requests import Endpoint, JsonObject

_MISSING_LOGPROB = -9999.0
"""The number that vLLM writes where it lacks a log-probability, and for minus infinity
(`entrypoints/openai/chat_completion/protocol.py` of 0.32)."""
_ROUNDING = 1e-4
"""How far above 0 a log-probability may be by rounding; further above, it is none."""


def choice_answer(choice: JsonObject, endpoint: Endpoint) -> Answer:
    """Return the choice as scoring reads it; the choices of the endpoints differ in shape."""
    return _chat_answer(choice) if endpoint is Endpoint.CHAT else _text_answer(choice)


def finish_reason_of(choice: JsonObject) -> str | None:
    """Return the word that ends the choice, None where it has none; other types as their text."""
    given = choice.get("finish_reason")
    return given if given is None or isinstance(given, str) else repr(given)


class _ShapeError(Exception):
    """Report that a value is not what the API promises; never leaves this file."""


def _checked(value: Any, expected: type, name: str) -> Any:
    if not isinstance(value, expected):
        raise _ShapeError(f"{name} is {type(value).__name__}, expected {expected.__name__}")
    return value


def _chat_answer(choice: JsonObject) -> Answer:
    text, unreadable = "", None
    calls: tuple[ToolCall, ...] = ()
    try:
        message = _checked(choice.get("message"), dict, "message")
        # Reasoning has a field of its own (`reasoning`, formerly `reasoning_content`): never text.
        text = _text(message.get("content"))
        given_calls = _checked(message.get("tool_calls") or [], list, "message.tool_calls")
        calls = tuple(map(_tool_call, given_calls))
    except _ShapeError as exc:
        unreadable = str(exc)
    entries = _entries(choice.get("logprobs"))
    return Answer(
        text=text,
        finish_reason=finish_reason_of(choice),
        logprobs=None
        if entries is None
        else tuple(logprob_of(entry.get("logprob")) for entry in entries),
        token_ids=token_ids_of(choice.get("token_ids")),
        tool_calls=calls,
        token_bytes=None if entries is None else _token_bytes(entries),
        margins=None
        if entries is None
        else _margins([entry.get("top_logprobs") for entry in entries]),
        unreadable=unreadable,
    )


def _text_answer(choice: JsonObject) -> Answer:
    text, given = choice.get("text"), choice.get("logprobs")
    logprobs = given if isinstance(given, dict) else {}
    values, top = logprobs.get("token_logprobs"), logprobs.get("top_logprobs")
    is_readable = isinstance(text, str)
    return Answer(
        text=text if isinstance(text, str) else "",
        finish_reason=finish_reason_of(choice),
        logprobs=tuple(map(logprob_of, values)) if isinstance(values, list) else None,
        token_ids=token_ids_of(choice.get("token_ids")),
        token_bytes=_encoded(logprobs.get("tokens")),
        margins=_margins(map(_listed, top)) if isinstance(top, list) else None,
        unreadable=None if is_readable else f"text is {type(text).__name__}, expected str",
    )


def _text(content: Any) -> str:
    """Return the text of a message's content; that of content parts is joined."""
    if content is None:
        return ""
    if not isinstance(content, list):
        return str(_checked(content, str, "message.content"))
    parts = [_checked(part, dict, "message.content part") for part in content]
    if any(part.get("type") != "text" for part in parts):
        raise _ShapeError("message.content has a part that is no text")
    return "".join(_checked(part.get("text"), str, "message.content text") for part in parts)


def _tool_call(call: Any) -> ToolCall:
    function = _checked(_checked(call, dict, "tool call").get("function"), dict, "function")
    return ToolCall(
        name=_checked(function.get("name"), str, "function.name"),
        arguments=_checked(function.get("arguments"), str, "function.arguments"),
    )


def _entries(logprobs: Any) -> list[dict[str, Any]] | None:
    """Return what a chat's choice says of each token; None where it says nothing readable."""
    content = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(content, list) or not all(isinstance(entry, dict) for entry in content):
        return None
    return content


def _token_bytes(entries: list[dict[str, Any]]) -> tuple[bytes, ...] | None:
    """Return the bytes of every token, or None where one lacks them: JSON is then scored whole."""
    pieces: list[Any] = [entry.get("bytes") for entry in entries]
    # bytes(n) of a number n is n zero bytes, and no error: hence the check.
    if not all(isinstance(piece, list) for piece in pieces):
        return None
    try:
        return tuple(map(bytes, pieces))
    except (TypeError, ValueError):  # something in a list is no byte
        return None


def _encoded(tokens: Any) -> tuple[bytes, ...] | None:
    """Return `_token_bytes` from the texts of tokens, which `/v1/completions` gives instead."""
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None
    return tuple(token.encode(errors="replace") for token in tokens)


def _listed(alternatives: Any) -> list[Any]:
    """Return the alternatives of one token at `/v1/completions` in the form that a chat has.

    They come as a dict by text. Two that read alike share a key there. So the runner-up may be
    missing, and the margin too wide by less than its probability.
    """
    is_dict = isinstance(alternatives, dict)
    return [{"logprob": value} for value in alternatives.values()] if is_dict else []


def _margins(alternatives: Iterable[Any]) -> tuple[float | None, ...] | None:
    margins = tuple(map(_margin, alternatives))
    return None if margins.count(None) == len(margins) else margins


def _margin(alternatives: Any) -> float | None:
    """Return the likeliest alternative's probability minus the next one's; None without two.

    Engines send alternatives likeliest first, but vLLM puts the sampled token before all others, so
    the two are among the first three. -9999 marks one that a grammar ruled out: its probability is
    0.
    """
    if not alternatives:
        return None
    try:
        first, second = alternatives[0]["logprob"], alternatives[1]["logprob"]
        if first < second:
            sampled, first = first, second
            second = max(sampled, alternatives[2]["logprob"]) if len(alternatives) > 2 else sampled
        return math.exp(first) - math.exp(second)
    except (IndexError, KeyError, TypeError, OverflowError):  # not two log-probabilities
        return None


def logprob_of(value: Any) -> float | None:
    """Return a token's log-probability; None where `value` is none."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not _MISSING_LOGPROB < value <= _ROUNDING:
        return None
    return min(float(value), 0.0)


def token_ids_of(value: Any) -> tuple[int, ...] | None:
    """Return the ids of tokens; None where `value` is no list of numbers."""
    if not isinstance(value, list) or not all(isinstance(one, int) for one in value):
        return None
    return tuple(value)
