"""The decision: accept, escalate or skip. Pure; `eval/` replays recorded attempts through it.

Two kinds: `ScorePolicy` decides by day-0 scores and promises nothing; `RiskPolicy`
(`risk_policy.py`) by calibrated risk, and may be certified.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.ledger import Verdict
from hybridserve_llm.values.requests import GenerateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A verdict with its reason; `next_tier` is the index to go on to, None after an accept."""

    verdict: Verdict
    reason: str
    next_tier: int | None = None


LAST_RESORT = Decision(verdict=Verdict.ACCEPT, reason="last tier that may be asked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one request allows: tier indices to begin and to end at, and a confidence to reach."""

    first_tier: int
    final_tier: int
    min_confidence: float | None = None


class Policy(Protocol):
    """Which tier is asked next, from the prompt and from the answers so far."""

    @property
    def has_confidence(self) -> bool:
        """Whether answers get a confidence, so that a request may demand one."""

    @property
    def is_certified(self) -> bool:
        """Whether its loss is certified, for requests that the certificate covers."""

    def entry(self, request: GenerateRequest, bounds: Bounds) -> int:
        """Index of the tier that is asked first."""

    def decide(self, seen: Sequence[Seen], bounds: Bounds) -> tuple[Assessment, Decision]:
        """What becomes of the last of `seen`, with all that is known of it."""

    def above(self, tier: int) -> int:
        """Index of the tier to ask where `tier` gave no answer at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkipRule:
    """Scores below `score_below` send the prompt to the tier at index `to_tier`."""

    score_below: float
    to_tier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRule:
    """When a tier's answer is taken, and where very low scores go.

    The last tier's rule is never asked: whatever may be asked last is always taken.
    """

    accept_at: float
    skips: tuple[SkipRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScorePolicy:
    """Day-0 scores against the thresholds of the configuration, by tier index; uncertified."""

    rules: tuple[TierRule, ...]
    has_confidence: bool = False
    is_certified: bool = False

    def entry(self, request: GenerateRequest, bounds: Bounds) -> int:
        """The first tier that the request allows."""
        return bounds.first_tier

    def decide(self, seen: Sequence[Seen], bounds: Bounds) -> tuple[Assessment, Decision]:
        """By the last answer's own score alone."""
        last = seen[-1]
        rule, final = self.rules[last.tier], bounds.final_tier
        return last.assessment, decide(rule, last.assessment, tier=last.tier, final_tier=final)

    def above(self, tier: int) -> int:
        """The next tier."""
        return tier + 1


def decide(rule: TierRule, assessment: Assessment, *, tier: int, final_tier: int) -> Decision:
    """What becomes of the answer of tier index `tier`, when `final_tier` may be asked at most.

    An answer without a score is never accepted below the final tier: no confidence is invented.
    Of several skip rules that apply, the one that goes furthest up wins (HybridServe, arXiv
    2505.12566: the lower the confidence, the further up); no skip goes beyond `final_tier`.
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
