"""Hold what an engine answered, as far as scoring reads it, and what a scorer says of it.

Absent is None everywhere: an unknown token count and a score that could not be computed are None,
never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from hybridserve_llm.values.requests import JsonObject


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold the tokens that an engine counted for one attempt; None where it did not say."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """Hold one tool call of an answer; `arguments` is the model's text, not yet parsed."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Hold one choice of a completion, as far as scoring needs it.

    Attributes:
        text: The answer without reasoning; empty when the model wrote none.
        logprobs: Log-probability (natural log) of every generated token, reasoning and markup
            included, shape [n_tokens]; None when the engine sent none. An entry is None where the
            engine left one token's out.
        token_ids: Ids of the same tokens, shape [n_tokens]; None when not asked for.
        token_bytes: Text of the same tokens in UTF-8, shape [n_tokens]; None when the engine did
            not send every token's. vLLM gives a character that several tokens share to the last
            of them and leaves the others empty; other engines may give each its own bytes.
        margins: Probability of the likeliest token minus that of the next, among the alternatives
            that the engine returned, shape [n_tokens]; an entry is None where it returned fewer
            than two, and the whole is None where that is so for all.
        unscorable: Why its log-probabilities say nothing of the model's confidence; None where they
            are the model's own.
        unreadable: What of the text or the tool calls is not in the API's shape; None where all is.
    """

    text: str
    finish_reason: str | None
    logprobs: tuple[float | None, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    token_bytes: tuple[bytes, ...] | None = None
    margins: tuple[float | None, ...] | None = None
    unscorable: str | None = None
    unreadable: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """Hold an engine's whole answer: the parts we read, and `body`, the JSON it sent."""

    answers: tuple[Answer, ...]
    usage: Usage
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Hold one event of an engine's stream.

    Attributes:
        usage: None where the event has none.
        finish_reasons: For the index of each choice in the event, the word that ends it; None
            where it goes on.
        has_tokens: Whether the event brings a piece of the answer, and not its role alone.
    """

    body: JsonObject
    usage: Usage | None = None
    finish_reasons: Mapping[int, str | None] = field(default_factory=dict)
    has_tokens: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """Hold what a scorer says of an answer by its tokens, and a judge by all answers so far.

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
    """Hold the assessment of an answer that the tier with index `tier` gave to a request."""

    tier: int
    assessment: Assessment
