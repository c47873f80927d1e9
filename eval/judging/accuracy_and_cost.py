"""What ways of answering come to on a set of questions: tiers alone, a policy, the ideal ones."""

from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import oracle, perfect_chain
from eval.judging.intervals import Interval, paired_interval, wilson_interval
from hybridserve_llm.calibration.outcomes import Bools, Floats, Outcomes
from hybridserve_llm.calibration.policies import Replay, Risks, WholePolicy, replay


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyAndCost:
    """A way of answering every question: its accuracy and its mean cost per question."""

    name: str
    accuracy: float
    accuracy_interval: Interval | None
    mean_cost: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedPolicy:
    """A policy on the questions; shares are of all of them, by tier in the order of `tiers`.

    Attributes:
        total: Its accuracy, and its cost with every tier asked.
        difference: Its accuracy minus the last tier's.
        wasted_cost: Mean cost per question of asking tiers whose answer was not taken.
    """

    total: AccuracyAndCost
    tiers: tuple[str, ...]
    chain: tuple[str, ...]
    has_gate: bool
    difference: float
    difference_interval: Interval | None
    harm_rate: float
    harm_interval: Interval | None
    wasted_cost: float
    answered: tuple[float, ...]
    asked: tuple[float, ...]

    @property
    def is_last_alone(self) -> bool:
        """Whether the last tier answers everything."""
        return len(self.chain) == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPoint:
    """One policy: `share_kept` of the questions never reaches the last tier."""

    share_kept: float
    accuracy: float
    mean_cost: float
    is_certified: bool


def accuracy_and_cost(name: str, is_right: Bools, costs: Floats) -> AccuracyAndCost:
    """The means of answers and costs, both of shape [n_questions]."""
    n, n_right = len(is_right), int(is_right.sum())
    return AccuracyAndCost(
        name=name,
        accuracy=n_right / n,
        accuracy_interval=wilson_interval(n_right, n),
        mean_cost=float(costs.mean()),
    )


def tier_alone(outcomes: Outcomes, tier: int) -> AccuracyAndCost:
    """What asking one tier for everything gives."""
    costs = np.full(outcomes.n_questions, outcomes.costs[tier])
    return accuracy_and_cost(outcomes.tiers[tier], outcomes.is_right[:, tier], costs)


def oracle_and_perfect_chain(outcomes: Outcomes) -> tuple[AccuracyAndCost, AccuracyAndCost]:
    """Each question answered by the cheapest tier that does no harm (`baselines.py`).

    The oracle pays for that tier alone, the perfect chain for every tier up to it. Where the last
    tier is wrong nothing does harm, so the first tier answers.
    """
    alone, chain = oracle(outcomes), perfect_chain(outcomes)
    return (
        accuracy_and_cost("oracle", alone.is_right(outcomes), alone.costs(outcomes)),
        accuracy_and_cost("perfect chain", chain.is_right(outcomes), chain.costs(outcomes)),
    )


def served_policy(
    policy: WholePolicy, risks: Risks, outcomes: Outcomes, *, seed: int
) -> ServedPolicy:
    """What `policy` does on `outcomes`; `seed` draws the interval of the difference."""
    done = replay(policy, risks, outcomes)
    is_right, costs = done.is_right(outcomes), done.costs(outcomes)
    differences = is_right.astype(np.float64) - outcomes.is_right[:, outcomes.last]
    n_harmed = int(done.is_lost(outcomes).sum())
    return ServedPolicy(
        total=accuracy_and_cost("cascade", is_right, costs),
        tiers=outcomes.tiers,
        chain=tuple(outcomes.tiers[tier] for tier in policy.chain),
        has_gate=policy.has_gate,
        difference=float(differences.mean()),
        difference_interval=paired_interval(differences, outcomes.groups, seed=seed),
        harm_rate=n_harmed / outcomes.n_questions,
        harm_interval=wilson_interval(n_harmed, outcomes.n_questions),
        wasted_cost=float((costs - outcomes.costs[done.answering]).mean()),
        answered=tuple(float((done.answering == i).mean()) for i in range(len(outcomes.tiers))),
        asked=tuple(float(share) for share in done.was_asked.mean(axis=0)),
    )


def policy_point(done: Replay, outcomes: Outcomes, *, is_certified: bool) -> PolicyPoint:
    """Where one replayed policy lies."""
    return PolicyPoint(
        share_kept=float((~done.was_asked[:, outcomes.last]).mean()),
        accuracy=float(done.is_right(outcomes).mean()),
        mean_cost=float(done.costs(outcomes).mean()),
        is_certified=is_certified,
    )
