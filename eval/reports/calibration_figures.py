"""Count the numbers behind the calibration report, all on the test questions.

Whoever draws or prints reads them from here. None stands where a number is unknown.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.judging.accuracy_and_cost import (
    JudgedPolicy,
    PolicyPoint,
    oracle_and_perfect_chain,
    policy_point,
)
from eval.judging.reliability import Reliability, reliability_of
from eval.judging.ways import Way
from eval.recorded.splits import Splits
from eval.reports.calibration_result import CalibrationReport
from hybridserve_llm.calibration.certify import Calibration, path_to_walk
from hybridserve_llm.calibration.outcomes import Bools, Floats, Outcomes
from hybridserve_llm.calibration.policies import WholePolicy, replay

N_RISK_BINS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPath:
    """Hold the policies of one chain, strict to lax.

    Attributes:
        is_served: Whether this is the chain that is served.
        fallback: The most accurate of the chain's tiers below the last.
    """

    chain: tuple[str, ...]
    has_gate: bool
    is_served: bool
    points: tuple[PolicyPoint, ...]
    fallback: Way


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskHistogram:
    """Hold the risks of one tier's answers, counted in bins between `edges`, shape [n_bins + 1].

    Attributes:
        accept_at_most: Threshold of the served policy; None where it accepts nothing of this tier.
    """

    tier: str
    edges: tuple[float, ...]
    n_harmless: tuple[int, ...]
    n_harmful: tuple[int, ...]
    n_unscored: int
    accept_at_most: float | None

    @property
    def n_scored(self) -> int:
        """Return the number of answers that have a risk."""
        return sum(self.n_harmless) + sum(self.n_harmful)

    @property
    def accepts_all(self) -> bool:
        """Return whether the threshold lies above every risk."""
        return self.accept_at_most is not None and self.accept_at_most > self.edges[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class CalibrationFigures:
    """Hold everything that is drawn or printed.

    Attributes:
        n_seen: Test questions that were fitted or certified on too; above 0 after a bootstrap.
        alone: Every tier alone, in order.
    """

    n_test: int
    n_seen: int
    has_groups: bool
    epsilon: float
    alone: tuple[Way, ...]
    cascade: JudgedPolicy
    oracle: Way
    perfect_chain: Way
    reliabilities: tuple[Reliability, ...]
    path: PolicyPath
    risks: RiskHistogram

    @property
    def last(self) -> Way:
        """Return the last tier alone."""
        return self.alone[-1]

    def as_json(self) -> dict[str, Any]:
        """Return objects, lists, numbers and null only."""
        found = asdict(self)
        found["alone"] = [_way_json(way) for way in self.alone]
        found |= {"oracle": _way_json(self.oracle), "perfect_chain": _way_json(self.perfect_chain)}
        found["cascade"]["total"] = _way_json(self.cascade.total)
        found["path"]["fallback"] = _way_json(self.path.fallback)
        return found


def _way_json(way: Way) -> dict[str, Any]:
    return way.as_json("name", "accuracy", "accuracy_interval", cost_name="mean_cost")


def calibration_figures(report: CalibrationReport, splits: Splits) -> CalibrationFigures:
    """Replay the report's calibration on the test questions of the `splits` it came from."""
    calibration, test = report.calibration, splits.test
    alone = report.tiers
    oracle, perfect_chain = oracle_and_perfect_chain(test)
    path = _path(calibration, splits, alone)
    seen = {*splits.fit.questions, *splits.certify.questions}
    return CalibrationFigures(
        n_test=test.n_questions,
        n_seen=sum(question in seen for question in test.questions),
        has_groups=any(group is not None for group in test.groups),
        epsilon=calibration.promise.epsilon,
        alone=alone,
        cascade=report.cascade,
        oracle=oracle,
        perfect_chain=perfect_chain,
        reliabilities=_reliabilities(calibration, test, report.seed),
        path=path,
        risks=_risks(calibration, test, test.tiers.index(path.chain[0])),
    )


def risk_histogram(
    tier: str, risk: Floats, is_harmful: Bools, accept_at_most: float | None
) -> RiskHistogram:
    """Count the risks, shape [n], NaN where unknown, from 0 to the next twentieth above all."""
    known = ~np.isnan(risk)
    highest = float(risk[known].max(initial=0.0))
    edges = np.linspace(0.0, max(float(np.ceil(highest * 20)), 1.0) / 20, N_RISK_BINS + 1)
    harmful, _ = np.histogram(risk[known & is_harmful], edges)
    harmless, _ = np.histogram(risk[known & ~is_harmful], edges)
    return RiskHistogram(
        tier=tier,
        edges=tuple(float(edge) for edge in edges),
        n_harmless=tuple(int(count) for count in harmless),
        n_harmful=tuple(int(count) for count in harmful),
        n_unscored=int((~known).sum()),
        accept_at_most=accept_at_most,
    )


def _path(calibration: Calibration, splits: Splits, alone: tuple[Way, ...]) -> PolicyPath:
    """Return the path of the served chain, replayed on the test questions.

    It was found on the fit split. Where nothing is served, it is that of the best longer chain.
    """
    served, fitted, test = calibration.policy, calibration.fitted, splits.test
    is_served = len(served.chain) > 1
    several = [estimate for estimate in calibration.estimates if len(estimate.chain) > 1]
    shown = next(
        estimate
        for estimate in several
        if not is_served or (estimate.chain, estimate.has_gate) == (served.chain, served.has_gate)
    )
    policies: Sequence[WholePolicy] = calibration.path
    if len(policies) == 1 or (policies[0].chain, policies[0].has_gate) != (
        shown.chain,
        shown.has_gate,
    ):  # a knee, or the last tier alone: no path of `shown` was walked
        policies = path_to_walk(shown, fitted, splits.fit, calibration.promise)
    risks = fitted.risks(policies[0], test)
    certified = {step.policy.shape() for step in calibration.certified}
    return PolicyPath(
        chain=tuple(test.tiers[tier] for tier in shown.chain),
        has_gate=shown.has_gate,
        is_served=is_served,
        points=tuple(
            policy_point(
                replay(policy, risks, test), test, is_certified=policy.shape() in certified
            )
            for policy in policies
        ),
        fallback=max((alone[tier] for tier in shown.chain[:-1]), key=lambda tier: tier.accuracy),
    )


def _reliabilities(calibration: Calibration, test: Outcomes, seed: int) -> tuple[Reliability, ...]:
    """Return the reliability of every tier below the last, asked first."""
    return tuple(
        reliability_of(
            test.tiers[tier],
            calibration.fitted.judge((tier,), test).confidence,
            test.is_right[:, tier],
            seed=seed,
        )
        for tier in range(test.last)
    )


def _risks(calibration: Calibration, test: Outcomes, first: int) -> RiskHistogram:
    rule = calibration.policy.rules.get((first,))
    is_finite = rule is not None and bool(np.isfinite(rule.accept_at_most))
    return risk_histogram(
        test.tiers[first],
        calibration.fitted.judge((first,), test).risk,
        test.harmful(first),
        rule.accept_at_most if rule is not None and is_finite else None,
    )
