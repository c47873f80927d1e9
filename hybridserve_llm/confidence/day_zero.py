"""Compute the day-0 score of an answer, which needs no label and is not certified.

Short answers are scored by the sum of their tokens' log-probabilities, longer ones by their 5 %
quantile. Over long text a sum measures length, and a mean hides the one wrong word. Both are weak
priors; `hs-calibrate` replaces them by a model fitted to labels and a certificate.
"""

from dataclasses import dataclass

from hybridserve_llm.confidence.agreement import agreement_key
from hybridserve_llm.confidence.features import FEATURE_NAMES, features_of_span
from hybridserve_llm.confidence.pools import quantile_logprob, sum_logprob
from hybridserve_llm.confidence.span import SHORT_ANSWER_TOKENS, ScoredSpan, scored_span
from hybridserve_llm.values.answers import Assessment, Completion
from hybridserve_llm.values.requests import GenerateRequest

LOW_QUANTILE = 0.05
MARGIN_TOP_LOGPROBS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Reads:
    """Say what is computed next to the score; `margins` are features that need alternatives."""

    agreement: bool = False
    features: bool = False
    margins: bool = False


ALL = Reads(agreement=True, features=True, margins=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayZeroScorer:
    """Score a completion by the least of its answers' scores, as all would be taken together.

    Attributes:
        reasoning_end_id: Id of the token that ends reasoning in this tier's vocabulary. A tier that
            reasons gets no score without it, since its answer cannot be separated from the
            reasoning.
        reads: The further values that fitted models read; others are not computed.
    """

    is_reasoning: bool = False
    reasoning_end_id: int | None = None
    reads: Reads = Reads()

    @property
    def name(self) -> str:
        """Return name and version, which are part of the fingerprint."""
        return "day-0/2"

    def top_logprobs(self, request: GenerateRequest) -> int:
        """Return 0, since the score reads sampled tokens only; 5 where margins are read."""
        return MARGIN_TOP_LOGPROBS if self.reads.margins or request.assess else 0

    def assess(self, request: GenerateRequest, completion: Completion) -> Assessment:
        """Return the score, or the reason for none, and what `reads` names of a single answer."""
        if not completion.answers:
            return Assessment(score=None, reason="the engine sent no answer")
        missing = _missing_logprobs(completion)
        if missing is not None:
            return Assessment(score=None, reason=missing)
        reads = ALL if request.assess else self.reads
        key = agreement_key(completion) if reads.agreement else None
        spans: list[ScoredSpan] = []
        for answer in completion.answers:
            span = scored_span(
                request,
                answer,
                completion.usage,
                is_reasoning=self.is_reasoning,
                reasoning_end_id=self.reasoning_end_id,
            )
            if isinstance(span, str):
                return Assessment(score=None, reason=span, answer_key=key)
            spans.append(span)
        score = min(map(span_score, spans))
        if not reads.features or len(spans) > 1:
            return Assessment(score=score, answer_key=key)
        found = features_of_span(request, completion.answers[0], spans[0])
        if isinstance(found, str):
            return Assessment(score=score, answer_key=key)
        return Assessment(
            score=score,
            answer_key=key,
            features=dict(zip(FEATURE_NAMES, found.values, strict=True)),
            output_type=found.output_type,
        )


def _missing_logprobs(completion: Completion) -> str | None:
    """Return how many tokens lack a log-probability; None where all have one, or none has.

    Some engines count the token that ends an answer and send nothing for it.
    """
    n_tokens = completion.usage.completion_tokens or 0
    n_known = sum(len(answer.logprobs or ()) for answer in completion.answers)
    if n_known == 0 or n_known >= n_tokens - len(completion.answers):
        return None
    return f"the engine sent log-probabilities of {n_known} of {n_tokens} tokens"


def span_score(span: ScoredSpan) -> float:
    """Return the day-0 score of one answer's scored tokens.

    Where the values of JSON or a tool call are known, every scored token is the model's own
    choice, and one of log-probability 0 counts as the certain choice that it is.
    """
    if span.values is not None and len(span.logprobs) > SHORT_ANSWER_TOKENS:
        return quantile_logprob(span.logprobs, LOW_QUANTILE)
    return day_zero_score(span.logprobs)


def day_zero_score(logprobs: tuple[float, ...]) -> float:
    """Return the sum of `logprobs` up to SHORT_ANSWER_TOKENS tokens, else their LOW_QUANTILE.

    Both are <= 0. A token of log-probability exactly 0 was forced by a grammar. Such tokens say
    nothing and are many, as JSON punctuation is. They would pull the quantile up, so they are left
    out of it.
    """
    if len(logprobs) <= SHORT_ANSWER_TOKENS:
        return sum_logprob(logprobs)
    chosen_freely = tuple(value for value in logprobs if value < 0.0)
    return quantile_logprob(chosen_freely, LOW_QUANTILE) if chosen_freely else 0.0
