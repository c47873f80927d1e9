"""Hold what an engine answered, as far as scoring reads it, and what a scorer says of it.

Absent is None everywhere: an unknown token count and a score that could not be computed are None,
never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from hybridserve_llm.values.requests import JsonObject


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens an engine counted for one attempt; None where it did not say."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One tool call of an answer; `arguments` is the text the model wrote, not yet parsed."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One choice of a completion, as far as scoring needs it.

    Attributes:
        text: The answer without reasoning; empty when the model wrote none.
        logprobs: Log-probability (natural log) of every generated token, reasoning and markup
            included, shape [n_tokens]; None when the engine sent none. An entry is None where the
            engine left one token's out.
        token_ids: Ids of the same tokens, shape [n_tokens]; None when not asked for.
        token_bytes: Text of the same tokens in UTF-8, shape [n_tokens]; None when the engine did
            not tell every token's. vLLM gives a character that several tokens share to the last
            of them and leaves the others empty; other engines may give each its own bytes.
        margins: Probability of the likeliest token minus that of the next, among the alternatives
            that the engine returned, shape [n_tokens]; an entry is None where it returned fewer
            than two, and the whole is None where that is so for all.
    """

    text: str
    finish_reason: str | None
    logprobs: tuple[float | None, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    token_bytes: tuple[bytes, ...] | None = None
    margins: tuple[float | None, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An engine's whole answer: the parts we read, and `body`, the JSON it sent."""

    answers: tuple[Answer, ...]
    usage: Usage
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One event of an engine's stream: the JSON it sent, and its usage where the event says it."""

    body: JsonObject
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What is said of an answer: by a scorer from its own tokens, then by a judge from all so far.

    Attributes:
        score: None when no score may be given (a missing log-probability, an empty answer, a
            failed check); `reason` then says why.
        confidence: Calibrated P(right); None without calibration.
        risk: Calibrated P(accepting it does harm); None without calibration.
        answer_key: Normal form of the answer: equal keys agree. None where nobody reads it.
        features: The answer's features by name; None where nobody reads them, or none are known.
        output_type: Kind of answer, known with the features.
    """

    score: float | None
    confidence: float | None = None
    reason: str | None = None
    risk: float | None = None
    answer_key: str | None = None
    features: Mapping[str, float | None] | None = None
    output_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An answer of the tier with index `tier` that a request has got so far."""

    tier: int
    assessment: Assessment
