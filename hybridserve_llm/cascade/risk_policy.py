"""The policy that a certificate holds for: risk against one bound per set of tiers asked.

The same decisions, one request at a time, as `calibration/policies.py` replays over recorded
outcomes; a test holds both to each other.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hybridserve_llm.cascade.policy import LAST_RESORT, Bounds, Decision
from hybridserve_llm.cascade.prompt_draw import prompt_draw
from hybridserve_llm.interfaces import Judge
from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.ledger import Verdict
from hybridserve_llm.values.requests import GenerateRequest

State = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBand:
    """Risks above `risk_above` send the prompt to the tier at index `to_tier`."""

    risk_above: float
    to_tier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskRule:
    """Accept where risk <= `accept_at_most`; else the last band whose bound the risk exceeds.

    `bands` rise in both fields. An answer without a risk goes where the first band leads.
    """

    accept_at_most: float
    bands: tuple[RiskBand, ...]

    def band_of(self, risk: float | None) -> RiskBand:
        """The band that a rejected answer of this risk falls into."""
        applying = [b for b in self.bands[1:] if risk is not None and risk > b.risk_above]
        return applying[-1] if applying else self.bands[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskPolicy:
    """Accepts, escalates and skips by risk.

    Attributes:
        chain: Indices of the tiers that are kept, rising; a chain of one asks it for everything.
        rules: By the set of tiers that answered; of the empty set, the gate's.
        share: Of all prompts, how many go through the chain; the others go to the last tier.
    """

    chain: tuple[int, ...]
    rules: Mapping[State, RiskRule]
    judge: Judge
    share: float = 1.0
    is_certified: bool = False
    has_confidence: bool = True

    def entry(self, request: GenerateRequest, bounds: Bounds) -> int:
        """Where the gate sends the prompt, else the chain's first tier, within what is allowed.

        A prompt whose number is not below the share enters at the last tier.
        """
        draw = prompt_draw(request.payload) if self.share < 1 else 0.0
        has_gate = () in self.rules and draw < self.share
        return self.entry_at(draw, self.judge.entry_risk(request) if has_gate else None, bounds)

    def entry_at(self, draw: float, gate_risk: float | None, bounds: Bounds) -> int:
        """The same for a prompt of which only its number and the gate's risk are known."""
        at = self.chain[0]
        if draw >= self.share:
            at = self.chain[-1]
        elif () in self.rules:
            at = self.rules[()].band_of(gate_risk).to_tier
        if at < bounds.first_tier:
            at = self.above(bounds.first_tier - 1)
        return min(at, bounds.final_tier)

    def decide(self, seen: Sequence[Seen], bounds: Bounds) -> tuple[Assessment, Decision]:
        """By the risk of the last answer, given all answers before it."""
        assessment, tier = self.judge.judge(seen), seen[-1].tier
        if tier >= bounds.final_tier:
            return assessment, LAST_RESORT
        rule = self.rules.get(tuple(one.tier for one in seen))
        if assessment.risk is None or rule is None:
            reason = assessment.reason or "nothing was fitted for the tiers asked so far"
            next_tier = self.above(tier) if rule is None else rule.bands[0].to_tier
            return assessment, self._onward(tier, next_tier, reason, bounds)
        if assessment.risk > rule.accept_at_most:
            band = rule.band_of(assessment.risk)
            bound = rule.accept_at_most  # the first band may say less: it begins where this ends
            if band != rule.bands[0]:
                bound = max(bound, band.risk_above)
            reason = f"risk {assessment.risk:.4g} > {bound:.4g}"
            if bound == -math.inf:
                reason = f"risk {assessment.risk:.4g}: nothing is accepted here"
            return assessment, self._onward(tier, band.to_tier, reason, bounds)
        wanted, confidence = bounds.min_confidence, assessment.confidence
        if wanted is not None and (confidence is None or confidence < wanted):
            known = "unknown" if confidence is None else f"{confidence:.4g}"
            reason = f"confidence {known} < {wanted:g}, which the request demands"
            return assessment, self._onward(tier, rule.bands[0].to_tier, reason, bounds)
        reason = f"risk {assessment.risk:.4g} <= {rule.accept_at_most:.4g}"
        return assessment, Decision(verdict=Verdict.ACCEPT, reason=reason)

    def above(self, tier: int) -> int:
        """The chain's next tier above `tier`."""
        return next((index for index in self.chain if index > tier), tier + 1)

    def _onward(self, tier: int, next_tier: int, reason: str, bounds: Bounds) -> Decision:
        goes_to = min(next_tier, bounds.final_tier)
        is_skip = goes_to > self.above(tier)
        verdict = Verdict.SKIP if is_skip else Verdict.ESCALATE
        return Decision(verdict=verdict, reason=reason, next_tier=goes_to)
