"""Which tiers to keep: the chain that is expected to cost least at the wanted loss.

Every subset of the tiers that ends in the last one is tried on the fit split, the last tier alone
included. 300 rows tell a loss of 1 % from one of 2 % poorly, so a chain is judged by its mean cost
over losses from a fifth to twice epsilon, and a longer chain must save 2 % per further tier.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.path import N_PRICES_TO_CHOOSE, policy_path
from hybridserve_llm.calibration.policies import Risks, WholePolicy, replay
from hybridserve_llm.calibration.risk_models import State, StateModel, states_below

Loss = Literal["net", "harm"]

LOSS_LEVELS = tuple(np.linspace(0.2, 2.0, 10))
"""Losses, in units of epsilon, at which the cost of a chain is averaged."""
SAVING_PER_TIER = 0.02
"""Share of the last tier's cost that a further tier must save."""
RESCUE_SHRINKAGE = 0.5
"""Rescues are counted half when chains are compared: a chain found by them is often luck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEstimate:
    """What a chain is expected to do, judged on the fit split.

    Attributes:
        chain: Tier indices, rising, the last tier included.
        mean_cost: Mean cost over LOSS_LEVELS, never above the last tier's own cost.
    """

    chain: tuple[int, ...]
    mean_cost: float

    def judged_cost(self, last_cost: float) -> float:
        """`mean_cost` with the surcharge for every tier beside the last."""
        return self.mean_cost + SAVING_PER_TIER * last_cost * (len(self.chain) - 1)


def estimate_chains(
    outcomes: Outcomes, risks: Risks, *, loss: Loss, epsilon: float
) -> list[ChainEstimate]:
    """Every chain, the best first; `risks` are out of fold on `outcomes`, the fit split."""
    last_cost = float(outcomes.costs[outcomes.last])
    estimates = [ChainEstimate(chain=(outcomes.last,), mean_cost=last_cost)]
    for state in states_below(outcomes.last):
        chain = (*state, outcomes.last)
        path = policy_path(chain, risks, outcomes, N_PRICES_TO_CHOOSE)
        mean_cost = _mean_cost(path, risks, outcomes, loss, epsilon)
        estimates.append(ChainEstimate(chain=chain, mean_cost=mean_cost))
    return sorted(estimates, key=lambda e: (e.judged_cost(last_cost), len(e.chain)))


def _mean_cost(
    path: Sequence[WholePolicy], risks: Risks, outcomes: Outcomes, loss: Loss, epsilon: float
) -> float:
    last_cost = float(outcomes.costs[outcomes.last])
    costs, losses = np.empty(len(path)), np.empty(len(path))
    for i, policy in enumerate(path):
        done = replay(policy, risks, outcomes)
        costs[i] = done.costs(outcomes).mean()
        rescued = done.is_rescued(outcomes).mean() if loss == "net" else 0.0
        losses[i] = done.is_lost(outcomes).mean() - RESCUE_SHRINKAGE * rescued
    worst_so_far: Floats = np.maximum.accumulate(losses)
    at_levels = [
        min(costs[worst_so_far <= level * epsilon].min(initial=np.inf), last_cost)
        for level in LOSS_LEVELS
    ]
    return float(np.mean(at_levels))


def out_of_fold_risks(models: Mapping[State, StateModel]) -> dict[State, Floats]:
    """The cross-fitted risks of the fit split by state."""
    return {state: model.out_of_fold.risk for state, model in models.items()}
