"""Decisions by risk: accept, escalate, skip, the gate, and what a request may bound."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.cascade.policy import LAST_RESORT, Bounds, Decision
from hybridserve_llm.cascade.risk_policy import RiskBand, RiskPolicy, RiskRule
from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.ledger import Verdict
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

REQUEST = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload={})
ALL = Bounds(first_tier=0, final_tier=3)


@dataclass(frozen=True)
class Judge:
    """Says the same of every answer that has a score."""

    risk: float | None = None
    confidence: float | None = 0.9
    entry: float | None = None

    def judge(self, seen: Sequence[Seen]) -> Assessment:
        own = seen[-1].assessment
        if own.score is None:
            return own
        return replace(own, risk=self.risk, confidence=self.confidence)

    def entry_risk(self, request: GenerateRequest) -> float | None:
        return self.entry


def rule(accept_at_most: float, *bands: tuple[float, int]) -> RiskRule:
    return RiskRule(
        accept_at_most=accept_at_most,
        bands=tuple(RiskBand(risk_above=above, to_tier=tier) for above, tier in bands),
    )


# Of four tiers: accept up to 0.1; then tier 1, above 0.3 tier 2, above 0.6 tier 3.
FIRST = rule(0.1, (0.1, 1), (0.3, 2), (0.6, 3))
RULES = {(0,): FIRST, (1,): rule(0.2, (0.2, 2)), (0, 1): rule(0.05, (0.05, 2), (0.5, 3))}


def policy(risk: float | None = None, **judge: float | None) -> RiskPolicy:
    return RiskPolicy(chain=(0, 1, 2, 3), rules=RULES, judge=Judge(risk, **judge))


def answers(*tiers: int, score: float | None = -1.0, reason: str | None = None) -> list[Seen]:
    assessment = Assessment(score=score, reason=reason)
    return [Seen(tier=tier, assessment=assessment) for tier in tiers]


def decided(risk: float | None, *tiers: int, bounds: Bounds = ALL) -> Decision:
    return policy(risk).decide(answers(*(tiers or (0,))), bounds)[1]


@pytest.mark.parametrize(
    ("risk", "verdict", "next_tier", "reason"),
    [
        (0.05, Verdict.ACCEPT, None, "risk 0.05 <= 0.1"),
        (0.1, Verdict.ACCEPT, None, "risk 0.1 <= 0.1"),
        (0.1001, Verdict.ESCALATE, 1, "risk 0.1001 > 0.1"),
        (0.3, Verdict.ESCALATE, 1, "risk 0.3 > 0.1"),  # a band does not hold its own edge
        (0.3001, Verdict.SKIP, 2, "risk 0.3001 > 0.3"),
        (0.6, Verdict.SKIP, 2, "risk 0.6 > 0.3"),
        (0.7, Verdict.SKIP, 3, "risk 0.7 > 0.6"),
    ],
)
def test_the_higher_the_risk_the_further_up(
    risk: float, verdict: Verdict, next_tier: int | None, reason: str
) -> None:
    assert decided(risk) == Decision(verdict=verdict, reason=reason, next_tier=next_tier)


def test_the_rule_is_that_of_all_tiers_asked() -> None:
    # 0.15 is accepted after tier 1 alone (0.2), not after 0 and 1 (0.05).
    assert decided(0.15, 1).verdict is Verdict.ACCEPT
    assert decided(0.15, 0, 1).next_tier == 2
    assert decided(0.55, 0, 1) == Decision(
        verdict=Verdict.SKIP, reason="risk 0.55 > 0.5", next_tier=3
    )


def test_the_assessment_is_told_with_its_confidence_and_risk() -> None:
    assessment, _ = policy(0.05, confidence=0.8).decide(answers(0), ALL)
    assert assessment == Assessment(score=-1.0, confidence=0.8, risk=0.05)


def test_an_answer_without_a_score_goes_where_the_first_band_leads_with_its_reason() -> None:
    nothing = answers(0, score=None, reason="the answer is empty")
    assert policy(0.0).decide(nothing, ALL) == (
        nothing[0].assessment,
        Decision(verdict=Verdict.ESCALATE, reason="the answer is empty", next_tier=1),
    )


def test_an_answer_without_a_risk_is_never_accepted() -> None:
    reason = "nothing was fitted for the tiers asked so far"
    assert decided(None) == Decision(verdict=Verdict.ESCALATE, reason=reason, next_tier=1)


def test_a_state_without_a_rule_goes_to_the_next_tier_of_the_chain() -> None:
    reason = "nothing was fitted for the tiers asked so far"
    two_tiers = replace(policy(0.0), chain=(0, 3))
    for state, onward in (((0, 2), 3), ((2,), 3)):
        expected = Decision(verdict=Verdict.ESCALATE, reason=reason, next_tier=onward)
        assert two_tiers.decide(answers(*state), ALL)[1] == expected


def test_a_rule_that_accepts_nothing_says_so() -> None:
    never = replace(policy(0.0), rules={(0,): rule(-math.inf, (-math.inf, 1), (0.5, 2))})
    assert never.decide(answers(0), ALL)[1] == Decision(
        verdict=Verdict.ESCALATE, reason="risk 0: nothing is accepted here", next_tier=1
    )
    assert replace(never, judge=Judge(0.7)).decide(answers(0), ALL)[1].reason == "risk 0.7 > 0.5"


def test_a_threshold_below_its_bands_is_the_one_that_is_named() -> None:
    # Steps between two policies of a path keep the laxer one's bands (calibration/path.py).
    stepped = replace(policy(), rules={(0,): rule(0.05, (0.1, 1), (0.3, 2))})
    for risk, reason in ((0.07, "risk 0.07 > 0.05"), (0.4, "risk 0.4 > 0.3")):
        decision = replace(stepped, judge=Judge(risk)).decide(answers(0), ALL)[1]
        assert decision.reason == reason


def test_the_tier_that_may_be_asked_last_is_taken_whatever_it_says() -> None:
    assert decided(0.99, 0, 3) == LAST_RESORT
    assert decided(0.99, 0, bounds=Bounds(first_tier=0, final_tier=0)) == LAST_RESORT


def test_nothing_goes_beyond_the_tier_that_may_be_asked_last() -> None:
    to_one = decided(0.99, bounds=Bounds(first_tier=0, final_tier=1))
    assert (to_one.verdict, to_one.next_tier) == (Verdict.ESCALATE, 1)
    to_two = decided(0.99, bounds=Bounds(first_tier=0, final_tier=2))
    assert (to_two.verdict, to_two.next_tier) == (Verdict.SKIP, 2)


@pytest.mark.parametrize(
    ("confidence", "wanted", "verdict", "reason"),
    [
        (0.9, 0.9, Verdict.ACCEPT, "risk 0.05 <= 0.1"),
        (0.9, 0.95, Verdict.ESCALATE, "confidence 0.9 < 0.95, which the request demands"),
        (None, 0.1, Verdict.ESCALATE, "confidence unknown < 0.1, which the request demands"),
    ],
)
def test_a_demanded_confidence_is_asked_beside_the_risk(
    confidence: float | None, wanted: float, verdict: Verdict, reason: str
) -> None:
    bounds = replace(ALL, min_confidence=wanted)
    _, decision = policy(0.05, confidence=confidence).decide(answers(0), bounds)
    next_tier = None if verdict is Verdict.ACCEPT else 1
    assert decision == Decision(verdict=verdict, reason=reason, next_tier=next_tier)


def test_a_demanded_confidence_takes_no_answer_that_is_too_risky() -> None:
    bounds = replace(ALL, min_confidence=0.0)
    _, decision = policy(0.2, confidence=1.0).decide(answers(0), bounds)
    assert decision.reason == "risk 0.2 > 0.1"


SHARES = st.floats(0, 1)


@given(SHARES, SHARES, st.one_of(st.none(), SHARES), st.one_of(st.none(), SHARES))
def test_raising_the_demanded_confidence_never_accepts_what_was_rejected(
    risk: float, confidence: float, one: float | None, other: float | None
) -> None:
    # None demands nothing, so it is the least.
    low, high = sorted((one, other), key=lambda wanted: -1.0 if wanted is None else wanted)

    def accepts(wanted: float | None) -> bool:
        bounds = replace(ALL, min_confidence=wanted)
        _, decision = policy(risk, confidence=confidence).decide(answers(0), bounds)
        return decision.verdict is Verdict.ACCEPT

    assert accepts(low) or not accepts(high)


@given(st.one_of(st.none(), SHARES), st.sampled_from([(0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]))
def test_a_decision_accepts_or_goes_up_and_never_past_the_final_tier(
    risk: float | None, tiers: tuple[int, ...]
) -> None:
    for final_tier in range(tiers[-1], 4):
        bounds = Bounds(first_tier=0, final_tier=final_tier)
        decision = decided(risk, *tiers, bounds=bounds)
        if decision.next_tier is None:
            assert decision.verdict is Verdict.ACCEPT
        else:
            assert tiers[-1] < decision.next_tier <= final_tier


def entered(chain: tuple[int, ...] = (0, 1, 2, 3), **bounds: int) -> int:
    allowed = replace(ALL, **bounds)
    return replace(policy(), chain=chain).entry(REQUEST, allowed)


def test_prompts_enter_at_the_chains_first_tier_within_what_is_allowed() -> None:
    assert entered() == 0
    assert entered((1, 3)) == 1
    assert entered(first_tier=2) == 2
    # Tier 2 is not in this chain: what begins at 2 or above begins at 3.
    assert entered((0, 1, 3), first_tier=2) == 3
    # A request for tier 2 alone gets it all the same.
    assert entered((0, 1, 3), first_tier=2, final_tier=2) == 2
    assert entered((3,), final_tier=1) == 1


@pytest.mark.parametrize(
    ("risk", "entry"), [(0.0, 0), (0.4, 0), (0.4001, 1), (0.8, 1), (0.9, 3), (None, 0)]
)
def test_a_gate_lets_hard_prompts_enter_further_up(risk: float | None, entry: int) -> None:
    gate = rule(-math.inf, (-math.inf, 0), (0.4, 1), (0.8, 3))
    gated = replace(policy(entry=risk), rules={**RULES, (): gate})
    assert gated.entry(REQUEST, ALL) == entry
    # Where a request begins higher or ends lower, that holds.
    assert gated.entry(REQUEST, replace(ALL, first_tier=2)) == max(entry, 2)
    assert gated.entry(REQUEST, replace(ALL, final_tier=2)) == min(entry, 2)


def test_above_passes_over_tiers_that_were_dropped() -> None:
    chain = replace(policy(), chain=(0, 2, 3))
    assert [chain.above(tier) for tier in (0, 1, 2, 3)] == [2, 2, 3, 4]
    # A climb to the chain's next tier is no skip, though a dropped tier lies between.
    to_two = replace(chain, rules={(0,): rule(0.1, (0.1, 2), (0.5, 3))}, judge=Judge(0.2))
    assert to_two.decide(answers(0), ALL)[1].verdict is Verdict.ESCALATE
    to_three = replace(to_two, judge=Judge(0.6))
    assert to_three.decide(answers(0), ALL)[1].verdict is Verdict.SKIP


def test_a_chain_of_one_asks_it_for_everything() -> None:
    alone = RiskPolicy(chain=(3,), rules={}, judge=Judge(0.0))
    assert alone.entry(REQUEST, ALL) == 3
    assert alone.decide(answers(3), ALL)[1] == LAST_RESORT
