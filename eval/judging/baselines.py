"""Decide who answers by rules that rival a certified policy, on the same outcomes.

Here are the two bounds (oracle and perfect chain), random acceptance, and what every rival that is
certified goes through: its path of ways, strict to lax, is chosen on the fit split and walked once
on the certify split by the same exact tests as ours. `raw_score.py`, `calibrated_score.py` and
`peer_rules.py` hold the rivals that read scores.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np

from eval.judging.ways import Way, count_way
from hybridserve_llm.calibration.certify import Promise
from hybridserve_llm.calibration.choice import LOSS_LEVELS, RESCUE_SHRINKAGE
from hybridserve_llm.calibration.loss_tests import Loss, p_value
from hybridserve_llm.calibration.outcomes import Bools, Floats, Ints, Outcomes
from hybridserve_llm.calibration.policies import Replay

N_SHARES = 101
"""Steps of the path of random acceptance, from nothing to everything."""
_OWN_STREAM = 1
"""Keeps the draws apart from those of the rows, which `splits.py` takes with the same seed."""


class Rival(Protocol):
    """Decide who answers each question."""

    def replay(self, outcomes: Outcomes) -> Replay:
        """Return what it does on the questions of `outcomes`."""
        ...


RivalT = TypeVar("RivalT", bound=Rival)


def oracle(outcomes: Outcomes) -> Replay:
    """Return each question answered by its cheapest harmless tier, and by that tier alone."""
    answering = _cheapest_harmless(outcomes)
    was_asked = np.arange(len(outcomes.tiers)) == answering[:, None]
    return done_without_risk(answering, was_asked)


def perfect_chain(outcomes: Outcomes) -> Replay:
    """Return the oracle's answers, with every tier below the answering one asked before it."""
    answering = _cheapest_harmless(outcomes)
    was_asked = np.arange(len(outcomes.tiers)) <= answering[:, None]
    return done_without_risk(answering, was_asked)


def _cheapest_harmless(outcomes: Outcomes) -> Ints:
    """Return the lowest tier that is right, or no worse than the last one; shape [n_questions]."""
    does_harm = ~outcomes.is_right & outcomes.is_right[:, [outcomes.last]]
    return np.asarray(np.argmin(does_harm, axis=1), dtype=np.int64)


def first_accepted(accepts: Bools, chain: Sequence[int], outcomes: Outcomes) -> Replay:
    """Return what a chain does that is asked tier by tier up to the first accepted answer.

    `accepts` is of shape [n_questions, n_lower]; the last tier of `chain` is taken as it is.
    """
    taken = np.concatenate([accepts, np.ones((outcomes.n_questions, 1), dtype=bool)], axis=1)
    position = np.argmax(taken, axis=1)
    was_asked = np.zeros((outcomes.n_questions, len(outcomes.tiers)), dtype=bool)
    was_asked[:, list(chain)] = np.arange(len(chain)) <= position[:, None]
    return done_without_risk(np.asarray(chain, dtype=np.int64)[position], was_asked)


def done_without_risk(answering: Ints, was_asked: Bools) -> Replay:
    """Return a replay that knows no risk: it is NaN for every answer."""
    unknown: Floats = np.full(len(answering), np.nan)
    return Replay(answering=answering, was_asked=was_asked, final_risk=unknown)


