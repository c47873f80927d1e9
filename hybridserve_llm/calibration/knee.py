"""Find the knee of cost against loss: the policy of the preset `energy`.

One end is to ask the last tier for everything: all of the cost, no loss. The other end is the
cheapest tier alone: least cost, all of its loss. Between them the first savings cost little
accuracy and the last ones much. The knee is where the sum of both shares, cost kept and loss taken,
is least: the point furthest from the line that joins the two ends.
"""

from dataclasses import dataclass

from hybridserve_llm.calibration.choice import (
    SAVING_PER_TIER,
    ChainEstimate,
    GateRisks,
    figures_of,
    with_and_without_gate,
)
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.path import N_PRICES_TO_CHOOSE, price_path
from hybridserve_llm.calibration.policies import Risks, WholePolicy, escalate_all
from hybridserve_llm.calibration.risk_models import states_below


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    policy: WholePolicy
    estimate: ChainEstimate
    distance: float


def knee_policy(
    outcomes: Outcomes, risks: Risks, gates: GateRisks, *, loss: Loss
) -> tuple[WholePolicy, tuple[ChainEstimate, ...]]:
    """Return the knee over all chains, and every chain at its own knee, the best first.

    `risks` and `gates` are out of fold on `outcomes`, the fit split. Every tier below the last, and
    a gate, must bring the knee SAVING_PER_TIER further out.
    """
    last_cost = float(outcomes.costs[outcomes.last])
    alone = ChainEstimate(chain=(outcomes.last,), has_gate=False, mean_cost=last_cost)
    candidates = [_Candidate(policy=escalate_all(outcomes.last), estimate=alone, distance=0.0)]
    for state in states_below(outcomes.last):
        chain = (*state, outcomes.last)
        for has_gate, known in with_and_without_gate(chain, risks, gates):
            candidates.append(_at_knee(chain, has_gate, outcomes, known, loss))
    candidates.sort(key=lambda c: SAVING_PER_TIER * c.estimate.n_parts - c.distance)
    return candidates[0].policy, tuple(candidate.estimate for candidate in candidates)


def _at_knee(
    chain: tuple[int, ...], has_gate: bool, outcomes: Outcomes, risks: Risks, loss: Loss
) -> _Candidate:
    path = price_path(chain, risks, outcomes, N_PRICES_TO_CHOOSE)
    figures = figures_of(path, risks, outcomes, loss)
    last_cost, least_cost = float(outcomes.costs[outcomes.last]), float(outcomes.costs.min())
    whole_loss = max(float(outcomes.harmful(0).mean()), 1 / outcomes.n_questions)
    saved = (last_cost - figures.costs) / max(last_cost - least_cost, 1e-12)
    distances = saved - figures.losses / whole_loss
    best = int(distances.argmax())
    estimate = ChainEstimate(chain=chain, has_gate=has_gate, mean_cost=float(figures.costs[best]))
    return _Candidate(policy=path[best], estimate=estimate, distance=float(distances[best]))
