"""Figures: well-formed SVG that stands in a page, the same each time, whatever the numbers."""

import re
from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from eval.judging.accuracy_and_cost import AccuracyAndCost, PolicyPoint, ServedPolicy
from eval.judging.reliability import Reliability, ReliabilityBin
from eval.reports.calibration_figures import PolicyPath, ReportData, RiskHistogram
from eval.reports.calibration_svg import deferral_svg, pareto_svg, reliability_svg, risk_svg

HOSTILE = '_a$b_{--><script>"x"</script>'

BINS = (
    ReliabilityBin(n=10, mean_confidence=0.6, accuracy=0.5, accuracy_interval=(0.24, 0.76)),
    ReliabilityBin(n=10, mean_confidence=0.9, accuracy=1.0, accuracy_interval=(0.72, 1.0)),
)
SCORED = Reliability(
    tier="small",
    n=20,
    n_unscored=0,
    bins=BINS,
    ece=0.1,
    perfect_ece=0.08,
    perfect_ece_high=0.15,
    brier=0.2,
    auroc=0.8,
)
UNSCORED = Reliability(
    tier=HOSTILE,
    n=0,
    n_unscored=20,
    bins=(),
    ece=None,
    perfect_ece=None,
    perfect_ece_high=None,
    brier=None,
    auroc=None,
)
RISKS = RiskHistogram(
    tier="small",
    edges=(0.0, 0.1, 0.2),
    n_harmless=(9, 4),
    n_harmful=(1, 6),
    n_unscored=0,
    accept_at_most=0.12,
)


def way(name: str, accuracy: float, mean_cost: float) -> AccuracyAndCost:
    interval = (max(accuracy - 0.1, 0.0), min(accuracy + 0.1, 1.0))
    return AccuracyAndCost(
        name=name, accuracy=accuracy, accuracy_interval=interval, mean_cost=mean_cost
    )


def data(
    *,
    costs: tuple[float, float] = (1.0, 10.0),
    accuracies: tuple[float, float] = (0.5, 0.9),
    names: tuple[str, str] = ("small", "big"),
    is_served: bool = True,
) -> ReportData:
    alone = tuple(way(*of_tier) for of_tier in zip(names, accuracies, costs, strict=True))
    total = way("cascade", accuracies[1], sum(costs) / 2)
    return ReportData(
        n_test=20,
        n_seen=0,
        has_groups=False,
        epsilon=0.02,
        alone=alone,
        cascade=ServedPolicy(
            total=total,
            tiers=names,
            chain=names if is_served else names[1:],
            has_gate=False,
            difference=0.0,
            difference_interval=None,
            harm_rate=0.0,
            harm_interval=(0.0, 0.16),
            wasted_cost=0.5,
            answered=(0.5, 0.5),
            asked=(1.0, 0.5),
        ),
        oracle=way("oracle", accuracies[1], costs[0]),
        perfect_chain=way("perfect chain", accuracies[1], costs[0]),
        reliabilities=(SCORED,),
        path=PolicyPath(
            chain=names,
            has_gate=False,
            is_served=is_served,
            points=(
                PolicyPoint(
                    share_kept=0.0, accuracy=accuracies[1], mean_cost=sum(costs), is_certified=True
                ),
                PolicyPoint(
                    share_kept=1.0, accuracy=accuracies[0], mean_cost=costs[0], is_certified=False
                ),
            ),
            fallback=alone[0],
        ),
        risks=RISKS,
    )


def texts(svg: str) -> set[str]:
    """The words that are drawn; matplotlib repeats each in a comment."""
    return {text.strip() for text in re.findall(r"<!--(.*?)-->", svg, re.DOTALL)}


@pytest.fixture(autouse=True)
def untouched_style() -> Iterator[None]:
    before = dict(mpl.rcParams.copy())
    yield
    after = dict(mpl.rcParams.copy())
    assert {key for key in before if before[key] != after[key]} == set()


def check_svg(svg: str, name: str) -> None:
    root = ElementTree.fromstring(svg)
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert all(one.startswith(f"{name}-") for one in ids)
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)
    assert {a or b for a, b in used} <= set(ids)
    assert root.attrib["aria-labelledby"].split() == [f"{name}-title", f"{name}-desc"]
    assert [root[0].text, root[1].text] == ["T", "<D>"]
    assert not re.search(r"<(script|style|metadata|image)|href=\"[^#]|https?://(?!www.w3.org)", svg)


def test_reliability_panels() -> None:
    svg = reliability_svg([SCORED, UNSCORED, SCORED], title="T", description="<D>")
    check_svg(svg, "reliability")
    shown = texts(svg)
    assert {"confidence", "answers that are right", "small"} <= shown
    assert "calibration error 0.100; if perfect 0.080" in shown
    assert "calibration error: unknown" in shown
    assert "not enough answers with a score:" in shown
    assert "0 of 20" in shown


def test_deferral_curve() -> None:
    svg = deferral_svg(data(), title="T", description="<D>")
    check_svg(svg, "deferral")
    assert {
        "last tier alone: big",
        "2 points below it (epsilon)",
        "by lot: small or big",
        "policies of the chain",
        "certified policies",
        "served policy, with 95 % interval",
    } <= texts(svg)


def test_what_is_not_served_is_not_marked() -> None:
    svg = deferral_svg(data(is_served=False, names=(HOSTILE, "b")), title="T", description="<D>")
    check_svg(svg, "deferral")
    assert "policies of the best chain, not served" in texts(svg)
    assert not any("served policy" in text for text in texts(svg))


def test_pareto_plot_with_costs_on_a_logarithmic_axis() -> None:
    svg = pareto_svg(data(), title="T", description="<D>")
    check_svg(svg, "pareto")
    # ticks at 1, 2 and 5 of a decade: linear ones would be evenly apart
    assert {"1", "2", "5", "10", "oracle", "perfect chain", "one tier alone", "big"} <= texts(svg)


def test_costs_that_differ_little_lie_on_a_linear_axis() -> None:
    close = data(costs=(10.0, 12.0), accuracies=(1.0, 1.0), names=(HOSTILE, "b"))
    svg = pareto_svg(close, title="T", description="<D>")
    check_svg(svg, "pareto")
    assert {"12", "14", "16", "18", "20", "22"} <= texts(svg)


def test_a_tier_that_costs_nothing_is_drawn() -> None:
    svg = pareto_svg(data(costs=(0.0, 12.0)), title="T", description="<D>")
    assert {"0", "2", "4", "6", "8", "10", "12"} <= texts(svg)


def test_risk_histogram() -> None:
    svg = risk_svg(RISKS, title="T", description="<D>")
    check_svg(svg, "risk")
    assert {
        "risk of accepting the answer of small",
        "accepting does no harm",
        "accepting does harm",
        "accepted up to 0.120",
    } <= texts(svg)


def test_the_same_numbers_give_the_same_file() -> None:
    # and a threshold above every risk is not drawn
    svg = risk_svg(replace(RISKS, accept_at_most=0.5), title="T", description="<D>")
    assert svg == risk_svg(replace(RISKS, accept_at_most=0.5), title="T", description="<D>")
    assert not any("accepted up to" in text for text in texts(svg))


def test_a_tier_without_scores_says_so() -> None:
    risks = replace(RISKS, n_harmless=(0, 0), n_harmful=(0, 0), n_unscored=20, accept_at_most=None)
    shown = texts(risk_svg(risks, title="T", description="<D>"))
    assert "no answer has a score" in shown
    assert not any("accepted up to" in text for text in shown)
