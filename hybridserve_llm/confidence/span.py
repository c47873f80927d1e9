"""Which tokens of a completion are scored: not reasoning, not what JSON or a tool's markup demands.

The end of reasoning is found by token id, not by text: byte-level pieces make text ambiguous, and a
reasoning model may well write its own marker's letters inside an answer. Values of a JSON answer
and of a tool call are found by their bytes (`json_span`), and a token that holds any byte of one is
scored. Where the bytes cannot be matched to tokens, the whole answer is scored: that score is
weaker, since it holds tokens that were forced, but it is no invention.
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
    """What is known of the tokens that are scored, and of the reasoning before them.

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
    """Index of the first token after the last end-of-reasoning token; 0 where there is none.

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
    """What may be scored of this answer, or the reason why nothing may."""
    reason = failed_check(request, answer, usage)
    if reason is not None:
        return reason
    if not answer.logprobs:
        return "the engine sent no log-probabilities"
    start = 0
    if is_reasoning:
        if reasoning_end_id is None:
            return "the token that ends reasoning is not known"
        if answer.token_ids is None or len(answer.token_ids) != len(answer.logprobs):
            return "the engine sent no token ids, so reasoning cannot be told from the answer"
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
    """The span of `whole`, the known log-probabilities from token `start` on."""
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
    """The numbers, or None where one of them is missing or not finite."""
    # One sum finds all three among them ten times sooner than a test of each number does: None
    # does not add, and what holds a NaN or an infinity sums to one.
    try:
        is_known = math.isfinite(sum(numbers))  # type: ignore[arg-type]  # None raises
    except TypeError:
        return None
    return tuple(cast("Sequence[float]", numbers)) if is_known else None


def _values(request: GenerateRequest, answer: Answer, start: int) -> tuple[JsonValue, ...] | None:
    """Values of a JSON answer or of tool calls in the bytes of the tokens from `start` on."""
    is_json = bool(answer.tool_calls) or expects_json(request)
    pieces = answer.token_bytes
    if not is_json or pieces is None or len(pieces) != len(answer.logprobs or ()):
        return None
    stream = b"".join(pieces[start:])
    if answer.tool_calls:
        return tool_call_values(stream, answer.tool_calls)
    return json_answer_values(stream, answer.text)


def tokens_holding(values: Sequence[JsonValue], pieces: Sequence[bytes]) -> tuple[int, ...]:
    """Indices of the tokens that hold any byte of a value; O(bytes).

    vLLM gives a character that several tokens share to the last of them; the others, left empty,
    count as holding the byte that comes next, which is the first of that character.

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
