"""The decision, as a pure function of rule, assessment and place in the cascade."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.cascade.policy import Decision, SkipRule, TierRule, decide
from hybridserve_llm.values.answers import Assessment
from hybridserve_llm.values.ledger import Verdict

RULE = TierRule(accept_at=-0.5, skips=(SkipRule(score_below=-3.0, to_tier=3),))


def verdict(score: float | None, *, tier: int = 0, final_tier: int = 3) -> Decision:
    return decide(RULE, Assessment(score=score, reason="why"), tier=tier, final_tier=final_tier)


def test_accepts_at_the_threshold() -> None:
    assert verdict(-0.5).verdict is Verdict.ACCEPT
    assert verdict(-0.5).next_tier is None


def test_escalates_below_the_threshold() -> None:
    assert (verdict(-0.51).verdict, verdict(-0.51).next_tier) == (Verdict.ESCALATE, 1)


def test_skips_below_the_band() -> None:
    assert (verdict(-3.01).verdict, verdict(-3.01).next_tier) == (Verdict.SKIP, 3)


def test_the_band_does_not_hold_its_own_edge() -> None:
    assert verdict(-3.0).verdict is Verdict.ESCALATE


def test_the_furthest_of_the_bands_that_apply_wins() -> None:
    near, far = SkipRule(score_below=-2.0, to_tier=2), SkipRule(score_below=-4.0, to_tier=3)
    rule = TierRule(accept_at=-0.5, skips=(near, far))
    landings = [
        decide(rule, Assessment(score=score), tier=0, final_tier=3).next_tier
        for score in (-1.0, -3.0, -5.0)
    ]
    assert landings == [1, 2, 3]


def test_no_skip_goes_beyond_the_tier_that_may_be_asked_last() -> None:
    assert verdict(-9.0, final_tier=2).next_tier == 2


def test_an_answer_without_a_score_escalates_with_the_reason() -> None:
    assert verdict(None) == Decision(verdict=Verdict.ESCALATE, reason="why", next_tier=1)


def test_the_final_tier_is_taken_whatever_it_says() -> None:
    assert verdict(None, tier=3).verdict is Verdict.ACCEPT
    assert verdict(-99.0, tier=2, final_tier=2).verdict is Verdict.ACCEPT


SCORES = st.floats(-50, 0)


@given(SCORES, SCORES, SCORES)
def test_a_higher_threshold_never_accepts_more(score: float, one: float, other: float) -> None:
    low, high = sorted((one, other))

    def accepts(threshold: float) -> bool:
        rule = TierRule(accept_at=threshold)
        decision = decide(rule, Assessment(score=score), tier=0, final_tier=1)
        return decision.verdict is Verdict.ACCEPT

    assert accepts(low) or not accepts(high)


@given(st.one_of(st.none(), SCORES), st.integers(0, 5), st.integers(0, 5))
def test_a_decision_accepts_or_goes_up_and_never_past_the_final_tier(
    score: float | None, tier: int, final_tier: int
) -> None:
    rule = TierRule(accept_at=-0.5, skips=(SkipRule(score_below=-2.0, to_tier=tier + 2),))
    decision = decide(rule, Assessment(score=score), tier=tier, final_tier=final_tier)
    if decision.next_tier is None:
        assert decision.verdict is Verdict.ACCEPT
    else:
        assert tier < decision.next_tier <= final_tier


@pytest.mark.parametrize("score", [-0.2, -1.0])
def test_the_reason_names_score_and_threshold(score: float) -> None:
    assert f"{score:.4g}" in verdict(score).reason
    assert "-0.5" in verdict(score).reason


def test_the_reason_of_a_skip_names_its_band() -> None:
    assert verdict(-9.0).reason == "score -9 < -3"
