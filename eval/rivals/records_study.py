"""Find what a cascade of recorded models saves: certified policies and baselines, in joules.

Policies are fitted, chosen and certified by the code that certifies cascades that serve
(`hybridserve_llm/calibration/`), and replayed by it. Costs to decide by are each tier's mean joules
of a request; figures to report are joules question by question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.judging.baselines import (
    JudgedPath,
    RandomShare,
    Rival,
    RivalT,
    certified,
    cheapest_path,
    oracle,
    perfect_chain,
    random_paths,
)
from eval.judging.intervals import Interval, paired_interval
from eval.judging.ways import Way, count_way
from eval.recorded.question_tokens import QuestionTokens
from eval.recorded.splits import Splits
from eval.rivals.calibrated_score import CalibratedChain, CalibratedScores, fit_calibrated_scores
from eval.rivals.other_ways import LENGTH, ORACLE, PERFECT, RANDOM, ROUTER, random_escalation
from eval.rivals.prompt_router import PromptRouter, router_paths
from eval.rivals.raw_score import SAVING_PER_TIER as RAW_SAVING_PER_TIER
from eval.rivals.raw_score import ScoreChain, raw_score_paths
from hybridserve_llm.calibration.certify import Promise, certify_fitted
from hybridserve_llm.calibration.choice import SAVING_PER_TIER
from hybridserve_llm.calibration.fitted import FittedModels, fit_models
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Floats, Outcomes
from hybridserve_llm.calibration.policies import Replay, replay

CASCADE = "cascade"
RAW, CALIBRATED, ROUTED = "best raw score", "one calibrated score", "random routing"


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonFigures:
    """Hold all that was certified at one epsilon; `rivals` were certified in the same way.

    Attributes:
        difference: Accuracy minus the last tier's, with its 95 % interval over the questions.
        saved_j: Joules saved a request, with its 95 % interval.
        loss: Of the cascade, of the kind that is promised: net loss, or harm.
        equal_energy: Random escalation that costs as much as the cascade; expected figures.
    """

    epsilon: float
    cascade: Way
    accuracy_last: float
    energy_last_j: float
    difference: float
    difference_interval: Interval | None
    loss: float
    saved_j: float
    saved_j_interval: Interval | None
    rivals: tuple[Way, ...]
    equal_energy: Way


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Hold the certified ways by epsilon, and `fixed` ones: each tier alone, and the ideal ones.

    Fixed ways look at no fit or certify question.
    """

    rows: tuple[EpsilonFigures, ...]
    fixed: tuple[Way, ...]


