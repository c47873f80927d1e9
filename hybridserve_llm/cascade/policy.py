"""Decide on an answer: accept, escalate or skip.

Decisions are pure functions, so `eval/` can replay recorded attempts through them. Two policies
exist. `ScorePolicy` decides by day-0 scores and promises nothing. `RiskPolicy` (`risk_policy.py`)
decides by calibrated risk and may be certified.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.ledger import Verdict
from hybridserve_llm.values.requests import GenerateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Hold a verdict, its reason, and the index of the next tier; None after an accept."""

    verdict: Verdict
    reason: str
    next_tier: int | None = None


LAST_RESORT = Decision(verdict=Verdict.ACCEPT, reason="last tier that may be asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Hold the first and the final tier that one request allows, and the confidence it demands."""

    first_tier: int
    final_tier: int
    min_confidence: float | None = None


class Policy(Protocol):
    """Choose the tier to ask next, from the prompt and from the answers so far."""

    @property
    def has_confidence(self) -> bool:
        """Return whether answers get a confidence, so that a request may demand one."""

    @property
    def is_certified(self) -> bool:
        """Return whether its loss is certified, for requests that the certificate covers."""

    def entry(self, request: GenerateRequest, bounds: Bounds) -> int:
        """Return the index of the tier that is asked first."""

    def decide(self, seen: Sequence[Seen], bounds: Bounds) -> tuple[Assessment, Decision]:
        """Decide on the last of `seen`, and return its assessment with confidence and risk."""

    def above(self, tier: int) -> int:
        """Return the index of the tier to ask where `tier` gave no answer at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipRule:
    """Send a prompt whose score is below `score_below` to the tier at index `to_tier`."""

    score_below: float
    to_tier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRule:
    """Hold the score at which a tier's answer is taken, and where very low scores go.

    The last tier's rule is never used, since the answer of a final tier is always taken.
    """

    accept_at: float
    skips: tuple[SkipRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePolicy:
    """Compare day-0 scores with the thresholds of the configuration, by tier index; uncertified."""

    rules: tuple[TierRule, ...]
    has_confidence: bool = False
    is_certified: bool = False

    def entry(self, request: GenerateRequest, bounds: Bounds) -> int:
        """Return the first tier that the request allows."""
        return bounds.first_tier

    def decide(self, seen: Sequence[Seen], bounds: Bounds) -> tuple[Assessment, Decision]:
        """Decide by the last answer's own score alone."""
        last = seen[-1]
        rule, final = self.rules[last.tier], bounds.final_tier
        return last.assessment, decide(rule, last.assessment, tier=last.tier, final_tier=final)

    def above(self, tier: int) -> int:
        """Return the next tier."""
        return tier + 1


def decide(rule: TierRule, assessment: Assessment, *, tier: int, final_tier: int) -> Decision:
    """Decide on the answer of the tier at index `tier`; no tier above `final_tier` may be asked.

    An answer without a score is never accepted below the final tier: no confidence is invented.
    Of several skip rules that apply, the one that goes furthest up wins, and no skip goes beyond
    `final_tier`. Source: HybridServe, arXiv 2505.12566: the lower the confidence, the further up.
    """
    if tier >= final_tier:
        return LAST_RESORT
    if assessment.score is None:
        reason = assessment.reason or "no score"
        return Decision(verdict=Verdict.ESCALATE, reason=reason, next_tier=tier + 1)
    if assessment.score >= rule.accept_at:
        reason = f"score {assessment.score:.4g} >= {rule.accept_at:g}"
        return Decision(verdict=Verdict.ACCEPT, reason=reason)
    band = max(
        (skip for skip in rule.skips if assessment.score < skip.score_below),
        key=lambda skip: skip.to_tier,
        default=SkipRule(score_below=rule.accept_at, to_tier=tier + 1),
    )
    next_tier = min(band.to_tier, final_tier)
    return Decision(
        verdict=Verdict.SKIP if next_tier > tier + 1 else Verdict.ESCALATE,
        reason=f"score {assessment.score:.4g} < {band.score_below:g}",
        next_tier=next_tier,
    )
