"""Select the tokens of a completion to score: not reasoning, not the markup of JSON or tools.

The end of reasoning is found by token id, not by text: byte-level pieces make text ambiguous, and a
reasoning model may well write its own marker's letters inside an answer. Values of a JSON answer
and of a tool call are found by their bytes (`json_span`), and a token that holds any byte of one is
scored. Where the bytes cannot be matched to tokens, the whole answer is scored. That score is
weaker, since it holds tokens that were forced, but it is not invented.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from hybridserve_llm.confidence.checks import failed_check
from hybridserve_llm.confidence.json_span import JsonValue, json_answer_values, tool_call_values
from hybridserve_llm.confidence.schema_checks import expects_json
from hybridserve_llm.values.answers import Answer, Usage
from hybridserve_llm.values.requests import GenerateRequest

SHORT_ANSWER_TOKENS = 32
"""An answer of at most so many scored tokens is short (our choice, from no paper)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredSpan:
    """Hold what is known of the scored tokens, and of the reasoning before them.

    Attributes:
        logprobs: Log-probability of each scored token, shape [n_scored], n_scored >= 1, finite.
        margins: Margins of the same tokens, shape [n_scored]; None where one is not known.
        reasoning: Log-probabilities of the reasoning without its end marker, shape
            [n_reasoning]; empty without reasoning, None where one is not known.
        values: The JSON values that `logprobs` was narrowed to; None where the answer is not JSON
            and no tool call, or its bytes could not be matched to tokens.
    """

    logprobs: tuple[float, ...]
    margins: tuple[float, ...] | None
    reasoning: tuple[float, ...] | None
    values: tuple[JsonValue, ...] | None


def answer_start(token_ids: Sequence[int], reasoning_end_id: int) -> int:
    """Return the index of the first token after the last end-of-reasoning token; 0 without one.

    Args:
        token_ids: Ids of all generated tokens, shape [n_tokens].
        reasoning_end_id: Id of the token that ends reasoning, e.g. that of `</think>`.
    """
    for i in range(len(token_ids) - 1, -1, -1):
        if token_ids[i] == reasoning_end_id:
            return i + 1
    return 0


def scored_span(
    request: GenerateRequest,
    answer: Answer,
    usage: Usage,
    *,
    is_reasoning: bool,
    reasoning_end_id: int | None,
) -> ScoredSpan | str:
    """Return the span of this answer that may be scored, or the reason why none may."""
    reason = failed_check(request, answer, usage)
    if reason is not None:
        return reason
    if answer.unscorable is not None:
        return answer.unscorable
    if not answer.logprobs:
        return "the engine sent no log-probabilities"
    start = 0
    if is_reasoning:
        if reasoning_end_id is None:
            return "the token that ends reasoning is not known"
        if answer.token_ids is None or len(answer.token_ids) != len(answer.logprobs):
            return "the engine sent no token ids, so reasoning cannot be separated from the answer"
        start = answer_start(answer.token_ids, reasoning_end_id)
    if start == len(answer.logprobs):
        return "the answer is empty"
    whole = _known(answer.logprobs[start:])
    if whole is None:
        return "a token of the answer has no log-probability"
    return _narrowed(request, answer, start, whole)


def _narrowed(
    request: GenerateRequest, answer: Answer, start: int, whole: tuple[float, ...]
) -> ScoredSpan:
    """Return the span to score of the answer whose known log-probabilities are `whole`.

    They begin at token `start`.
    """
    margins: Sequence[float | None] = (answer.margins or ())[start:]
    # start - 1: the marker that ends reasoning is neither reasoning nor answer.
    reasoning = _known((answer.logprobs or ())[: max(0, start - 1)])
    values = _values(request, answer, start)
    if values is not None:
        kept = tokens_holding(values, (answer.token_bytes or ())[start:])
        margins = [margins[i] for i in kept] if len(margins) == len(whole) else ()
        whole = tuple(whole[i] for i in kept)
    return ScoredSpan(
        logprobs=whole,
        margins=_known(margins) if len(margins) == len(whole) else None,
        reasoning=reasoning,
        values=values,
    )


def _known(numbers: Sequence[float | None]) -> tuple[float, ...] | None:
    """Return the numbers, or None where one of them is missing or not finite."""
    # One sum finds all three among them ten times sooner than a test of each number does: None
    # does not add, and a sum with a NaN or an infinity is one.
    try:
        is_known = math.isfinite(sum(numbers))  # type: ignore[arg-type]  # None raises
    except TypeError:
        return None
    return tuple(cast("Sequence[float]", numbers)) if is_known else None


def _values(request: GenerateRequest, answer: Answer, start: int) -> tuple[JsonValue, ...] | None:
    """Return the values of JSON or of tool calls in the bytes of the tokens from `start` on."""
    is_json = bool(answer.tool_calls) or expects_json(request)
    pieces = answer.token_bytes
    if not is_json or pieces is None or len(pieces) != len(answer.logprobs or ()):
        return None
    stream = b"".join(pieces[start:])
    if answer.tool_calls:
        return tool_call_values(stream, answer.tool_calls)
    return json_answer_values(stream, answer.text)


def tokens_holding(values: Sequence[JsonValue], pieces: Sequence[bytes]) -> tuple[int, ...]:
    """Return the indices of the tokens that hold any byte of a value; O(bytes).

    vLLM gives a character that several tokens share to the last of them. The other tokens are
    empty. They count as holding the next byte, which is the first of that character.

    Args:
        values: In bytes of the stream that `pieces` make up.
        pieces: Bytes of each token, shape [n_tokens].
    """
    is_value = bytearray(sum(map(len, pieces)))
    for value in values:
        is_value[value.start : value.end] = b"\1" * (value.end - value.start)
    kept, at = [], 0
    for i, piece in enumerate(pieces):
        if is_value.find(1, at, at + (len(piece) or 1)) >= 0:
            kept.append(i)
        at += len(piece)
    return tuple(kept)
