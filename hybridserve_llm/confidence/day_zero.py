"""The day-0 score: what can be said of an answer before any label exists. Uncertified.

Short answers are scored by the sum of their tokens' log-probabilities, longer ones by their 5 %
quantile: over long text a sum measures length and a mean hides the one wrong word. Both are weak
priors; `hs-calibrate` replaces them by a model fitted to labels and a certificate.
"""

import math
from dataclasses import dataclass

from hybridserve_llm.confidence.checks import failed_check
from hybridserve_llm.confidence.pools import quantile_logprob, sum_logprob
from hybridserve_llm.confidence.span import answer_start
from hybridserve_llm.records import Answer, Assessment, Completion, GenerateRequest

SHORT_ANSWER_TOKENS = 32
"""Answers up to this length are scored by their sum (our choice, from no paper)."""
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
        return "day-0/1"

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
            reason = failed_check(request, answer, completion.usage)
            if reason is not None:
                return Assessment(score=None, reason=reason)
            scored = self._answer_logprobs(answer)
            if isinstance(scored, str):
                return Assessment(score=None, reason=scored)
            scores.append(day_zero_score(scored))
        return Assessment(score=min(scores))

    def _answer_logprobs(self, answer: Answer) -> tuple[float, ...] | str:
        """Log-probabilities of the answer span, or why they are not to be had."""
        if not answer.logprobs:
            return "the engine sent no log-probabilities"
        start = 0
        if self.is_reasoning:
            if self.reasoning_end_id is None:
                return "the token that ends reasoning is not known"
            if answer.token_ids is None or len(answer.token_ids) != len(answer.logprobs):
                return "the engine sent no token ids, so reasoning cannot be told from the answer"
            start = answer_start(answer.token_ids, self.reasoning_end_id)
        span = answer.logprobs[start:]
        known = tuple(value for value in span if value is not None and not math.isnan(value))
        if len(known) < len(span):
            return "a token of the answer has no log-probability"
        return known or "the answer is empty"


def day_zero_score(logprobs: tuple[float, ...]) -> float:
    """Sum of `logprobs` up to SHORT_ANSWER_TOKENS tokens, else their LOW_QUANTILE; both <= 0.

    Tokens of log-probability exactly 0 were forced by a grammar: they say nothing and, many as
    JSON punctuation is, would pull the quantile up, so they are left out of it.
    """
    if len(logprobs) <= SHORT_ANSWER_TOKENS:
        return sum_logprob(logprobs)
    chosen_freely = tuple(value for value in logprobs if value < 0.0)
    return quantile_logprob(chosen_freely, LOW_QUANTILE) if chosen_freely else 0.0