@dataclass(frozen=True, slots=True, kw_only=True)
class RandomShare:
    """Take the answers of one tier to a random `share` of the questions, else those of the last.

    With `asks_first` every question pays for `tier`, as in a cascade whose score shows nothing;
    without it the draw comes before anything is asked, and a question pays for one tier alone.
    """

    tier: int
    share: float
    asks_first: bool
    seed: int

    def replay(self, outcomes: Outcomes) -> Replay:
        """Return one draw; a larger share gives `tier` the same questions and more."""
        rng = np.random.default_rng([self.seed, _OWN_STREAM])
        draws = rng.random(outcomes.n_questions)
        answering = np.where(draws < self.share, self.tier, outcomes.last)
        was_asked = np.arange(len(outcomes.tiers)) == answering[:, None]
        was_asked[:, self.tier] |= self.asks_first
        return done_without_risk(answering, was_asked)

    def expected(self, outcomes: Outcomes) -> Way:
        """Return the mean over all draws."""
        rates = outcomes.is_right.mean(axis=0)
        rescues = outcomes.is_right[:, self.tier] & ~outcomes.is_right[:, outcomes.last]
        n_asked = 1.0 if self.asks_first else self.share
        own, last = outcomes.costs[self.tier], outcomes.costs[outcomes.last]
        return Way(
            name="random acceptance",
            accuracy=float(self.share * rates[self.tier] + (1 - self.share) * rates[outcomes.last]),
            cost=float(n_asked * own + (1 - self.share) * last),
            lost=float(self.share * outcomes.harmful(self.tier).mean()),
            rescued=float(self.share * rescues.mean()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgedPath(Generic[RivalT]):
    """Hold ways from strict to lax, with the mean cost and loss of each on the fit split, [n_ways].

    `n_tiers` counts the tiers that are asked, the last one included.
    """

    ways: tuple[RivalT, ...]
    n_tiers: int
    costs: Floats
    losses: Floats

    def mean_cost(self, epsilon: float, last_cost: float) -> float:
        """Return the mean cost over LOSS_LEVELS, as `calibration/choice.py` judges our chains."""
        worst_so_far = np.maximum.accumulate(self.losses)
        at_levels = [
            min(float(self.costs[worst_so_far <= level * epsilon].min(initial=np.inf)), last_cost)
            for level in LOSS_LEVELS
        ]
        return float(np.mean(at_levels))


def replayed_path(
    rivals: Sequence[RivalT], fit: Outcomes, *, n_tiers: int, loss: Loss
) -> JudgedPath[RivalT]:
    """Return a path with the figures of its rivals, replayed on the fit split."""
    figures = [count_way("", rival.replay(fit), fit) for rival in rivals]
    return judged_path(rivals, figures, n_tiers=n_tiers, loss=loss)


def judged_path(
    ways: Sequence[RivalT], figures: Sequence[Way], *, n_tiers: int, loss: Loss
) -> JudgedPath[RivalT]:
    """Return a path with its figures on the fit split; rescues count by RESCUE_SHRINKAGE."""
    return JudgedPath(
        ways=tuple(ways),
        n_tiers=n_tiers,
        costs=np.array([figure.cost for figure in figures]),
        losses=np.array([figure.loss(loss, shrinkage=RESCUE_SHRINKAGE) for figure in figures]),
    )


def random_paths(
    fit: Outcomes, loss: Loss, *, asks_first: bool, seed: int
) -> list[JudgedPath[RandomShare]]:
    """Return random acceptance of each tier below the last, by rising share."""
    paths = []
    for tier in range(fit.last):
        ways = [
            RandomShare(tier=tier, share=float(share), asks_first=asks_first, seed=seed)
            for share in np.linspace(0, 1, N_SHARES)
        ]
        figures = [way.expected(fit) for way in ways]
        paths.append(judged_path(ways, figures, n_tiers=2, loss=loss))
    return paths


def cheapest_path(
    paths: Sequence[JudgedPath[RivalT]], fit: Outcomes, epsilon: float, *, saving_per_tier: float
) -> JudgedPath[RivalT] | None:
    """Return the path that is expected to cost least; None where the last tier alone does.

    A tier below the last must save `saving_per_tier` of the last tier's cost.
    """
    last_cost = float(fit.costs[fit.last])

    def judged_cost(path: JudgedPath[RivalT]) -> float:
        surcharge = saving_per_tier * last_cost * (path.n_tiers - 1)
        return path.mean_cost(epsilon, last_cost) + surcharge

    best = min(paths, key=lambda path: (judged_cost(path), path.n_tiers))
    return best if judged_cost(best) < last_cost else None


def certified(ways: Sequence[RivalT], certify: Outcomes, promise: Promise) -> RivalT | None:
    """Return the cheapest way that a walk down the path certifies, if the last tier costs more."""
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
    ways: Sequence[RivalT], samples: Sequence[Outcomes], loss: Loss, epsilon: float
) -> RivalT | None:
    """Return the last way of the path whose plain loss on `samples` is at most `epsilon`.

    The loss is of all rows together. This certifies nothing. None where no way has so little loss.
    """
    n = sum(sample.n_questions for sample in samples)

    def mean_loss(way: Rival) -> float:
        losses = [count_way("", way.replay(sample), sample).loss(loss) for sample in samples]
        return sum(x * s.n_questions for x, s in zip(losses, samples, strict=True)) / n

    return next((way for way in reversed(ways) if mean_loss(way) <= epsilon), None)
