"""Recorded answers through the server's own policy code, question by question.

What decides here are the classes that decide in a server (`cascade/policy.py`,
`cascade/risk_policy.py`, `confidence/risk_models.py`); nothing is vectorised or written anew.
`calibration/policies.py` replays whole paths of policies at once, and a test holds both to each
other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import done_without_risk
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import Replay
from hybridserve_llm.cascade.policy import Bounds, Policy, ScorePolicy
from hybridserve_llm.cascade.risk_policy import RiskPolicy
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES
from hybridserve_llm.confidence.risk_models import RiskModels
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.ledger import Verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One tier's answer to a question, and what became of it."""

    tier: int
    verdict: Verdict
    reason: str


Steps = tuple[Step, ...]
"""A question's way up; the last step's answer is taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPolicy:
    """A policy as a server has it; `models` hold the gate, where there is one."""

    policy: RiskPolicy | ScorePolicy
    models: RiskModels | None = None

    @property
    def reads_prompts(self) -> bool:
        """Whether a gate decides where prompts enter."""
        return isinstance(self.policy, RiskPolicy) and () in self.policy.rules


def decided(served: ServedPolicy, outcomes: Outcomes) -> list[Steps]:
    """What a server would do with each question whose tiers all answer, [n_questions].

    Raises:
        ConfigError: The policy has a gate, and the prompts' features are not recorded.
    """
    if served.reads_prompts and outcomes.prompt_feature_names != PROMPT_FEATURE_NAMES:
        raise ConfigError("the policy has a gate, and these records hold no features of prompts")
    bounds = Bounds(first_tier=0, final_tier=outcomes.last)
    return [
        _climbed(served.policy, _entry(served, outcomes, i, bounds), outcomes, i, bounds)
        for i in range(outcomes.n_questions)
    ]


def _entry(served: ServedPolicy, outcomes: Outcomes, question: int, bounds: Bounds) -> int:
    policy, models = served.policy, served.models
    if isinstance(policy, ScorePolicy):
        return bounds.first_tier
    gate = models.gate if models is not None and served.reads_prompts else None
    features = tuple(outcomes.prompt_features[question].tolist())
    risk = None if gate is None else gate.probability(features)
    return policy.entry_at(float(outcomes.draws[question]), risk, bounds)


def _climbed(
    policy: Policy, entry: int, outcomes: Outcomes, question: int, bounds: Bounds
) -> Steps:
    """The same loop as `cascade/router.py`, over recorded answers."""
    at: int | None = entry
    seen: list[Seen] = []
    steps: list[Step] = []
    while at is not None:
        seen.append(Seen(tier=at, assessment=assessment_of(outcomes, question, at)))
        _, decision = policy.decide(seen, bounds)
        steps.append(Step(tier=at, verdict=decision.verdict, reason=decision.reason))
        at = decision.next_tier
    return tuple(steps)


def assessment_of(outcomes: Outcomes, question: int, tier: int) -> Assessment:
    """What a scorer said of a recorded answer."""
    values = outcomes.answer_features[question, tier].tolist()
    features = dict(zip(outcomes.answer_feature_names, map(_known, values), strict=True))
    return Assessment(
        score=_known(float(outcomes.scores[question, tier])),
        answer_key=str(outcomes.answers[question, tier]),
        features=features if tuple(features) == FEATURE_NAMES else None,
    )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value


def replay_of(ways: Sequence[Steps], outcomes: Outcomes) -> Replay:
    """The same as arrays, from which costs and accuracy follow."""
    was_asked = np.zeros((len(ways), len(outcomes.tiers)), dtype=bool)
    for i, steps in enumerate(ways):
        was_asked[i, [step.tier for step in steps]] = True
    answering = np.array([steps[-1].tier for steps in ways], dtype=np.int64)
    return done_without_risk(answering, was_asked)
