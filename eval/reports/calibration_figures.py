"""The numbers behind the calibration report, all counted on the test questions.

Whoever draws or prints reads them from here. None stands where a number cannot be told.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.judging.accuracy_and_cost import (
    AccuracyAndCost,
    PolicyPoint,
    ServedPolicy,
    oracle_and_perfect_chain,
    policy_point,
    served_policy,
    tier_alone,
)
from eval.judging.reliability import Reliability, reliability_of
from eval.recorded.splits import Splits
from eval.reports.calibration_result import Report
from hybridserve_llm.calibration.certify import Calibration, best_path
from hybridserve_llm.calibration.outcomes import Bools, Floats, Outcomes
from hybridserve_llm.calibration.policies import replay

N_RISK_BINS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyPath:
    """The policies of one chain, strict to lax.

    Attributes:
        is_served: Whether this is the chain that is served.
        fallback: The most accurate of the chain's tiers below the last.
    """

    chain: tuple[str, ...]
    has_gate: bool
    is_served: bool
    points: tuple[PolicyPoint, ...]
    fallback: AccuracyAndCost


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskHistogram:
    """Risks of one tier's answers, counted in bins between `edges`, shape [n_bins + 1].

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
        """Answers that have a risk."""
        return sum(self.n_harmless) + sum(self.n_harmful)

    @property
    def accepts_all(self) -> bool:
        """Whether the threshold lies above every risk."""
        return self.accept_at_most is not None and self.accept_at_most > self.edges[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportData:
    """Everything that is drawn or printed.

    Attributes:
        n_seen: Test questions that were fitted or certified on too; above 0 after a bootstrap.
        alone: Every tier alone, in order.
    """

    n_test: int
    n_seen: int
    has_groups: bool
    epsilon: float
    alone: tuple[AccuracyAndCost, ...]
    cascade: ServedPolicy
    oracle: AccuracyAndCost
    perfect_chain: AccuracyAndCost
    reliabilities: tuple[Reliability, ...]
    path: PolicyPath
    risks: RiskHistogram

    @property
    def last(self) -> AccuracyAndCost:
        """The last tier alone."""
        return self.alone[-1]

    def as_json(self) -> dict[str, Any]:
        """Objects, lists, numbers and null only."""
        return asdict(self)


def report_data(report: Report, splits: Splits) -> ReportData:
    """Replays the report's calibration on the test questions of the `splits` it came from."""
    calibration, test = report.calibration, splits.test
    alone = tuple(tier_alone(test, tier) for tier in range(len(test.tiers)))
    oracle, perfect_chain = oracle_and_perfect_chain(test)
    path = _path(calibration, splits, alone)
    seen = {*splits.fit.questions, *splits.certify.questions}
    return ReportData(
        n_test=test.n_questions,
        n_seen=sum(question in seen for question in test.questions),
        has_groups=any(group is not None for group in test.groups),
        epsilon=calibration.promise.epsilon,
        alone=alone,
        cascade=served_policy(calibration.policy, calibration.risks(test), test, seed=report.seed),
        oracle=oracle,
        perfect_chain=perfect_chain,
        reliabilities=_reliabilities(calibration, test, report.seed),
        path=path,
        risks=_risks(calibration, test, test.tiers.index(path.chain[0])),
    )


def risk_histogram(
    tier: str, risk: Floats, is_harmful: Bools, accept_at_most: float | None
) -> RiskHistogram:
    """Counts of the risks, shape [n], NaN where unknown, from 0 to the next twentieth above all."""
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


def _path(
    calibration: Calibration, splits: Splits, alone: tuple[AccuracyAndCost, ...]
) -> PolicyPath:
    """The path of the served chain, found on the fit split and replayed on the test questions.

    Where nothing is served, that of the best chain of more than one tier.
    """
    served, fitted, test = calibration.policy, calibration.fitted, splits.test
    is_served = len(served.chain) > 1
    several = [estimate for estimate in calibration.estimates if len(estimate.chain) > 1]
    shown = next(
        estimate
        for estimate in several
        if not is_served or (estimate.chain, estimate.has_gate) == (served.chain, served.has_gate)
    )
    policies = best_path(shown, fitted, splits.fit, calibration.promise)
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
    """Of every tier below the last, asked first."""
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
