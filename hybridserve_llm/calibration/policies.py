"""Define a whole policy, and replay it over recorded outcomes.

A policy says which tiers are asked, when an answer is taken, and where a prompt goes if not. A
replay needs every tier's answer to every question, and shows question by question what the cascade
would have done.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints, Outcomes, State

NO_TIER: State = ()
"""The state of a prompt that no tier was asked."""

Risks = Mapping[State, Floats]
"""Risk of accepting, by state, each of shape [n_questions]; NaN where there is no score.

Of NO_TIER it is the gate's: the probability that the chain's first tier is wrong.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Send prompts with risks above `risk_above` to the tier with index `to_tier`."""

    risk_above: float
    to_tier: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StateRule:
    """Accept where risk <= `accept_at_most`, else apply the band with the highest bound below it.

    `bands` rise in both fields (HybridServe, arXiv 2505.12566: the lower the confidence, the
    further up). The first starts at `accept_at_most`; an answer without a risk goes to its tier.
    """

    accept_at_most: float
    bands: tuple[Band, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WholePolicy:
    """Hold a rule for every state of a chain of tiers.

    The chain holds tier indices, rising, and ends in the last tier. A rule for the empty state is a
    gate: it accepts nothing, and its bands say where a prompt enters. Without one, prompts enter at
    the chain's first tier. A chain of the last tier alone has no rule: everything is asked of it.

    `share` of all prompts go through the chain, by their number in `Outcomes.draws`. The others go
    to the last tier, and no other tier is asked.
    """

    chain: tuple[int, ...]
    rules: Mapping[State, StateRule]
    share: float = 1.0

    @property
    def has_gate(self) -> bool:
        """Return True where the prompt alone decides at which tier it enters."""
        return NO_TIER in self.rules

    def shape(self) -> tuple[object, ...]:
        """Return a value that is equal for policies that decide alike."""
        rules = sorted((state, repr(rule)) for state, rule in self.rules.items())
        return (self.chain, self.share, *rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """Hold what a policy does on questions.

    Attributes:
        answering: Index of the tier whose answer is given, shape [n_questions].
        was_asked: Which tiers were asked, shape [n_questions, n_tiers].
        final_risk: Risk at which the answer was taken, [n_questions]; 0 for the last tier's.
    """

    answering: Ints
    was_asked: Bools
    final_risk: Floats

    def costs(self, outcomes: Outcomes) -> Floats:
        """Return the cost of each question, every tier asked included, shape [n_questions]."""
        return np.asarray(self.was_asked @ outcomes.costs)

    def is_right(self, outcomes: Outcomes) -> Bools:
        """Return True where the given answer is right, shape [n_questions]."""
        rows = np.arange(outcomes.n_questions)
        return np.asarray(outcomes.is_right[rows, self.answering], dtype=bool)

    def is_lost(self, outcomes: Outcomes) -> Bools:
        """Return True where it is wrong and the last tier right: the harm, shape [n_questions]."""
        return ~self.is_right(outcomes) & outcomes.is_right[:, outcomes.last]

    def is_rescued(self, outcomes: Outcomes) -> Bools:
        """Return True where it is right and the last tier wrong, shape [n_questions]."""
        return self.is_right(outcomes) & ~outcomes.is_right[:, outcomes.last]


def replay(policy: WholePolicy, risks: Risks, outcomes: Outcomes) -> Replay:
    """Walk every question up the policy's chain, all at once, state by state."""
    n = outcomes.n_questions
    answering = np.full(n, outcomes.last)
    was_asked = np.zeros((n, len(outcomes.tiers)), dtype=bool)
    final_risk = np.zeros(n)
    waiting = _entries(policy, risks, outcomes)
    while waiting:
        state = min(waiting)
        here = waiting.pop(state)
        was_asked[here, state[-1]] = True
        if state[-1] == outcomes.last:
            continue
        accepted, goes_to = apply_rule(policy.rules[state], risks[state])
        answering[here & accepted] = state[-1]
        final_risk = np.where(here & accepted, risks[state], final_risk)
        for tier in np.unique(goes_to[here & ~accepted]):
            onward = (*state, int(tier))
            goes = here & ~accepted & (goes_to == tier)
            waiting[onward] = waiting.get(onward, np.zeros(n, dtype=bool)) | goes
    return Replay(answering=answering, was_asked=was_asked, final_risk=final_risk)


def _entries(policy: WholePolicy, risks: Risks, outcomes: Outcomes) -> dict[State, Bools]:
    """Return the questions that begin at each tier where any does, each [n_questions]."""
    enters_at = np.full(outcomes.n_questions, policy.chain[0])
    if policy.has_gate:
        _, enters_at = apply_rule(policy.rules[NO_TIER], risks[NO_TIER])
    if policy.share < 1:
        enters_at = np.where(outcomes.draws < policy.share, enters_at, outcomes.last)
    return {(tier,): enters_at == tier for tier in policy.chain if (enters_at == tier).any()}


def apply_rule(rule: StateRule, risk: Floats) -> tuple[Bools, Ints]:
    """Return where the answer is accepted, and the tier index to ask elsewhere; both [n]."""
    accepted = risk <= rule.accept_at_most
    goes_to = np.full(len(risk), rule.bands[0].to_tier)
    for band in rule.bands[1:]:
        goes_to = np.where(risk > band.risk_above, band.to_tier, goes_to)
    return accepted, goes_to


def escalate_all(last: int) -> WholePolicy:
    """Return the policy of the last tier alone."""
    return WholePolicy(chain=(last,), rules={})


NEVER = -math.inf
"""A threshold that accepts nothing."""
