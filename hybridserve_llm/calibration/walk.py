"""Walk down one path of policies on the certify split by fixed-sequence testing.

Policies are tested in the path's order, strict to lax, each at level delta; the walk ends at the
first that is not shown to keep its loss below epsilon. Path and order come from other data, so the
chance that any certified policy has a loss above epsilon is at most delta: only the first such
policy on the path can cause an error (Angelopoulos et al., Learn then Test, arXiv 2110.01052,
section 3.1). Neither the risk models nor the monotony of the loss is trusted.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridserve_llm.calibration.loss_tests import Loss, p_value
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import Risks, WholePolicy, replay


@dataclass(frozen=True, slots=True, kw_only=True)
class WalkStep:
    """Hold one tested policy: counts on the certify split, p-value, mean cost of a request there.

    `n_accepted` questions were answered below the last tier.
    """

    policy: WholePolicy
    n: int
    n_accepted: int
    n_lost: int
    n_rescued: int
    p_value: float
    mean_cost: float


def walk(
    path: Sequence[WholePolicy],
    risks: Risks,
    outcomes: Outcomes,
    *,
    loss: Loss,
    epsilon: float,
    delta: float,
) -> tuple[WalkStep, ...]:
    """Return the certified policies of the path, in its order.

    It is empty where the first policy cannot be certified.
    """
    certified: list[WalkStep] = []
    for policy in path:
        step = tested(policy, risks, outcomes, loss, epsilon)
        if step.p_value > delta:
            break
        certified.append(step)
    return tuple(certified)


def tested(
    policy: WholePolicy, risks: Risks, outcomes: Outcomes, loss: Loss, epsilon: float
) -> WalkStep:
    """Test one policy on the certify split `outcomes`."""
    done = replay(policy, risks, outcomes)
    n = outcomes.n_questions
    n_lost, n_rescued = int(done.is_lost(outcomes).sum()), int(done.is_rescued(outcomes).sum())
    return WalkStep(
        policy=policy,
        n=n,
        n_accepted=int((done.answering != outcomes.last).sum()),
        n_lost=n_lost,
        n_rescued=n_rescued,
        p_value=p_value(n_lost, n_rescued, n, epsilon, loss=loss),
        mean_cost=float(done.costs(outcomes).mean()),
    )
