"""Rival ways to decide who answers, to stand beside a certified policy on the same outcomes.

Here are the two bounds (oracle and perfect chain), random acceptance, and what every rival that is
certified goes through: its path of ways, strict to lax, is chosen on the fit split and walked once
on the certify split by the same exact tests as ours. `raw_score.py`, `calibrated_score.py` and
`peer_rules.py` hold the rivals that read scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from hybridserve_llm.calibration.certify import Promise
from hybridserve_llm.calibration.choice import LOSS_LEVELS, RESCUE_SHRINKAGE
from hybridserve_llm.calibration.loss_tests import Loss, p_value
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints, Outcomes
from hybridserve_llm.calibration.policies import Replay

N_SHARES = 101
"""Steps of the path of random acceptance, from nothing to everything."""
_OWN_STREAM = 1
"""Keeps the draws apart from those of the rows, which `splits.py` takes with the same seed."""


class Way(Protocol):
    """Decides who answers each question."""

    def replay(self, outcomes: Outcomes) -> Replay:
        """What it does on the questions of `outcomes`."""
        ...


WayT = TypeVar("WayT", bound=Way)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Mean cost of a request, and shares of all questions that are lost and rescued."""

    cost: float
    lost: float
    rescued: float

    def loss(self, loss: Loss) -> float:
        """The loss that a promise of this kind bounds."""
        return self.lost - self.rescued if loss == "net" else self.lost


def measured(done: Replay, outcomes: Outcomes) -> Measured:
    """What was done on `outcomes`, in numbers."""
    return Measured(
        cost=float(done.costs(outcomes).mean()),
        lost=float(done.is_lost(outcomes).mean()),
        rescued=float(done.is_rescued(outcomes).mean()),
    )


def oracle(outcomes: Outcomes) -> Replay:
    """Each question answered by the cheapest tier that does no harm, and by that tier alone."""
    answering = _cheapest_harmless(outcomes)
    was_asked = np.arange(len(outcomes.tiers)) == answering[:, None]
    return done_without_risk(answering, was_asked)


def perfect_chain(outcomes: Outcomes) -> Replay:
    """The oracle's answers, every tier below the answering one asked before it."""
    answering = _cheapest_harmless(outcomes)
    was_asked = np.arange(len(outcomes.tiers)) <= answering[:, None]
    return done_without_risk(answering, was_asked)


def _cheapest_harmless(outcomes: Outcomes) -> Ints:
    """Lowest tier that is right, or wrong where the last tier is wrong too; shape [n_questions]."""
    does_harm = ~outcomes.is_right & outcomes.is_right[:, [outcomes.last]]
    return np.asarray(np.argmin(does_harm, axis=1), dtype=np.int64)


def first_accepted(accepts: Bools, chain: Sequence[int], outcomes: Outcomes) -> Replay:
    """A chain asked tier by tier up to the first answer that is accepted.

    `accepts` is of shape [n_questions, n_lower]; the last tier of `chain` is taken as it is.
    """
    taken = np.concatenate([accepts, np.ones((outcomes.n_questions, 1), dtype=bool)], axis=1)
    position = np.argmax(taken, axis=1)
    was_asked = np.zeros((outcomes.n_questions, len(outcomes.tiers)), dtype=bool)
    was_asked[:, list(chain)] = np.arange(len(chain)) <= position[:, None]
    return done_without_risk(np.asarray(chain, dtype=np.int64)[position], was_asked)


