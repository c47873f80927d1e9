"""The numbers behind the report: histograms by hand, the rest against the report's own figures."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.recorded.records_csv import outcomes_of, read_records
from eval.recorded.splits import Splits, disjoint_splits
from eval.reports.calibration_figures import ReportData, report_data, risk_histogram
from eval.reports.calibration_result import Report, report_of
from hybridserve_llm.calibration.certify import Promise, calibrate
from hybridserve_llm.calibration.outcomes import Outcomes

CHAIN, COSTS = ("small-1b", "mid-8b", "big-70b"), (1.0, 8.0, 70.0)


def calibrated(splits: Splits, *, epsilon: float = 0.05) -> tuple[Report, ReportData]:
    promise = Promise(loss="net", epsilon=epsilon, delta=0.1)
    calibration = calibrate(splits.fit, splits.certify, promise)
    report = report_of(calibration, splits, cost_source="given", n_incomplete=0, seed=0)
    return report, report_data(report, splits)


@pytest.fixture(scope="module")
def outcomes(cascade_csv: Path) -> Outcomes:
    return outcomes_of(read_records(cascade_csv), CHAIN, COSTS)[0]


@pytest.fixture(scope="module")
def splits(outcomes: Outcomes) -> Splits:
    return disjoint_splits(outcomes, 300, 500, seed=0)


@pytest.fixture(scope="module")
def certified(splits: Splits) -> tuple[Report, ReportData]:
    report, data = calibrated(splits)
    assert report.certified
    return report, data


def test_histogram_of_risks() -> None:
    risk = np.array([0.01, 0.02, 0.02, 0.09, np.nan])
    harmful = np.array([False, False, True, True, True])
    found = risk_histogram("small", risk, harmful, 0.05)
    # the greatest risk is 0.09: edges from 0 to 0.1 in twentieths of it, 0.005 wide
    assert found.edges == pytest.approx(tuple(0.005 * i for i in range(21)))
    assert {i: n for i, n in enumerate(found.n_harmless) if n} == {2: 1, 4: 1}
    assert {i: n for i, n in enumerate(found.n_harmful) if n} == {4: 1, 18: 1}
    assert (found.n_scored, found.n_unscored, found.accepts_all) == (4, 1, False)


def test_a_threshold_above_every_risk_accepts_all() -> None:
    found = risk_histogram("small", np.array([0.01, 0.03]), np.array([False, True]), 0.5)
    assert found.accepts_all


def test_histogram_without_any_risk() -> None:
    found = risk_histogram("small", np.full(3, np.nan), np.ones(3, dtype=bool), None)
    assert (found.n_scored, found.n_unscored, found.accepts_all) == (0, 3, False)
    assert found.edges[0] == 0.0
    assert found.edges[-1] == pytest.approx(0.05)


def test_figures_are_those_of_the_report(certified: tuple[Report, ReportData]) -> None:
    report, data = certified
    assert data.n_test == report.n_test == 200
    assert data.n_seen == 0
    assert data.cascade.total.accuracy == pytest.approx(report.test_accuracy)
    assert data.last.accuracy == pytest.approx(report.test_accuracy_last)
    assert data.cascade.harm_rate == pytest.approx(report.test_harm)
    assert data.last.mean_cost / data.cascade.total.mean_cost == pytest.approx(report.cost_ratio)
    assert data.cascade.asked == pytest.approx(tuple(tier.asked for tier in report.tiers))
    assert data.cascade.answered == pytest.approx(tuple(tier.answered for tier in report.tiers))
    assert [tier.name for tier in data.alone] == list(CHAIN)


def test_the_path_holds_every_certified_policy(certified: tuple[Report, ReportData]) -> None:
    report, data = certified
    points, steps = data.path.points, report.calibration.certified
    assert data.path.is_served
    assert data.path.chain == report.chain
    # the walk goes down the path in order, and ends at the first that fails
    assert [point.is_certified for point in points] == [i < len(steps) for i in range(len(points))]
    served = points[[step is report.calibration.chosen for step in steps].index(True)]
    assert served.accuracy == pytest.approx(report.test_accuracy)
    assert served.share_kept == pytest.approx(1 - data.cascade.asked[-1])
    below_last = [tier for tier in data.alone if tier.name in data.path.chain[:-1]]
    assert data.path.fallback.accuracy == max(tier.accuracy for tier in below_last)


def test_every_tier_below_the_last_has_a_reliability(
    certified: tuple[Report, ReportData],
) -> None:
    _, data = certified
    assert [reliability.tier for reliability in data.reliabilities] == list(CHAIN[:-1])
    assert all(reliability.n == 200 for reliability in data.reliabilities)


def test_risks_are_those_of_the_first_tier_of_the_chain(
    certified: tuple[Report, ReportData],
) -> None:
    report, data = certified
    first = CHAIN.index(report.chain[0])
    assert data.risks.tier == report.chain[0]
    assert data.risks.accept_at_most == report.calibration.policy.rules[(first,)].accept_at_most
    assert data.risks.n_scored == 200


def test_only_json_in_json(certified: tuple[Report, ReportData]) -> None:
    def check(value: Any) -> None:
        if isinstance(value, Mapping):
            assert all(type(key) is str for key in value)
            value = list(value.values())
        if isinstance(value, list | tuple):
            for entry in value:
                check(entry)
        else:
            assert value is None or type(value) in (str, int, float, bool)

    check(certified[1].as_json())


def test_without_a_certificate_the_best_longer_chain_is_shown(splits: Splits) -> None:
    report, data = calibrated(splits, epsilon=0.0005)
    assert not report.certified
    assert data.cascade.is_last_alone
    assert not data.path.is_served
    assert len(data.path.chain) > 1
    assert data.risks.tier == data.path.chain[0]
    assert data.risks.accept_at_most is None


def test_questions_that_were_fitted_on_are_counted(
    certified: tuple[Report, ReportData], splits: Splits, outcomes: Outcomes
) -> None:
    data = report_data(certified[0], replace(splits, test=outcomes))
    assert (data.n_seen, data.n_test) == (800, 1000)  # 300 to fit, 500 to certify


def test_groups_are_noticed(certified: tuple[Report, ReportData], splits: Splits) -> None:
    report, data = certified
    assert not data.has_groups
    test = replace(splits.test, groups=("user", *splits.test.groups[1:]))
    assert report_data(report, replace(splits, test=test)).has_groups


@pytest.fixture
def two_tiers(make_rows: Callable[..., list[dict[str, Any]]], write_csv: Any) -> Outcomes:
    rows = make_rows(305, skills={"small-1b": 0.5, "big-70b": 1.0})
    for row in rows:
        if row["model"] == "small-1b":
            row["raw_confidence"] = ""
    return outcomes_of(read_records(write_csv(rows)), ("small-1b", "big-70b"), (1.0, 70.0))[0]


def test_five_questions_and_no_score(two_tiers: Outcomes) -> None:
    report, data = calibrated(disjoint_splits(two_tiers, 100, 200, seed=0))
    assert data.n_test == 5
    assert data.cascade.difference_interval is None
    (reliability,) = data.reliabilities
    assert (reliability.n, reliability.n_unscored, reliability.ece) == (0, 5, None)
    assert (data.risks.n_scored, data.risks.n_unscored) == (0, 5)
    assert not report.certified


def test_a_loss_by_question_beyond_epsilon_is_a_warning_with_groups(
    certified: tuple[Report, ReportData],
) -> None:
    report, _ = certified
    beyond = replace(report, test_harm=1.0, test_accuracy=0.0, test_accuracy_last=1.0)
    assert not any("Warning" in line for line in beyond.remarks())
    of_groups = replace(beyond, is_of_groups=True)
    assert any("counted by question" in line for line in of_groups.remarks())
    within = replace(of_groups, test_harm=0.0, test_accuracy=1.0)
    assert not any("Warning" in line for line in within.remarks())
