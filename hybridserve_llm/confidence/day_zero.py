"""The day-0 score: what can be said of an answer before any label exists. Uncertified.

Short answers are scored by the sum of their tokens' log-probabilities, longer ones by their 5 %
quantile: over long text a sum measures length and a mean hides the one wrong word. Both are weak
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
    """What is computed beside the score; `margins` are features that need alternatives."""

    agreement: bool = False
    features: bool = False
    margins: bool = False


ALL = Reads(agreement=True, features=True, margins=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class DayZeroScorer:
    """Score of a completion: the least of its answers' scores, as all of them would be taken.

    Attributes:
        reasoning_end_id: Id of the token that ends reasoning in this tier's vocabulary; a tier
            that reasons and whose id is not known gets no score, since its answer cannot be told
            apart.
        reads: What fitted models read beside the score; it is not computed otherwise.
    """

    is_reasoning: bool = False
    reasoning_end_id: int | None = None
    reads: Reads = Reads()

    @property
    def name(self) -> str:
        """Name and version, part of the fingerprint."""
        return "day-0/2"

    def top_logprobs(self, request: GenerateRequest) -> int:
        """0, since the score reads the sampled token's own alone; 5 where margins are read."""
        return MARGIN_TOP_LOGPROBS if self.reads.margins or request.assess else 0

    def assess(self, request: GenerateRequest, completion: Completion) -> Assessment:
        """The score, or the reason why there is none, and what `reads` names of a single answer."""
        if not completion.answers:
            return Assessment(score=None, reason="the engine sent no answer")
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


def span_score(span: ScoredSpan) -> float:
    """The day-0 score of one answer's scored tokens.

    Where the values of JSON or a tool call are known, every scored token is the model's own
    choice, and one of log-probability 0 counts as the certain choice that it is.
    """
    if span.values is not None and len(span.logprobs) > SHORT_ANSWER_TOKENS:
        return quantile_logprob(span.logprobs, LOW_QUANTILE)
    return day_zero_score(span.logprobs)


def day_zero_score(logprobs: tuple[float, ...]) -> float:
    """Sum of `logprobs` up to SHORT_ANSWER_TOKENS tokens, else their LOW_QUANTILE; both <= 0.

    Tokens of log-probability exactly 0 were forced by a grammar: they say nothing and, many as
    JSON punctuation is, would pull the quantile up, so they are left out of it.
    """
    if len(logprobs) <= SHORT_ANSWER_TOKENS:
        return sum_logprob(logprobs)
    chosen_freely = tuple(value for value in logprobs if value < 0.0)
    return quantile_logprob(chosen_freely, LOW_QUANTILE) if chosen_freely else 0.0
