"""The decision: accept, escalate or skip. Pure; `eval/` replays recorded attempts through it."""

from dataclasses import dataclass

from hybridserve_llm.records import Assessment, Verdict


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
class Decision:
    """A verdict with its reason; `next_tier` is the index to go on to, None after an accept."""

    verdict: Verdict
    reason: str
    next_tier: int | None = None


def decide(rule: TierRule, assessment: Assessment, *, tier: int, final_tier: int) -> Decision:
    """What becomes of the answer of tier index `tier`, when `final_tier` may be asked at most.

    An answer without a score is never accepted below the final tier: no confidence is invented.
    Of several skip rules that apply, the one that goes furthest up wins (HybridServe, arXiv
    2505.12566: the lower the confidence, the further up); no skip goes beyond `final_tier`.
    """
    if tier >= final_tier:
        return Decision(verdict=Verdict.ACCEPT, reason="last tier that may be asked")
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