def study_of(
    splits: Splits,
    tokens: QuestionTokens,
    energies_j: Floats,
    *,
    epsilons: Sequence[float],
    loss: Loss,
    delta: float,
    seed: int,
) -> Study:
    """Return every way at every epsilon; `energies_j` is of test questions, [n_test, n_tiers]."""
    counts = _Counts(test=splits.test, energies_j=energies_j)
    fitted = fit_models(splits.fit, np.random.default_rng(seed))
    rivals = _Rivals.fitted(splits.fit, tokens, loss, seed)
    rows = []
    for epsilon in epsilons:
        promise = Promise(loss=loss, epsilon=epsilon, delta=delta)
        found = tuple(rivals.figures(splits, tokens, promise, counts))
        rows.append(_row(fitted, splits, promise, counts, found, seed))
    return Study(rows=tuple(rows), fixed=tuple(_fixed(counts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Count ways on the questions that figures are of; each tier has a cost at each of them."""

    test: Outcomes
    energies_j: Floats

    @property
    def last_j(self) -> float:
        return float(self.energies_j[:, self.test.last].mean())

    def of_each_j(self, done: Replay) -> Floats:
        """Return joules of each question, every tier asked included."""
        return np.asarray((done.was_asked * self.energies_j).sum(axis=1))

    def figures(
        self, name: str, chain: Sequence[int], done: Replay, *, is_certified: bool | None
    ) -> Way:
        return replace(
            count_way(name, done, self.test, self.energies_j),
            chain=tuple(self.test.tiers[i] for i in chain),
            certified=is_certified,
        )

    def alone(self, name: str, tier: int, *, is_certified: bool | None) -> Way:
        """Return the figures of asking one tier for everything."""
        share = RandomShare(tier=tier, share=1.0, asks_first=False, seed=0)
        return self.figures(name, (tier,), share.replay(self.test), is_certified=is_certified)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rivals:
    """Hold the paths of the rivals, fitted once; epsilon chooses among them."""

    raw: Sequence[JudgedPath[ScoreChain]]
    length: Sequence[JudgedPath[ScoreChain]]
    scores: CalibratedScores
    calibrated: Sequence[JudgedPath[CalibratedChain]]
    router: Sequence[JudgedPath[PromptRouter]]
    routed: Sequence[JudgedPath[RandomShare]]

    @classmethod
    def fitted(cls, fit: Outcomes, tokens: QuestionTokens, loss: Loss, seed: int) -> "_Rivals":
        scores = fit_calibrated_scores(fit, seed=seed)
        return cls(
            raw=raw_score_paths(fit, loss),
            length=raw_score_paths(tokens.scored_by_length(fit), loss),
            scores=scores,
            calibrated=scores.paths(loss),
            router=router_paths(fit, loss),
            routed=random_paths(fit, loss, asks_first=False, seed=seed),
        )

    def figures(
        self, splits: Splits, tokens: QuestionTokens, promise: Promise, counts: _Counts
    ) -> Iterator[Way]:
        """Yield what each certifies under `promise`; the last tier alone where that is nothing."""
        fit, epsilon = splits.fit, promise.epsilon
        raw = _ways(self.raw, fit, promise, RAW_SAVING_PER_TIER)
        yield _settled(splits, promise, counts, RAW, raw)
        best = cheapest_path(self.calibrated, fit, epsilon, saving_per_tier=SAVING_PER_TIER)
        calibrated = self.scores.to_walk(best) if best else ()
        yield _settled(splits, promise, counts, CALIBRATED, calibrated)
        by_length = Splits(
            fit=tokens.scored_by_length(fit),
            certify=tokens.scored_by_length(splits.certify),
            test=tokens.scored_by_length(splits.test),
        )
        length = _ways(self.length, by_length.fit, promise, RAW_SAVING_PER_TIER)
        yield _settled(by_length, promise, counts, LENGTH, length)
        router = _ways(self.router, fit, promise, SAVING_PER_TIER)
        yield _settled(splits, promise, counts, ROUTER, router)
        routed = _ways(self.routed, fit, promise, SAVING_PER_TIER)
        yield _settled(splits, promise, counts, ROUTED, routed)


def _ways(
    paths: Sequence[JudgedPath[RivalT]], fit: Outcomes, promise: Promise, saving_per_tier: float
) -> Sequence[RivalT]:
    path = cheapest_path(paths, fit, promise.epsilon, saving_per_tier=saving_per_tier)
    return path.ways if path else ()


def _settled(
    splits: Splits, promise: Promise, counts: _Counts, name: str, ways: Sequence[Rival]
) -> Way:
    """Return the cheapest certified one of `ways`, on the test questions."""
    way = certified(ways, splits.certify, promise)
    if way is None:
        return counts.alone(name, counts.test.last, is_certified=False)
    done = way.replay(splits.test)
    chain = np.flatnonzero(done.was_asked.any(axis=0))
    return counts.figures(name, [int(i) for i in chain], done, is_certified=True)


def _row(
    fitted: FittedModels,
    splits: Splits,
    promise: Promise,
    counts: _Counts,
    rivals: tuple[Way, ...],
    seed: int,
) -> EpsilonFigures:
    test = splits.test
    found = certify_fitted(fitted, splits.fit, splits.certify, promise)
    done = replay(found.policy, found.risks(test), test)
    chain, is_certified = found.policy.chain, found.chosen is not None
    differences = done.is_right(test).astype(np.float64) - test.is_right[:, test.last]
    saved_j = counts.energies_j[:, test.last] - counts.of_each_j(done)
    cascade = counts.figures(CASCADE, chain, done, is_certified=is_certified)
    return EpsilonFigures(
        epsilon=promise.epsilon,
        cascade=cascade,
        accuracy_last=float(test.is_right[:, test.last].mean()),
        energy_last_j=counts.last_j,
        difference=float(differences.mean()),
        difference_interval=paired_interval(differences, test.groups, seed=seed),
        loss=cascade.loss(promise.loss),
        saved_j=float(saved_j.mean()),
        saved_j_interval=paired_interval(saved_j, test.groups, seed=seed),
        rivals=rivals,
        equal_energy=_at_equal_energy(splits.fit, counts, cascade.cost),
    )


def _at_equal_energy(fit: Outcomes, counts: _Counts, energy_j: float) -> Way:
    """Return random escalation of cost `energy_j`, from the tier that is best on the fit split."""
    test = counts.test
    affordable = [tier for tier in range(test.last) if fit.costs[tier] <= energy_j]
    if not affordable or energy_j >= counts.last_j:
        return counts.alone(RANDOM, test.last, is_certified=None)
    tier = max(affordable, key=lambda t: random_escalation(t, fit, fit.costs, energy_j).accuracy)
    return random_escalation(tier, test, counts.energies_j.mean(axis=0), energy_j)


def _fixed(counts: _Counts) -> Iterator[Way]:
    test = counts.test
    for tier, name in enumerate(test.tiers):
        yield counts.alone(f"{name} alone", tier, is_certified=None)
    everyone = range(len(test.tiers))
    yield counts.figures(PERFECT, everyone, perfect_chain(test), is_certified=None)
    yield counts.figures(ORACLE, everyone, oracle(test), is_certified=None)
