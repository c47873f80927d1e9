"""The features of one answer: a fixed vector that a fitted model reads, and the type of the answer.

Their order is part of every fitted model: a change of FEATURE_NAMES or of a formula needs a new
version of the models that read them. All are finite. A feature is None where the engine sent too
few alternatives for it (the margins), and a model fitted without it does not miss it; whatever else
is missing gives no features at all, but the reason.
"""

from dataclasses import dataclass
from enum import StrEnum

from hybridserve_llm.confidence.pools import (
    first_logprob,
    first_margin,
    log_length,
    lowest_window_mean,
    mean_margin,
    min_margin,
    quantile_of_sorted,
    sum_logprob,
    tail_mean,
    unsure_share_of_sorted,
)
from hybridserve_llm.confidence.schema_checks import expects_json
from hybridserve_llm.confidence.span import SHORT_ANSWER_TOKENS, ScoredSpan, scored_span
from hybridserve_llm.values.answers import Answer, Usage
from hybridserve_llm.values.requests import GenerateRequest

FEATURE_NAMES = (
    "mean_logprob",
    "min_logprob",
    "q05_logprob",
    "q10_logprob",
    "q25_logprob",
    "q50_logprob",
    "clipped_sum_logprob",
    "log_length",
    "unsure_share",
    "lowest_window_mean",
    "tail_mean",
    "first_logprob",
    "null_share",
    "mean_margin",
    "min_margin",
    "first_margin",
    "has_reasoning",
    "log_reasoning_length",
    "reasoning_lowest_window_mean",
    "reasoning_tail_mean",
)

WINDOW_TOKENS = 16
REASONING_WINDOW_TOKENS = 64
SUM_FLOOR = -50.0
"""Below e^-50 a sum tells length alone, and would pull at a linear model without bound."""

ABSTENTION_OPENINGS = (
    "as an ai",
    "i am afraid i",
    "i am not able",
    "i am not sure",
    "i am sorry",
    "i am unable",
    "i apologi",
    "i can not",
    "i can't",
    "i cannot",
    "i could not find",
    "i couldn't find",
    "i do not have",
    "i do not know",
    "i don't have",
    "i don't know",
    "i have no",
    "i must decline",
    "i will not",
    "i won't",
    "i'm afraid i",
    "i'm not able",
    "i'm not sure",
    "i'm sorry",
    "i'm unable",
    "it is not possible to",
    "it's not possible to",
    "no one knows",
    "not enough information",
    "sorry,",
    "there is no information",
    "there is not enough",
    "there isn't enough",
    "unfortunately, i",
)
"""How refusals and "I don't know" begin in English, lower-cased; other languages are not seen."""
ABSTENTIONS = frozenset({"n/a", "no idea", "not sure", "unanswerable", "unknown"})
"""Whole answers that abstain, lower-cased and without their full stop."""


class OutputType(StrEnum):
    """What kind of answer it is; log-probabilities mean different things for each."""

    SHORT = "short"
    TEXT = "text"
    JSON = "json"
    TOOL_CALL = "tool_call"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFeatures:
    """Features of one answer; `values` are in the order of FEATURE_NAMES."""

    values: tuple[float | None, ...]
    output_type: OutputType


def answer_features(
    request: GenerateRequest,
    answer: Answer,
    usage: Usage,
    *,
    is_reasoning: bool,
    reasoning_end_id: int | None,
) -> AnswerFeatures | str:
    """The features of this answer, or the reason why it has none."""
    span = scored_span(
        request, answer, usage, is_reasoning=is_reasoning, reasoning_end_id=reasoning_end_id
    )
    return span if isinstance(span, str) else features_of_span(request, answer, span)


def features_of_span(
    request: GenerateRequest, answer: Answer, span: ScoredSpan
) -> AnswerFeatures | str:
    """`answer_features` of a span that is already cut out, so that a scorer cuts it once."""
    reasoning = span.reasoning
    if reasoning is None:
        return "a token of the reasoning has no log-probability"
    return AnswerFeatures(
        values=(
            *_pooled(span.logprobs),
            null_share(span),
            *_pooled_margins(span.margins),
            *_pooled_reasoning(reasoning),
        ),
        output_type=output_type_of(request, answer, span),
    )


def _pooled(logprobs: tuple[float, ...]) -> tuple[float, ...]:
    """All pools that read log-probabilities alone; most of them share one sort."""
    ordered, total = sorted(logprobs), sum_logprob(logprobs)
    return (
        total / len(logprobs),
        ordered[0],
        quantile_of_sorted(ordered, 0.05),
        quantile_of_sorted(ordered, 0.10),
        quantile_of_sorted(ordered, 0.25),
        quantile_of_sorted(ordered, 0.50),
        max(total, SUM_FLOOR),
        log_length(len(logprobs)),
        unsure_share_of_sorted(ordered),
        lowest_window_mean(logprobs, WINDOW_TOKENS),
        tail_mean(logprobs, WINDOW_TOKENS),
        first_logprob(logprobs),
    )


def _pooled_margins(margins: tuple[float, ...] | None) -> tuple[float | None, ...]:
    if margins is None:
        return (None, None, None)
    return (mean_margin(margins), min_margin(margins), first_margin(margins))


def _pooled_reasoning(logprobs: tuple[float, ...]) -> tuple[float, ...]:
    """An indicator, then the pools; all 0 where the model did not reason."""
    if not logprobs:
        return (0.0, 0.0, 0.0, 0.0)
    return (
        1.0,
        log_length(len(logprobs)),
        lowest_window_mean(logprobs, REASONING_WINDOW_TOKENS),
        tail_mean(logprobs, REASONING_WINDOW_TOKENS),
    )


def null_share(span: ScoredSpan) -> float:
    """Share of the JSON values that are null; 0 where the answer has no known values.

    Log-probabilities tell right from wrong well for values that were given, badly for those that
    were withheld. Source: Type-Conditioned Confidence (OpenReview VqpLqTSEdX, AdaptFM 2026).
    """
    values = span.values or ()
    return sum(value.is_null for value in values) / len(values) if values else 0.0


def output_type_of(request: GenerateRequest, answer: Answer, span: ScoredSpan) -> OutputType:
    """The type of an answer that passed its checks; JSON that holds nothing but null abstains."""
    if answer.tool_calls:
        return OutputType.TOOL_CALL
    if is_abstention(answer.text) or null_share(span) == 1.0:
        return OutputType.ABSTAIN
    if expects_json(request):
        return OutputType.JSON
    is_short = len(span.logprobs) <= SHORT_ANSWER_TOKENS
    return OutputType.SHORT if is_short else OutputType.TEXT


def is_abstention(text: str) -> bool:
    """Whether an English answer refuses, or says that it does not know, by how it begins."""
    # 64 characters hold every opening; the rest of a long answer is not copied.
    opening = text.lstrip()[:64].lower().replace("\u2019", "'")
    return opening.startswith(ABSTENTION_OPENINGS) or opening.rstrip(" .!\n") in ABSTENTIONS
