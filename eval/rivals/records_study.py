"""What a cascade of recorded models saves: certified policies beside baselines, in joules.

Policies are fitted, chosen and certified by the code that certifies cascades that serve
(`hybridserve_llm/calibration/`), and replayed by it. Costs to decide by are each tier's mean joules
of a request; figures to report are joules question by question.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from eval.judging.baselines import (
    JudgedPath,
    RandomShare,
    Way,
    WayT,
    best_path,
    certified,
    measured,
    oracle,
    perfect_chain,
    random_paths,
)
from eval.judging.intervals import Interval, paired_interval
from eval.recorded.question_tokens import QuestionTokens
from eval.recorded.splits import Splits
from eval.rivals.calibrated_score import CalibratedChain, CalibratedScores, fit_calibrated_scores
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
RAW, CALIBRATED, LENGTH = "best raw score", "one calibrated score", "length only"
ROUTER, ROUTED, RANDOM = "router on the prompt", "random routing", "random escalation"
PERFECT, ORACLE = "perfect chain", "oracle"


@dataclass(frozen=True, slots=True, kw_only=True)
class WayFigures:
    """One way of answering on the test questions.

    Attributes:
        chain: Tiers it may ask, cheapest first.
        ratio: Joules of the last tier alone over its own.
        certified: Whether a walk certified it; None where it promises nothing.
        asked: Share of the questions that each tier of the file is asked, by name.
    """

    name: str
    chain: tuple[str, ...]
    accuracy: float
    energy_j: float
    ratio: float
    certified: bool | None
    asked: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpsilonFigures:
    """All that was certified at one epsilon; `rivals` were certified in the same way.

    Attributes:
        difference: Accuracy minus the last tier's, with its 95 % interval over the questions.
        saved_j: Joules saved a request, with its 95 % interval.
        loss: Of the cascade, of the kind that is promised: net loss, or harm.
        equal_energy: Random escalation that costs as much as the cascade; expected figures.
    """

    epsilon: float
    cascade: WayFigures
    accuracy_last: float
    energy_last_j: float
    difference: float
    difference_interval: Interval | None
    loss: float
    saved_j: float
    saved_j_interval: Interval | None
    rivals: tuple[WayFigures, ...]
    equal_energy: WayFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """`fixed` ways look at no fit or certify question: each tier alone, and the ideal ones."""

    rows: tuple[EpsilonFigures, ...]
    fixed: tuple[WayFigures, ...]


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
    """Every way at every epsilon; `energies_j` is of the test questions, [n_test, n_tiers]."""
    ledger = _Ledger(test=splits.test, energies_j=energies_j)
    fitted = fit_models(splits.fit, np.random.default_rng(seed))
    rivals = _Rivals.fitted(splits.fit, tokens, loss, seed)
    rows = []
    for epsilon in epsilons:
        promise = Promise(loss=loss, epsilon=epsilon, delta=delta)
        found = tuple(rivals.figures(splits, tokens, promise, ledger))
        rows.append(_row(fitted, splits, promise, ledger, found, seed))
    return Study(rows=tuple(rows), fixed=tuple(_fixed(ledger)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ledger:
    """The questions that figures are of, and what each tier costs at each of them."""

    test: Outcomes
    energies_j: Floats

    @property
    def last_j(self) -> float:
        return float(self.energies_j[:, self.test.last].mean())

    def of_each_j(self, done: Replay) -> Floats:
        """Joules of each question, every tier asked included."""
        return np.asarray((done.was_asked * self.energies_j).sum(axis=1))

    def figures(
        self, name: str, chain: Sequence[int], done: Replay, *, is_certified: bool | None
    ) -> WayFigures:
        energy_j = float(self.of_each_j(done).mean())
        return WayFigures(
            name=name,
            chain=tuple(self.test.tiers[i] for i in chain),
            accuracy=float(done.is_right(self.test).mean()),
            energy_j=energy_j,
            ratio=self.last_j / energy_j,
            certified=is_certified,
            asked=dict(zip(self.test.tiers, done.was_asked.mean(axis=0).tolist(), strict=True)),
        )

    def alone(self, name: str, tier: int, *, is_certified: bool | None) -> WayFigures:
        """What asking one tier for everything gives."""
        share = RandomShare(tier=tier, share=1.0, asks_first=False, seed=0)
        return self.figures(name, (tier,), share.replay(self.test), is_certified=is_certified)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rivals:
    """Paths of the rivals, fitted once; epsilon chooses among them."""

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
        self, splits: Splits, tokens: QuestionTokens, promise: Promise, ledger: _Ledger
    ) -> Iterator[WayFigures]:
        """What each certifies under `promise`; the last tier alone where it certifies nothing."""
        fit, epsilon = splits.fit, promise.epsilon
        raw = _ways(self.raw, fit, promise, RAW_SAVING_PER_TIER)
        yield _settled(splits, promise, ledger, RAW, raw)
        best = best_path(self.calibrated, fit, epsilon, saving_per_tier=SAVING_PER_TIER)
        calibrated = self.scores.to_walk(best) if best else ()
        yield _settled(splits, promise, ledger, CALIBRATED, calibrated)
        by_length = Splits(
            fit=tokens.scored_by_length(fit),
            certify=tokens.scored_by_length(splits.certify),
            test=tokens.scored_by_length(splits.test),
        )
        length = _ways(self.length, by_length.fit, promise, RAW_SAVING_PER_TIER)
        yield _settled(by_length, promise, ledger, LENGTH, length)
        router = _ways(self.router, fit, promise, SAVING_PER_TIER)
        yield _settled(splits, promise, ledger, ROUTER, router)
        routed = _ways(self.routed, fit, promise, SAVING_PER_TIER)
        yield _settled(splits, promise, ledger, ROUTED, routed)


def _ways(
    paths: Sequence[JudgedPath[WayT]], fit: Outcomes, promise: Promise, saving_per_tier: float
) -> Sequence[WayT]:
    path = best_path(paths, fit, promise.epsilon, saving_per_tier=saving_per_tier)
    return path.ways if path else ()


def _settled(
    splits: Splits, promise: Promise, ledger: _Ledger, name: str, ways: Sequence[Way]
) -> WayFigures:
    """The cheapest certified one of `ways`, on the test questions."""
    way = certified(ways, splits.certify, promise)
    if way is None:
        return ledger.alone(name, ledger.test.last, is_certified=False)
    done = way.replay(splits.test)
    chain = np.flatnonzero(done.was_asked.any(axis=0))
    return ledger.figures(name, [int(i) for i in chain], done, is_certified=True)


def _row(
    fitted: FittedModels,
    splits: Splits,
    promise: Promise,
    ledger: _Ledger,
    rivals: tuple[WayFigures, ...],
    seed: int,
) -> EpsilonFigures:
    test = splits.test
    found = certify_fitted(fitted, splits.fit, splits.certify, promise)
    done = replay(found.policy, found.risks(test), test)
    chain, is_certified = found.policy.chain, found.chosen is not None
    differences = done.is_right(test).astype(np.float64) - test.is_right[:, test.last]
    saved_j = ledger.energies_j[:, test.last] - ledger.of_each_j(done)
    cascade = ledger.figures(CASCADE, chain, done, is_certified=is_certified)
    return EpsilonFigures(
        epsilon=promise.epsilon,
        cascade=cascade,
        accuracy_last=float(test.is_right[:, test.last].mean()),
        energy_last_j=ledger.last_j,
        difference=float(differences.mean()),
        difference_interval=paired_interval(differences, test.groups, seed=seed),
        loss=measured(done, test).loss(promise.loss),
        saved_j=float(saved_j.mean()),
        saved_j_interval=paired_interval(saved_j, test.groups, seed=seed),
        rivals=rivals,
        equal_energy=_at_equal_energy(splits.fit, ledger, cascade.energy_j),
    )


def _at_equal_energy(fit: Outcomes, ledger: _Ledger, energy_j: float) -> WayFigures:
    """Random escalation from the tier that is best for it on the fit split, as dear as told.

    Every question pays for the tier, and a share of them, drawn at random, for the last one too.
    Where that is dearer even without escalation, the tier is asked for nothing.
    """
    last, costs = ledger.test.last, [float(cost) for cost in fit.costs]

    def share_kept(own_j: float, last_j: float) -> float:
        return float(np.clip((own_j + last_j - energy_j) / last_j, 0.0, 1.0))

    def accuracy(outcomes: Outcomes, tier: int, kept: float) -> float:
        rates = outcomes.is_right.mean(axis=0)
        return float(kept * rates[tier] + (1 - kept) * rates[last])

    affordable = [tier for tier in range(last) if costs[tier] <= energy_j]
    if not affordable or energy_j >= ledger.last_j:
        return ledger.alone(RANDOM, last, is_certified=None)
    tier = max(affordable, key=lambda t: accuracy(fit, t, share_kept(costs[t], costs[last])))
    own_j = float(ledger.energies_j[:, tier].mean())
    kept = share_kept(own_j, ledger.last_j)
    total_j = own_j + (1 - kept) * ledger.last_j
    asked = dict.fromkeys(ledger.test.tiers, 0.0)
    asked |= {ledger.test.tiers[tier]: 1.0, ledger.test.tiers[last]: 1 - kept}
    return WayFigures(
        name=RANDOM,
        chain=(ledger.test.tiers[tier], ledger.test.tiers[last]),
        accuracy=accuracy(ledger.test, tier, kept),
        energy_j=total_j,
        ratio=ledger.last_j / total_j,
        certified=None,
        asked=asked,
    )


def _fixed(ledger: _Ledger) -> Iterator[WayFigures]:
    test = ledger.test
    for tier, name in enumerate(test.tiers):
        yield ledger.alone(f"{name} alone", tier, is_certified=None)
    everyone = range(len(test.tiers))
    yield ledger.figures(PERFECT, everyone, perfect_chain(test), is_certified=None)
    yield ledger.figures(ORACLE, everyone, oracle(test), is_certified=None)
