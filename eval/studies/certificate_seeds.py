"""One seed of the certificate table: every way on one file, fitted and certified anew.

Fit and certify rows are drawn with replacement from the file, and the whole file is the truth, so
that the promise "loss <= epsilon with probability 1 - delta" can be counted over seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.judging.baselines import (
    JudgedPath,
    Measured,
    RandomShare,
    Way,
    best_path,
    certified,
    laxest_empirical,
    measured,
    oracle,
    perfect_chain,
    random_paths,
)
from eval.recorded.splits import Splits, bootstrap_splits
from eval.rivals.calibrated_score import CalibratedChain, CalibratedScores, fit_calibrated_scores
from eval.rivals.raw_score import SAVING_PER_TIER as RAW_SAVING_PER_TIER
from eval.rivals.raw_score import ScoreChain, raw_score_paths
from eval.studies.peer_rules import PEER_RULES
from hybridserve_llm.calibration.certify import Promise, certify_fitted
from hybridserve_llm.calibration.choice import SAVING_PER_TIER
from hybridserve_llm.calibration.fitted import FittedModels, fit_models
from hybridserve_llm.calibration.loss_tests import Loss
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import replay

OURS = "this method"
RAW = "best raw score"
CALIBRATED = "one calibrated score"
RANDOM, ROUTED = "random acceptance", "random routing"
PLAIN = "plain empirical"
PERFECT, ORACLE = "perfect chain", "oracle"
CERTIFIED_WAYS = (OURS, RAW, CALIBRATED, RANDOM, ROUTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """One run of the protocol."""

    n_fit: int
    n_certify: int
    delta: float
    losses: tuple[Loss, ...]
    epsilons: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class WayResult:
    """True figures of what one way came to; `is_settled` is false where it gave nothing to serve.

    Then everything goes to the last tier.
    """

    cost: float
    lost: float
    rescued: float
    is_settled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedResult:
    """One seed of one file under one promise, every way by name."""

    file: str
    seed: int
    n_fit: int
    n_certify: int
    loss: Loss
    epsilon: float
    delta: float
    costs: Mapping[str, float]
    ways: Mapping[str, WayResult]

    @property
    def last_cost(self) -> float:
        """Cost of a request to the last tier."""
        return list(self.costs.values())[-1]

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return asdict(self)


def seed_result_from(value: Mapping[str, Any]) -> SeedResult:
    """The result that `SeedResult.as_json` wrote.

    Raises:
        TypeError: A field is missing or unknown.
    """
    ways = {name: WayResult(**way) for name, way in value["ways"].items()}
    return SeedResult(**{**value, "ways": ways})


def measure_seed(outcomes: Outcomes, file: str, seed: int, setup: Setup) -> list[SeedResult]:
    """Every way under every promise of `setup` on one draw of rows."""
    splits = bootstrap_splits(outcomes, setup.n_fit, setup.n_certify, seed)
    always = _uncertified(outcomes)
    fitted = fit_models(splits.fit, np.random.default_rng(seed))
    scores = fit_calibrated_scores(splits.fit, seed=seed)
    results = []
    for loss in setup.losses:
        paths = _Paths.fitted(scores, loss, seed)
        for epsilon in setup.epsilons:
            promise = Promise(loss=loss, epsilon=epsilon, delta=setup.delta)
            ours = _ours(fitted, splits, promise)
            ways = {OURS: ours, **_rivals(splits, paths, promise), **always}
            results.append(
                SeedResult(
                    file=file,
                    seed=seed,
                    n_fit=setup.n_fit,
                    n_certify=setup.n_certify,
                    loss=loss,
                    epsilon=epsilon,
                    delta=setup.delta,
                    costs=dict(zip(outcomes.tiers, map(float, outcomes.costs), strict=True)),
                    ways=ways,
                )
            )
    return results


def _ours(fitted: FittedModels, splits: Splits, promise: Promise) -> WayResult:
    calibration = certify_fitted(fitted, splits.fit, splits.certify, promise)
    if calibration.chosen is None:
        return _nothing(splits.test)
    done = replay(calibration.policy, calibration.risks(splits.test), splits.test)
    return _result(measured(done, splits.test))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Paths:
    """Paths of the rivals, fitted for one loss; epsilon chooses among them."""

    raw: Sequence[JudgedPath[ScoreChain]]
    scores: CalibratedScores
    calibrated: Sequence[JudgedPath[CalibratedChain]]
    random: Sequence[JudgedPath[RandomShare]]
    routed: Sequence[JudgedPath[RandomShare]]

    @classmethod
    def fitted(cls, scores: CalibratedScores, loss: Loss, seed: int) -> "_Paths":
        return cls(
            raw=raw_score_paths(scores.fit, loss),
            scores=scores,
            calibrated=scores.paths(loss),
            random=random_paths(scores.fit, loss, asks_first=True, seed=seed),
            routed=random_paths(scores.fit, loss, asks_first=False, seed=seed),
        )


def _rivals(splits: Splits, paths: _Paths, promise: Promise) -> dict[str, WayResult]:
    """The certified rivals, and the plain empirical threshold on the path of the raw score."""
    fit, certify, epsilon = splits.fit, splits.certify, promise.epsilon
    raw = best_path(paths.raw, fit, epsilon, saving_per_tier=RAW_SAVING_PER_TIER)
    raw_ways = raw.ways if raw else ()
    calibrated = best_path(paths.calibrated, fit, epsilon, saving_per_tier=SAVING_PER_TIER)
    calibrated_ways = paths.scores.to_walk(calibrated) if calibrated else ()
    plain = laxest_empirical(raw_ways, (fit, certify), promise.loss, epsilon)
    return {
        RAW: _served(certified(raw_ways, certify, promise), splits.test),
        CALIBRATED: _served(certified(calibrated_ways, certify, promise), splits.test),
        RANDOM: _random(splits, paths.random, promise),
        ROUTED: _random(splits, paths.routed, promise),
        PLAIN: _served(plain, splits.test),
    }


def _random(
    splits: Splits, paths: Sequence[JudgedPath[RandomShare]], promise: Promise
) -> WayResult:
    path = best_path(paths, splits.fit, promise.epsilon, saving_per_tier=SAVING_PER_TIER)
    share = certified(path.ways, splits.certify, promise) if path else None
    return _result(share.expected(splits.test)) if share else _nothing(splits.test)


def _served(way: Way | None, test: Outcomes) -> WayResult:
    return _result(measured(way.replay(test), test)) if way else _nothing(test)


def _nothing(test: Outcomes) -> WayResult:
    """Everything goes to the last tier."""
    cost = float(test.costs[test.last])
    return WayResult(cost=cost, lost=0.0, rescued=0.0, is_settled=False)


def _uncertified(test: Outcomes) -> dict[str, WayResult]:
    """The ways that look at no fit or certify row."""
    done = {PERFECT: perfect_chain(test), ORACLE: oracle(test)}
    done |= {rule.name: rule.replay(test) for rule in PEER_RULES}
    return {name: _result(measured(each, test)) for name, each in done.items()}


def _result(found: Measured) -> WayResult:
    return WayResult(cost=found.cost, lost=found.lost, rescued=found.rescued, is_settled=True)
