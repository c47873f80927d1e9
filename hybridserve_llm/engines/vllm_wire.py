"""Write and read vLLM's JSON: the body of a request, and the parts of an answer that we use.

The file is pure, and `Any` stops here and in `choice_reading`. A count that the engine did not
give, or not as a number, is None.
"""

from typing import Any

import orjson

from hybridserve_llm.engines.choice_reading import choice_answer, finish_reason_of
from hybridserve_llm.errors import EngineFailed, InvalidRequest
from hybridserve_llm.values.answers import Chunk, Completion, Usage
from hybridserve_llm.values.ends import Ends
from hybridserve_llm.values.requests import Endpoint, EngineRequest, JsonObject, Rescoring

_OUTPUT_LIMITS = ("max_tokens", "max_completion_tokens")


def request_body(request: EngineRequest, *, model: str, stream: bool) -> bytes:
    """Return the JSON body that asks `model` for what `request` wants.

    Raises:
        InvalidRequest: The payload cannot be written as JSON (a lone surrogate, a huge integer).
    """
    body: dict[str, Any] = {**request.request.payload, "model": model, "stream": stream}
    if request.drops_output_limit:
        for name in _OUTPUT_LIMITS:
            body.pop(name, None)
    if stream:
        body["stream_options"] = {**(request.request.stream_options or {}), "include_usage": True}
    if request.top_logprobs is not None:
        if request.request.endpoint is Endpoint.CHAT:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        else:
            body["logprobs"] = request.top_logprobs
    needs_ids = request.needs_token_ids or request.rescoring is not Rescoring.NEVER
    if needs_ids or request.request.wants_token_ids:
        body["return_token_ids"] = True
    try:
        return orjson.dumps(body)
    except orjson.JSONEncodeError as exc:
        raise InvalidRequest(f"the request cannot be written as JSON: {exc}") from exc


def decoded_object(content: bytes, *, engine: str) -> dict[str, Any]:
    """Return the JSON object in `content`.

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
    """Return the whole answer in `body`, as far as we read it.

    Raises:
        EngineFailed: `body` holds no list of choices, or the engine gave one of them up.
    """
    choices = _choices(body, engine=engine)
    ends = Ends(engine)
    ends.saw({i: finish_reason_of(choice) for i, choice in enumerate(choices)})
    ends.close()
    return Completion(
        answers=tuple(choice_answer(choice, endpoint) for choice in choices),
        usage=counted_usage(body),
        body=body,
    )


def chunk_of(body: JsonObject, *, engine: str) -> Chunk:
    """Return one event of a stream, with its usage where it holds one.

    Raises:
        EngineFailed: It holds neither choices nor usage, or choices of another shape.
    """
    usage = body.get("usage")
    has_usage = isinstance(usage, dict)
    choices = [] if has_usage and not body.get("choices") else _choices(body, engine=engine)
    return Chunk(
        body=body,
        usage=_usage(usage) if has_usage else None,
        finish_reasons={_index(choice): finish_reason_of(choice) for choice in choices},
        has_tokens=any(map(_has_tokens, choices)),
    )


def _choices(body: JsonObject, *, engine: str) -> list[dict[str, Any]]:
    choices = body.get("choices")
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        raise EngineFailed(f"engine {engine} sent no list of choices, but {_kind(choices)}")
    return choices


def _kind(choices: Any) -> str:
    return "none" if choices is None else f"{type(choices).__name__} {str(choices)[:80]!r}"


def _index(choice: JsonObject) -> int:
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def _has_tokens(choice: JsonObject) -> bool:
    """Return True where the choice brings a piece of the answer, and not its role alone."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        return bool(choice.get("text"))
    return any(value for key, value in delta.items() if key != "role")


def counted_usage(body: JsonObject) -> Usage:
    """Return the tokens that an engine counted for an answer; None where it counted none."""
    return _usage(body.get("usage"))


def _usage(usage: Any) -> Usage:
    counts = usage if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    return Usage(
        prompt_tokens=_count(counts.get("prompt_tokens")),
        cached_tokens=_count(details.get("cached_tokens")) if isinstance(details, dict) else None,
        completion_tokens=_count(counts.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    """Return a number of tokens; None where the engine sent something else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    is_count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
    return value if is_count else None
