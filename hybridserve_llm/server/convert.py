"""Between the wire and the records, in both directions; nothing else."""

from collections.abc import Mapping
from typing import Any

from hybridserve_llm.errors import InvalidRequest
from hybridserve_llm.server.protocol import (
    CascadeOverrides,
    ChatBody,
    CompletionBody,
    GenerationBody,
    engine_payload,
)
from hybridserve_llm.values.ledger import Attempt, Ledger, Outcome
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, JsonObject, Overrides

_JSON_FORMATS = frozenset({"json_object", "json_schema"})
_COMPLETION_TOKENS = 16
_SHOWN = (
    *("tier", "model", "decision", "reason", "score", "confidence", "risk"),
    *("prompt_tokens", "cached_tokens", "completion_tokens"),
    *("ttft_s", "latency_s", "energy_j", "energy_source"),
)
"""Fields of an attempt that clients see, in this order; the class of an error stays in records."""
_TOTALLED = ("prompt_tokens", "cached_tokens", "completion_tokens", "latency_s", "energy_j")


def to_request(
    body: GenerationBody,
    raw: JsonObject,
    *,
    request_id: str,
    deadline_s: float,
    only_tier: str | None,
    trace: Mapping[str, str] | None = None,
) -> GenerateRequest:
    """The request as the cascade takes it; `only_tier` is set when a tier was named as model.

    Raises:
        InvalidRequest: The cascade cannot honour a field that a single tier could, or overrides
            came with a tier's own name.
    """
    endpoint = Endpoint.CHAT if isinstance(body, ChatBody) else Endpoint.COMPLETIONS
    if only_tier is None:
        _check_cascade_can_serve(body, raw)
    wished = body.hybridserve
    if only_tier is not None and wished != CascadeOverrides(assess=wished.assess):
        raise InvalidRequest(
            f"overrides are for the cascade, and model names the tier {only_tier!r} alone",
            parameter="hybridserve",
        )
    format_type = (body.response_format or {}).get("type")
    tools = (body.tools or []) if isinstance(body, ChatBody) else []
    return GenerateRequest(
        request_id=request_id,
        endpoint=endpoint,
        payload=_payload(body, raw),
        stream=body.stream,
        include_usage=body.stream_options is not None and body.stream_options.include_usage,
        max_output_tokens=_output_limit(body),
        client_top_logprobs=body.client_top_logprobs,
        overrides=Overrides(
            min_confidence=wished.min_confidence,
            min_tier=only_tier or wished.min_tier,
            max_tier=only_tier or wished.max_tier,
            policy=wished.policy,
        ),
        deadline_s=deadline_s,
        json_answer=format_type in _JSON_FORMATS,
        tool_names=frozenset(_tool_name(tool) for tool in tools),
        assess=wished.assess,
        trace=trace,
        only_tier=only_tier,
    )


def _output_limit(body: GenerationBody) -> int | None:
    """The client's limit of output tokens, by which an answer may be cut and still be whole.

    Source: OpenAI's reference of `/v1/completions`, where `max_tokens` is 16 unless it is given.
    """
    if body.output_limit is None and isinstance(body, CompletionBody):
        return _COMPLETION_TOKENS
    return body.output_limit


def _payload(body: GenerationBody, raw: JsonObject) -> JsonObject:
    """What every engine gets; the completion API's own limit is told, so that all have the same."""
    payload = engine_payload(raw)
    if isinstance(body, CompletionBody):
        payload["max_tokens"] = _output_limit(body)
    return payload


def _check_cascade_can_serve(body: GenerationBody, raw: JsonObject) -> None:
    """Passes where the request means the same to every tier that may answer it."""
    asks_log_likelihood = {
        "echo": isinstance(body, CompletionBody) and body.echo,
        "prompt_logprobs": raw.get("prompt_logprobs") is not None,
    }
    for name in filter(asks_log_likelihood.__getitem__, asks_log_likelihood):
        raise InvalidRequest(
            f"{name}: the log-likelihood of a prompt is one model's, and a cascade is several; "
            "ask one tier, by its own name as the model (GET /v1/models lists them)",
            parameter=name,
        )
    prompt = body.prompt if isinstance(body, CompletionBody) else ""
    if isinstance(prompt, str):
        return
    if any(not isinstance(part, str) for part in prompt):
        raise InvalidRequest(
            "a prompt of token ids means different text to tiers with different tokenizers; "
            "send text, or name one tier as the model",
            parameter="prompt",
        )
    if len(prompt) > 1:
        raise InvalidRequest(
            f"the cascade takes one prompt a request, got {len(prompt)}; "
            "send them one by one, or name one tier as the model",
            parameter="prompt",
        )


def _tool_name(tool: JsonObject) -> str:
    function = tool.get("function")
    return str(function.get("name", "")) if isinstance(function, dict) else ""


def to_response(outcome: Outcome, request: GenerateRequest) -> dict[str, Any]:
    """The response body: the accepted answer as its engine wrote it, and the ledger."""
    sent = outcome.completion.body
    body = {key: value for key, value in sent.items() if key not in _INTERNAL_FIELDS}
    body["model"] = outcome.ledger.model
    body["choices"] = [trimmed_choice(choice, request) for choice in body.get("choices", ())]
    body["hybridserve"] = ledger_json(outcome.ledger)
    return body


def trimmed_choice(choice: JsonObject, request: GenerateRequest) -> dict[str, Any]:
    """The choice with the log-probabilities that the client asked for, and no more.

    The scorer may have asked for more than the client: none, then, for a client that wanted none,
    and the first k alternatives for one that wanted k.
    """
    trimmed = {key: value for key, value in choice.items() if key not in _INTERNAL_FIELDS}
    wanted = request.client_top_logprobs
    if wanted is None:
        if "logprobs" in trimmed:
            trimmed["logprobs"] = None
        return trimmed
    logprobs = trimmed.get("logprobs")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        content = [
            {**token, "top_logprobs": (token.get("top_logprobs") or [])[:wanted]}
            for token in logprobs["content"]
        ]
        trimmed["logprobs"] = {**logprobs, "content": content}
    return trimmed


_INTERNAL_FIELDS = frozenset({"token_ids", "prompt_token_ids"})
"""What we ask of engines for ourselves; beside the choices in chat, inside them in completions."""


def ledger_json(ledger: Ledger) -> dict[str, Any]:
    """The ledger as the body field `hybridserve` shows it (design section 6); absent is null."""
    return {
        "tier": ledger.tier,
        "confidence": ledger.confidence,
        "certified": ledger.certified,
        "attempts": [_attempt_json(attempt) for attempt in ledger.attempts],
        "totals": {name: _total(ledger, name) for name in _TOTALLED},
        "energy_settled": False,
        "energy_reason": ledger.energy_reason,
    }


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    shown = {name: getattr(attempt, name) for name in _SHOWN}
    known = attempt.assessment
    if known is not None:
        shown |= {
            "no_score_reason": known.reason,
            "features": None if known.features is None else dict(known.features),
            "output_type": known.output_type,
            "answer_key": known.answer_key,
        }
    return shown


def _total(ledger: Ledger, name: str) -> float | None:
    """The sum over all attempts, or None when one of them is unknown."""
    values = [getattr(attempt, name) for attempt in ledger.attempts]
    return None if not values or any(value is None for value in values) else sum(values)
