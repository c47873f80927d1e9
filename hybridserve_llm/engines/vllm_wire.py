"""vLLM's JSON, both ways: the body of a request, and the parts of an answer that we read.

Pure; `Any` stops here. A log-probability that the engine did not give is None and is never
replaced by a number.
"""

from typing import Any

import orjson

from hybridserve_llm.errors import EngineFailed, InvalidRequest
from hybridserve_llm.records import (
    Answer,
    Chunk,
    Completion,
    Endpoint,
    EngineRequest,
    JsonObject,
    ToolCall,
    Usage,
)

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
    entries = None if logprobs is None else _checked(logprobs, dict, "logprobs").get("content")
    return Answer(
        text="" if text is None else _checked(text, str, "message.content"),
        finish_reason=choice.get("finish_reason"),
        logprobs=None
        if entries is None
        else tuple(
            _logprob(_checked(entry, dict, "logprobs.content entry").get("logprob"))
            for entry in _checked(entries, list, "logprobs.content")
        ),
        token_ids=_token_ids(choice.get("token_ids")),
        tool_calls=tuple(
            map(_tool_call, _checked(message.get("tool_calls") or [], list, "tool_calls"))
        ),
    )


def _text_answer(choice: dict[str, Any]) -> Answer:
    logprobs = choice.get("logprobs")
    values = (
        None if logprobs is None else _checked(logprobs, dict, "logprobs").get("token_logprobs")
    )
    return Answer(
        text=_checked(choice.get("text"), str, "text"),
        finish_reason=choice.get("finish_reason"),
        logprobs=None
        if values is None
        else tuple(map(_logprob, _checked(values, list, "logprobs.token_logprobs"))),
        token_ids=_token_ids(choice.get("token_ids")),
    )


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
    return Usage(
        prompt_tokens=counts.get("prompt_tokens"),
        cached_tokens=_checked(details, dict, "prompt_tokens_details").get("cached_tokens"),
        completion_tokens=counts.get("completion_tokens"),
    )
