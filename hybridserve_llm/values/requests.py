"""Hold what a client asks, free of HTTP, and what one engine is asked for it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

JsonObject = Mapping[str, Any]
"""A decoded JSON object as it came over the wire."""


class Endpoint(StrEnum):
    """Name the OpenAI endpoint that a request came to; the engine is asked at the same one."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """Hold what one request asks of the cascade beyond its configuration; None asks nothing."""

    min_confidence: float | None = None
    min_tier: str | None = None
    max_tier: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """Hold one client request, checked and free of HTTP.

    Attributes:
        request_id: Unique id; returned as `x-request-id`, sent to engines, key of all records.
        payload: The body for an engine without `model`, `stream`, `stream_options`, the
            log-probability fields and `hybridserve`, which are set per attempt.
        max_output_tokens: The client's own limit, or None. An answer cut at it is scored as it is.
        client_top_logprobs: Log-probabilities the client asked for (0 = sampled token only), or
            None when it asked for none.
        deadline_s: Reading of the monotonic clock after which no answer is wanted.
        json_answer: Whether the client asked for an answer that parses as JSON.
        tool_names: Names of the tools offered; a call of any other fails its check.
        assess: Whether every answer is scored, the final tier's too, and all that is known of it is
            sent back; for calibration.
        trace: The client's W3C trace context, its headers `traceparent` and, if sent, `tracestate`;
            engines get them as they are. None where it sent none.
        is_shadow: Whether the watch asks, to compare an answer that a user got already.
        only_tier: The tier whose own name the client gave as model; None for the cascade.
        stream_options: What the client wants of a stream, as it sent it.
        wants_token_ids: Whether the client asked for the ids of tokens.
    """

    request_id: str
    endpoint: Endpoint
    payload: JsonObject
    stream: bool = False
    include_usage: bool = False
    max_output_tokens: int | None = None
    client_top_logprobs: int | None = None
    overrides: Overrides = field(default_factory=Overrides)
    deadline_s: float | None = None
    json_answer: bool = False
    tool_names: frozenset[str] = frozenset()
    assess: bool = False
    trace: Mapping[str, str] | None = None
    is_shadow: bool = False
    only_tier: str | None = None
    stream_options: JsonObject | None = None
    wants_token_ids: bool = False


class Rescoring(StrEnum):
    """Say which answers get the log-probabilities that they would have without a constraint.

    A grammar, a list of choices or a forced tool makes an engine renormalise over what is allowed,
    so that even a wrong answer looks certain. OF_CALLS: a constraint holds inside tool calls alone.
    """

    NEVER = "never"
    OF_CALLS = "of_calls"
    ALWAYS = "always"


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """Hold a client request for one engine, with the number of log-probabilities to send back.

    Attributes:
        top_logprobs: None for none, 0 for the sampled token's alone.
        rescoring: The answers that are scored anew without the request's constraint.
        drops_output_limit: Whether the client's limit of output tokens is left out, so that the
            engine's own room is the limit.
        attempt_deadline_s: Reading of the monotonic clock after which this engine's answer is not
            wanted any more; None where the request's own deadline decides alone.
    """

    request: GenerateRequest
    top_logprobs: int | None
    needs_token_ids: bool = False
    rescoring: Rescoring = Rescoring.NEVER
    drops_output_limit: bool = False
    attempt_deadline_s: float | None = None

    @property
    def deadline_s(self) -> float | None:
        """Return the earlier of the two deadlines; None where there is none."""
        known = [s for s in (self.attempt_deadline_s, self.request.deadline_s) if s is not None]
        return min(known, default=None)


def other_content(messages: Any) -> Iterator[str]:
    """Yield the kind of every part of the messages that is no text; `unknown` without a kind."""
    for message in messages if isinstance(messages, list) else ():
        content = message.get("content") if isinstance(message, Mapping) else None
        if content is not None and not isinstance(content, str | list):
            yield "unknown"
        for part in content if isinstance(content, list) else ():
            kind = part.get("type") if isinstance(part, Mapping) else None
            if kind != "text":
                yield kind if isinstance(kind, str) else "unknown"
