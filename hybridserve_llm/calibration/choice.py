"""Choose the tiers to keep: the chain that is expected to cost least at the wanted loss.

Every subset of the tiers that ends in the last one is tried on the fit split, with a gate and
without, the last tier alone included. 300 rows hardly show a loss of 1 % from one of 2 %. So a
chain is judged by its mean cost over losses from a fifth to twice epsilon, and every further tier,
and a gate, must save 3 %.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.path import (
    N_PRICES_TO_CHOOSE,
    N_STEPS_TO_CHOOSE,
    finely_stepped,
    price_path,
)
from hybridserve_llm.calibration.policies import NO_TIER, Risks, WholePolicy, replay
from hybridserve_llm.calibration.risk_models import states_below
from hybridserve_llm.calibration.sharing import PathFigures, Pivot, best_pivot, cost_at

GateRisks = Mapping[int, Floats]
"""The gate's risk, by the index of the first tier of a chain, each [n_questions]."""

LOSS_LEVELS = tuple(np.linspace(0.2, 2.0, 10))
"""Losses, in units of epsilon, at which the cost of a chain is averaged."""
SAVING_PER_TIER = 0.03
"""Share of the last tier's cost that a further tier, or a gate, must save."""
RESCUE_SHRINKAGE = 0.5
"""Rescues are counted half when chains are compared: a chain found by them is often luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEstimate:
    """Hold the expected cost of one chain, judged on the fit split.

    Attributes:
        chain: Tier indices, rising, the last tier included.
        has_gate: True where a gate decides at which tier a prompt enters.
        mean_cost: Mean cost over LOSS_LEVELS, never above the last tier's own cost.
    """

    chain: tuple[int, ...]
    has_gate: bool
    mean_cost: float

    @property
    def n_parts(self) -> int:
        """Return the number of tiers below the last, plus 1 for a gate."""
        return len(self.chain) - 1 + self.has_gate

    def judged_cost(self, last_cost: float) -> float:
        """Return `mean_cost` with the surcharge for every part."""
        return self.mean_cost + SAVING_PER_TIER * last_cost * self.n_parts


def estimate_chains(
    outcomes: Outcomes, risks: Risks, gates: GateRisks, *, loss: Loss, epsilon: float
) -> list[ChainEstimate]:
    """Return an estimate of every chain, the best first.

    `risks` and `gates` are out of fold on `outcomes`.
    """
    last_cost = float(outcomes.costs[outcomes.last])
    estimates = [ChainEstimate(chain=(outcomes.last,), has_gate=False, mean_cost=last_cost)]
    for state in states_below(outcomes.last):
        chain = (*state, outcomes.last)
        for has_gate, known in with_and_without_gate(chain, risks, gates):
            prices = price_path(chain, known, outcomes, N_PRICES_TO_CHOOSE)
            path = finely_stepped(prices, known, known, N_STEPS_TO_CHOOSE)
            mean_cost = _mean_cost(path, known, outcomes, loss, epsilon)
            estimates.append(ChainEstimate(chain=chain, has_gate=has_gate, mean_cost=mean_cost))
    return sorted(estimates, key=lambda e: (e.judged_cost(last_cost), e.n_parts))


def with_and_without_gate(
    chain: Sequence[int], risks: Risks, gates: GateRisks
) -> Iterator[tuple[bool, Risks]]:
    """Yield the risks that a chain's policies read: without a gate, then with one if it exists."""
    yield False, risks
    if chain[0] in gates:
        yield True, {**risks, NO_TIER: gates[chain[0]]}


def pivot_of(
    path: Sequence[WholePolicy], risks: Risks, outcomes: Outcomes, loss: Loss, epsilon: float
) -> Pivot:
    """Find where the path may turn to shares, judged by `risks` on `outcomes`."""
    last_cost = float(outcomes.costs[outcomes.last])
    return best_pivot(figures_of(path, risks, outcomes, loss), _levels(epsilon), last_cost)


def _mean_cost(
    path: Sequence[WholePolicy], risks: Risks, outcomes: Outcomes, loss: Loss, epsilon: float
) -> float:
    figures, last_cost = figures_of(path, risks, outcomes, loss), float(outcomes.costs[-1])
    return float(cost_at(_levels(epsilon), figures.costs, figures.losses, last_cost).mean())


def _levels(epsilon: float) -> Floats:
    return np.array(LOSS_LEVELS) * epsilon


def figures_of(
    path: Sequence[WholePolicy], risks: Risks, outcomes: Outcomes, loss: Loss
) -> PathFigures:
    """Return cost, loss and harm of each policy on `outcomes`.

    Rescues count RESCUE_SHRINKAGE each.
    """
    figures = np.empty((3, len(path)))
    for i, policy in enumerate(path):
        done = replay(policy, risks, outcomes)
        lost = done.is_lost(outcomes).mean()
        rescued = done.is_rescued(outcomes).mean() if loss == "net" else 0.0
        accepted = (done.answering != outcomes.last).mean()
        figures[:, i] = (
            done.costs(outcomes).mean(),
            lost - RESCUE_SHRINKAGE * rescued,
            lost / max(accepted, 1e-12),
        )
    costs, losses, harm_of_accepted = figures
    return PathFigures(costs=costs, losses=losses, harm_of_accepted=harm_of_accepted)
