"""A served policy made stricter and laxer: its thresholds of risk times a factor, replayed."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from eval.judging.accuracy_and_cost import PolicyPoint
from eval.rivals.policy_replay import ServedPolicy, assessment_of
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.policies import Band, StateRule, WholePolicy, replay
from hybridserve_llm.cascade.risk_policy import RiskPolicy, RiskRule, State
from hybridserve_llm.values.answers import Seen

FACTORS = tuple(float(factor) for factor in np.geomspace(1 / 64, 64, 61))
"""The middle one is 1: the policy that is served."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Confidence of each tier asked alone, [n_questions, n_tiers]; risk by state, [n]."""

    confidence: Floats
    risks: Mapping[State, Floats]


def judged(served: ServedPolicy, outcomes: Outcomes) -> Judged:
    """What the server's models say of every recorded answer, one question at a time."""
    n, confidence = outcomes.n_questions, np.full(outcomes.is_right.shape, np.nan)
    policy, models = served.policy, served.models
    if not isinstance(policy, RiskPolicy):
        return Judged(confidence=confidence, risks={})
    states = {*(state for state in policy.rules if state), *((t,) for t in range(outcomes.last))}
    risks: dict[State, Floats] = {}
    for state in sorted(states):
        found = [
            policy.judge.judge(
                [Seen(tier=tier, assessment=assessment_of(outcomes, i, tier)) for tier in state]
            )
            for i in range(n)
        ]
        risks[state] = np.array([np.nan if one.risk is None else one.risk for one in found])
        if len(state) == 1:
            confidence[:, state[0]] = [
                np.nan if one.confidence is None else one.confidence for one in found
            ]
    if () in policy.rules and models is not None and models.gate is not None:
        gate = models.gate
        risks[()] = np.array([gate.probability(row.tolist()) for row in outcomes.prompt_features])
    return Judged(confidence=confidence, risks=risks)


def policy_path(
    served: ServedPolicy, found: Judged, outcomes: Outcomes, costs: Floats
) -> tuple[PolicyPoint, ...]:
    """Where the policy lies with its thresholds times each of FACTORS; strict to lax.

    Only the point of factor 1 is what was certified. `costs` are [n_questions, n_tiers].
    """
    if not isinstance(served.policy, RiskPolicy):
        return ()
    points = []
    for factor in FACTORS:
        done = replay(_scaled(served.policy, factor), found.risks, outcomes)
        points.append(
            PolicyPoint(
                share_kept=float((~done.was_asked[:, outcomes.last]).mean()),
                accuracy=float(done.is_right(outcomes).mean()),
                mean_cost=float((done.was_asked * costs).sum(axis=1).mean()),
                is_certified=served.policy.is_certified and abs(factor - 1) < 1e-9,
            )
        )
    return tuple(points)


def _scaled(policy: RiskPolicy, factor: float) -> WholePolicy:
    return WholePolicy(
        chain=policy.chain,
        rules={
            state: _scaled_rule(rule, factor if state else 1.0)
            for state, rule in policy.rules.items()
        },
        share=policy.share,
    )


def _scaled_rule(rule: RiskRule, factor: float) -> StateRule:
    """Bands begin where acceptance ends, as far as they did not begin above it."""
    accept = rule.accept_at_most * factor
    return StateRule(
        accept_at_most=accept,
        bands=tuple(
            Band(risk_above=max(band.risk_above, accept), to_tier=band.to_tier)
            for band in rule.bands
        ),
    )
