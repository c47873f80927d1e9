"""vLLM's JSON, both ways: the body of a request, and the parts of an answer that we read.

Pure; `Any` stops here. A log-probability that the engine did not give is None and is never
replaced by a number.
"""

import math
from collections.abc import Iterable
from typing import Any

import orjson

from hybridserve_llm.errors import EngineFailed, InvalidRequest
from hybridserve_llm.values.answers import Answer, Chunk, Completion, ToolCall, Usage
from hybridserve_llm.values.requests import Endpoint, EngineRequest, JsonObject

_MISSING_LOGPROB = -9999.0
"""What vLLM writes for a token whose log-probability it lacks, and for minus infinity
(`entrypoints/openai/chat_completion/protocol.py` of 0.32)."""


def request_body(request: EngineRequest, *, model: str, stream: bool) -> bytes:
    """The JSON body that asks `model` for what `request` wants.

    Raises:
        InvalidRequest: The payload cannot be written as JSON (a lone surrogate, a huge integer).
    """
    body: dict[str, Any] = {**request.request.payload, "model": model, "stream": stream}
    if stream:
        body["stream_options"] = {"include_usage": True}
    if request.top_logprobs is not None:
        if request.request.endpoint is Endpoint.CHAT:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        else:
            body["logprobs"] = request.top_logprobs
    if request.needs_token_ids:
        body["return_token_ids"] = True
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as exc:
        raise InvalidRequest(f"the request cannot be written as JSON: {exc}") from exc