def done_without_risk(answering: Ints, was_asked: Bools) -> Replay:
    """A replay of what knows no risk: it is NaN for every answer."""
    unknown: Floats = np.full(len(answering), np.nan)
    return Replay(answering=answering, was_asked=was_asked, final_risk=unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomShare:
    """Takes the answers of one tier to a random `share` of the questions, else those of the last.

    With `asks_first` every question pays for `tier`, as in a cascade whose score tells nothing;
    without it the draw comes before anything is asked, and a question pays for one tier alone.
    """

    tier: int
    share: float
    asks_first: bool
    seed: int

    def replay(self, outcomes: Outcomes) -> Replay:
        """One draw; a larger share gives `tier` the same questions and more."""
        rng = np.random.default_rng([self.seed, _OWN_STREAM])
        draws = rng.random(outcomes.n_questions)
        answering = np.where(draws < self.share, self.tier, outcomes.last)
        was_asked = np.arange(len(outcomes.tiers)) == answering[:, None]
        was_asked[:, self.tier] |= self.asks_first
        return done_without_risk(answering, was_asked)

    def expected(self, outcomes: Outcomes) -> Measured:
        """The mean over all draws."""
        rescues = outcomes.is_right[:, self.tier] & ~outcomes.is_right[:, outcomes.last]
        n_asked = 1.0 if self.asks_first else self.share
        own, last = outcomes.costs[self.tier], outcomes.costs[outcomes.last]
        return Measured(
            cost=float(n_asked * own + (1 - self.share) * last),
            lost=float(self.share * outcomes.harmful(self.tier).mean()),
            rescued=float(self.share * rescues.mean()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPath(Generic[WayT]):
    """Ways from strict to lax, with the mean cost and loss of each on the fit split, [n_ways].

    `n_tiers` counts the tiers that are asked, the last one included.
    """

    ways: tuple[WayT, ...]
    n_tiers: int
    costs: Floats
    losses: Floats

    def mean_cost(self, epsilon: float, last_cost: float) -> float:
        """Mean cost over LOSS_LEVELS: how `calibration/choice.py` judges the chains of ours."""
        worst_so_far = np.maximum.accumulate(self.losses)
        at_levels = [
            min(float(self.costs[worst_so_far <= level * epsilon].min(initial=np.inf)), last_cost)
            for level in LOSS_LEVELS
        ]
        return float(np.mean(at_levels))


def judged(
    ways: Sequence[WayT], figures: Sequence[Measured], *, n_tiers: int, loss: Loss
) -> JudgedPath[WayT]:
    """A path with the figures of its ways on the fit split; rescues count by RESCUE_SHRINKAGE."""
    by = RESCUE_SHRINKAGE if loss == "net" else 0.0
    return JudgedPath(
        ways=tuple(ways),
        n_tiers=n_tiers,
        costs=np.array([figure.cost for figure in figures]),
        losses=np.array([figure.lost - by * figure.rescued for figure in figures]),
    )


def random_paths(
    fit: Outcomes, loss: Loss, *, asks_first: bool, seed: int
) -> list[JudgedPath[RandomShare]]:
    """Random acceptance of each tier below the last, by rising share."""
    paths = []
    for tier in range(fit.last):
        ways = [
            RandomShare(tier=tier, share=float(share), asks_first=asks_first, seed=seed)
            for share in np.linspace(0, 1, N_SHARES)
        ]
        figures = [way.expected(fit) for way in ways]
        paths.append(judged(ways, figures, n_tiers=2, loss=loss))
    return paths


def best_path(
    paths: Sequence[JudgedPath[WayT]], fit: Outcomes, epsilon: float, *, saving_per_tier: float
) -> JudgedPath[WayT] | None:
    """The path that is expected to cost least; None where the last tier alone does.

    A tier beside the last must save `saving_per_tier` of the last tier's cost.
    """
    last_cost = float(fit.costs[fit.last])

    def judged_cost(path: JudgedPath[WayT]) -> float:
        surcharge = saving_per_tier * last_cost * (path.n_tiers - 1)
        return path.mean_cost(epsilon, last_cost) + surcharge

    best = min(paths, key=lambda path: (judged_cost(path), path.n_tiers))
    return best if judged_cost(best) < last_cost else None


def certified(ways: Sequence[WayT], certify: Outcomes, promise: Promise) -> WayT | None:
    """The cheapest way that a walk down the path certifies, if it costs less than the last tier."""
    chosen, least = None, float(certify.costs[certify.last])
    n, known = certify.n_questions, dict[tuple[int, int], float]()
    for way in ways:
        done = way.replay(certify)
        counts = int(done.is_lost(certify).sum()), int(done.is_rescued(certify).sum())
        if counts not in known:
            known[counts] = p_value(*counts, n, promise.epsilon, loss=promise.loss)
        if known[counts] > promise.delta:
            break
        cost = float(done.costs(certify).mean())
        if cost < least * (1 - 1e-9):  # a mean of equal costs can be a rounding error below them
            chosen, least = way, cost
    return chosen


def laxest_empirical(
    ways: Sequence[WayT], samples: Sequence[Outcomes], loss: Loss, epsilon: float
) -> WayT | None:
    """The last way of the path whose plain loss on all rows of `samples` is at most `epsilon`.

    This certifies nothing. None where no way has so little loss.
    """
    n = sum(sample.n_questions for sample in samples)

    def mean_loss(way: Way) -> float:
        losses = [measured(way.replay(sample), sample).loss(loss) for sample in samples]
        return sum(x * s.n_questions for x, s in zip(losses, samples, strict=True)) / n

    return next((way for way in reversed(ways) if mean_loss(way) <= epsilon), None)
