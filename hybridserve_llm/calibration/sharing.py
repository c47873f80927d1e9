"""Make paths that serve a growing share of the prompts by one policy, not stricter policies.

Of all ways to spend an allowed loss, the cheapest are policies on the lower convex hull of cost
against loss, and draws between neighbours on it (Altman, Constrained Markov Decision Processes,
1999, chapter 3: with one constraint an optimal policy draws between two deterministic ones). One
end of the hull is the last tier alone. Where scores predict little, or a tier costs nearly as much
as the last, a strict threshold pays for answers that it then rejects. It is then cheaper to send
only a share of the prompts into the chain, and to accept there as a laxer policy does.

An allowed loss is still no lottery: a policy may be shared only where less than half of the answers
that it accepts do harm. Otherwise a tier that is always wrong would "save" what the loss allows.
"""

from dataclasses import dataclass, replace

import numpy as np

from hybridserve_llm.calibration.outcomes import Floats
from hybridserve_llm.calibration.policies import WholePolicy

MOST_HARM_OF_ACCEPTED = 0.5
LEAST_GAIN = 0.1
"""A share must save so much more than thresholds do, as a part of what they save."""
_NO_LOSS = 1e-12
_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class PathFigures:
    """Hold mean cost, loss and harm of the policies of a path, strict to lax, each [n_policies].

    Attributes:
        costs: Of all questions.
        losses: Of all questions.
        harm_of_accepted: Harm among the questions that are answered below the last tier; 0 where
            there are none.
    """

    costs: Floats
    losses: Floats
    harm_of_accepted: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Pivot:
    """Hold where a path may turn from growing shares to laxer policies, and what that saves.

    Attributes:
        index: Of the policy whose share grows from 0 to 1; None where no share is better.
        mean_cost: Mean cost over the levels of loss, never above the last tier's own.
        mean_cost_without: The same of the path as it is.
        last_cost: Of the last tier alone.
    """

    index: int | None
    mean_cost: float
    mean_cost_without: float
    last_cost: float

    @property
    def is_worth_it(self) -> bool:
        """Return True where it saves more than the path as it is does, by LEAST_GAIN.

        Two paths that are alike on the fit split are not on the certify split, and thresholds are
        the safer one: their losses are few, a share's are many and rest on their balance.
        """
        saved_without = max(self.last_cost - self.mean_cost_without, _ROUNDING)
        saved = self.last_cost - self.mean_cost
        return self.index is not None and saved > (1 + LEAST_GAIN) * saved_without


def best_pivot(path: PathFigures, allowed: Floats, last_cost: float) -> Pivot:
    """Return the pivot of least mean cost over the losses that may be `allowed`, [n_levels].

    A walk ends where a loss is first too great, so policies beyond one are out of reach.
    """

    def mean_cost(i: int) -> float:
        shares = np.minimum(1.0, allowed / max(path.losses[i], _NO_LOSS))
        by_share = shares * path.costs[i] + (1 - shares) * last_cost
        onward = cost_at(allowed, path.costs[i:], path.losses[i:], last_cost)
        return float(np.minimum(by_share, onward).mean())

    without = float(cost_at(allowed, path.costs, path.losses, last_cost).mean())
    may_be_shared = np.flatnonzero(path.harm_of_accepted < MOST_HARM_OF_ACCEPTED)
    best = min(map(int, may_be_shared), key=mean_cost, default=None)
    least = without if best is None else min(mean_cost(best), without)
    return Pivot(
        index=best if least < without else None,
        mean_cost=least,
        mean_cost_without=without,
        last_cost=last_cost,
    )


def cost_at(allowed: Floats, costs: Floats, losses: Floats, last_cost: float) -> Floats:
    """Return the least cost that a walk reaches at each level, [n_levels].

    It is the last tier's cost at most.
    """
    within = np.maximum.accumulate(losses)[None, :] <= allowed[:, None]
    reached: Floats = np.where(within, costs[None, :], np.inf).min(axis=1, initial=np.inf)
    return np.minimum(reached, last_cost)


def growing_shares(policy: WholePolicy, n_steps: int) -> list[WholePolicy]:
    """Return `policy` for shares of the prompts from 1 / n_steps to all of them."""
    return [replace(policy, share=i / n_steps) for i in range(1, n_steps + 1)]