def decoded_object(content: bytes, *, engine: str) -> dict[str, Any]:
    """The JSON object in `content`.

    Raises:
        EngineFailed: It is not JSON, or not an object.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError as exc:
        raise EngineFailed(f"engine {engine} sent invalid JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise EngineFailed(f"engine {engine} sent {type(body).__name__}, expected a JSON object")
    return body


def completion_of(body: JsonObject, endpoint: Endpoint, *, engine: str) -> Completion:
    """The whole answer in `body`, as far as we read it.

    Raises:
        EngineFailed: `body` has not the shape that `endpoint` answers with; the message says where.
    """
    read_answer = _chat_answer if endpoint is Endpoint.CHAT else _text_answer
    try:
        # An answer without a choice is none: `or None` makes an empty list malformed.
        choices = _checked(body.get("choices") or None, list, "choices")
        return Completion(
            answers=tuple(
                read_answer(_checked(choice, dict, f"choices[{i}]"))
                for i, choice in enumerate(choices)
            ),
            usage=_usage(body.get("usage")),
            body=body,
        )
    except _ShapeError as exc:
        raise EngineFailed(f"engine {engine} sent a malformed answer: {exc}") from exc


def chunk_of(body: JsonObject, *, engine: str) -> Chunk:
    """One event of a stream, with its usage where it says it.

    Raises:
        EngineFailed: The usage is malformed.
    """
    try:
        usage = body.get("usage")
        return Chunk(body=body, usage=None if usage is None else _usage(usage))
    except _ShapeError as exc:
        raise EngineFailed(f"engine {engine} sent a malformed chunk: {exc}") from exc


class _ShapeError(Exception):
    """A value is not what the API promises; never leaves this file."""


def _checked(value: Any, expected: type, name: str) -> Any:
    if not isinstance(value, expected):
        raise _ShapeError(f"{name} is {type(value).__name__}, expected {expected.__name__}")
    return value


def _chat_answer(choice: dict[str, Any]) -> Answer:
    message = _checked(choice.get("message"), dict, "message")
    # Reasoning has a field of its own (`reasoning`, formerly `reasoning_content`): never text.
    text = message.get("content")
    logprobs = choice.get("logprobs")
    content = None if logprobs is None else _checked(logprobs, dict, "logprobs").get("content")
    entries = None if content is None else _entries(content)
    return Answer(
        text="" if text is None else _checked(text, str, "message.content"),
        finish_reason=choice.get("finish_reason"),
        logprobs=None
        if entries is None
        else tuple(_logprob(entry.get("logprob")) for entry in entries),
        token_ids=_token_ids(choice.get("token_ids")),
        tool_calls=tuple(
            map(_tool_call, _checked(message.get("tool_calls") or [], list, "tool_calls"))
        ),
        token_bytes=None if entries is None else _token_bytes(entries),
        margins=None
        if entries is None
        else _margins([entry.get("top_logprobs") for entry in entries]),
    )


def _text_answer(choice: dict[str, Any]) -> Answer:
    logprobs = choice.get("logprobs")
    told = {} if logprobs is None else _checked(logprobs, dict, "logprobs")
    values, top = told.get("token_logprobs"), told.get("top_logprobs")
    return Answer(
        text=_checked(choice.get("text"), str, "text"),
        finish_reason=choice.get("finish_reason"),
        logprobs=None
        if values is None
        else tuple(map(_logprob, _checked(values, list, "logprobs.token_logprobs"))),
        token_ids=_token_ids(choice.get("token_ids")),
        token_bytes=_encoded(told.get("tokens")),
        margins=_margins(map(_listed, top)) if isinstance(top, list) else None,
    )


def _entries(content: Any) -> list[dict[str, Any]]:
    return [
        _checked(entry, dict, "logprobs.content entry")
        for entry in _checked(content, list, "logprobs.content")
    ]


def _token_bytes(entries: list[dict[str, Any]]) -> tuple[bytes, ...] | None:
    """The bytes of every token, or None where one lacks them: JSON is then scored whole."""
    pieces: list[Any] = [entry.get("bytes") for entry in entries]
    # bytes(n) of a number n is n zero bytes, and no error: hence the check.
    if not all(isinstance(piece, list) for piece in pieces):
        return None
    try:
        return tuple(map(bytes, pieces))
    except (TypeError, ValueError):  # something in a list is no byte
        return None


def _encoded(tokens: Any) -> tuple[bytes, ...] | None:
    """`_token_bytes` from the texts of tokens, which are all that `/v1/completions` tells."""
    if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
        return None
    return tuple(token.encode() for token in tokens)


def _listed(alternatives: Any) -> list[Any]:
    """The alternatives of one token at `/v1/completions`, a dict by text, as a chat has them.

    Two that read alike share a key there, so that the runner-up may be missing and the margin too
    wide by less than its probability.
    """
    is_dict = isinstance(alternatives, dict)
    return [{"logprob": value} for value in alternatives.values()] if is_dict else []


def _margins(alternatives: Iterable[Any]) -> tuple[float | None, ...] | None:
    margins = tuple(map(_margin, alternatives))
    return None if margins.count(None) == len(margins) else margins


def _margin(alternatives: Any) -> float | None:
    """Probability of the likeliest alternative minus that of the next; None without two.

    Engines send alternatives likeliest first, but vLLM the sampled token before all others, so the
    two are among the first three. -9999 is one that a grammar ruled out: its probability is 0.
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


def _logprob(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and value > _MISSING_LOGPROB else None


def _token_ids(value: Any) -> tuple[int, ...] | None:
    return None if value is None else tuple(_checked(value, list, "token_ids"))


def _tool_call(call: Any) -> ToolCall:
    function = _checked(_checked(call, dict, "tool call").get("function"), dict, "function")
    return ToolCall(
        name=_checked(function.get("name"), str, "function.name"),
        arguments=_checked(function.get("arguments"), str, "function.arguments"),
    )


def _usage(usage: Any) -> Usage:
    if usage is None:
        return Usage()
    counts = _checked(usage, dict, "usage")
    details = counts.get("prompt_tokens_details") or {}
    details = _checked(details, dict, "prompt_tokens_details")
    return Usage(
        prompt_tokens=_count(counts, "prompt_tokens"),
        cached_tokens=_count(details, "cached_tokens"),
        completion_tokens=_count(counts, "completion_tokens"),
    )


def _count(counts: dict[str, Any], name: str) -> int | None:
    value = counts.get(name)
    return None if value is None else int(_checked(value, int, f"usage.{name}"))
