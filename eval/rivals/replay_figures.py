"""What a replayed policy comes to: accuracy, cost and loss, with intervals over the questions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from eval.judging.intervals import Interval, paired_interval, share_interval
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.policies import Replay


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayFigures:
    """A replayed policy; costs are means of a request, shares are of all questions.

    Intervals are of 95 %: Wilson's for harm where no question is of a group, else bootstrap over
    the questions, whole groups drawn; None where there are too few questions.

    Attributes:
        difference: Accuracy minus the last tier's.
        harm: Wrong answers taken where the last tier is right.
        saved: Cost of the last tier alone minus the policy's.
    """

    accuracy: float
    accuracy_interval: Interval | None
    accuracy_last: float
    difference: float
    difference_interval: Interval | None
    harm: float
    harm_interval: Interval | None
    cost: float
    cost_last: float
    saved: float
    saved_interval: Interval | None
    asked: dict[str, float]
    answered: dict[str, float]

    @property
    def ratio(self) -> float:
        """Cost of the last tier alone over the policy's."""
        return self.cost_last / self.cost


def replay_figures(done: Replay, outcomes: Outcomes, *, seed: int) -> ReplayFigures:
    """The figures of `done` on `outcomes`; `seed` draws the intervals."""
    is_right = done.is_right(outcomes).astype(np.float64)
    differences = is_right - outcomes.is_right[:, outcomes.last]
    cost_last = float(outcomes.costs[outcomes.last])
    saved = cost_last - done.costs(outcomes)
    harmed = done.is_lost(outcomes)

    def interval(values: Floats) -> Interval | None:
        return paired_interval(values, outcomes.groups, seed=seed)

    return ReplayFigures(
        accuracy=float(is_right.mean()),
        accuracy_interval=interval(is_right),
        accuracy_last=float(outcomes.is_right[:, outcomes.last].mean()),
        difference=float(differences.mean()),
        difference_interval=interval(differences),
        harm=float(harmed.mean()),
        harm_interval=share_interval(harmed, outcomes.groups, seed=seed),
        cost=cost_last - float(saved.mean()),
        cost_last=cost_last,
        saved=float(saved.mean()),
        saved_interval=interval(saved),
        asked=_shares(outcomes.tiers, done.was_asked.mean(axis=0)),
        answered=_shares(
            outcomes.tiers, np.bincount(done.answering, minlength=len(outcomes.tiers))
            / outcomes.n_questions,
        ),
    )  # fmt: skip


def _shares(tiers: Sequence[str], shares: Floats) -> dict[str, float]:
    return {name: float(share) for name, share in zip(tiers, shares, strict=True)}
