"""The day-0 score: what can be said of an answer before any label exists. Uncertified.

Short answers are scored by the sum of their tokens' log-probabilities, longer ones by their 5 %
quantile: over long text a sum measures length and a mean hides the one wrong word. Both are weak
priors; `hs-calibrate` replaces them by a model fitted to labels and a certificate.
"""

from dataclasses import dataclass

from hybridserve_llm.confidence.pools import quantile_logprob, sum_logprob
from hybridserve_llm.confidence.span import SHORT_ANSWER_TOKENS, ScoredSpan, scored_span
from hybridserve_llm.records import Assessment, Completion, GenerateRequest

LOW_QUANTILE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class DayZeroScorer:
    """Score of a completion: the least of its answers' scores, as all of them would be taken.

    `reasoning_end_id` is the id of the token that ends reasoning in this tier's vocabulary; a tier
    that reasons and whose id is not known gets no score, since its answer cannot be told apart.
    """

    is_reasoning: bool = False
    reasoning_end_id: int | None = None

    @property
    def name(self) -> str:
        """Name and version, part of the fingerprint."""
        return "day-0/2"

    @property
    def top_logprobs(self) -> int:
        """0: the sampled token's own log-probability is all that this score reads."""
        return 0

    def assess(self, request: GenerateRequest, completion: Completion) -> Assessment:
        """The score, or the reason why there is none; `confidence` is always None."""
        if not completion.answers:
            return Assessment(score=None, reason="the engine sent no answer")
        scores: list[float] = []
        for answer in completion.answers:
            span = scored_span(
                request,
                answer,
                completion.usage,
                is_reasoning=self.is_reasoning,
                reasoning_end_id=self.reasoning_end_id,
            )
            if isinstance(span, str):
                return Assessment(score=None, reason=span)
            scores.append(span_score(span))
        return Assessment(score=min(scores))


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
