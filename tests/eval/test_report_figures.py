"""Figures: well-formed SVG that stands in a page, the same each time, whatever the numbers."""

import re
from collections.abc import Iterator
from dataclasses import replace
from xml.etree import ElementTree

import matplotlib as mpl
import pytest

from eval.judging.accuracy_and_cost import JudgedPolicy, PolicyPoint
from eval.judging.reliability import Reliability, ReliabilityBin
from eval.judging.ways import Way
from eval.reports.calibration_drawings import deferral_of_test, pareto_of_test, risk
from eval.reports.calibration_figures import CalibrationFigures, PolicyPath, RiskHistogram
from eval.reports.reliability_drawing import reliability_drawing
from hybridserve_llm.reporting.blocks import Drawing

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


def way(name: str, accuracy: float, mean_cost: float) -> Way:
    interval = (max(accuracy - 0.1, 0.0), min(accuracy + 0.1, 1.0))
    return Way(name=name, accuracy=accuracy, accuracy_interval=interval, cost=mean_cost)


def data(
    *,
    costs: tuple[float, float] = (1.0, 10.0),
    accuracies: tuple[float, float] = (0.5, 0.9),
    names: tuple[str, str] = ("small", "big"),
    is_served: bool = True,
) -> CalibrationFigures:
    alone = tuple(way(*of_tier) for of_tier in zip(names, accuracies, costs, strict=True))
    total = way("cascade", accuracies[1], sum(costs) / 2)
    return CalibrationFigures(
        n_test=20,
        n_seen=0,
        has_groups=False,
        epsilon=0.02,
        alone=alone,
        cascade=JudgedPolicy(
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


def texts(drawing: Drawing) -> set[str]:
    """The words that are drawn; matplotlib repeats each in a comment."""
    return {text.strip() for text in re.findall(r"<!--(.*?)-->", drawing.svg, re.DOTALL)}


@pytest.fixture(autouse=True)
def untouched_style() -> Iterator[None]:
    before = dict(mpl.rcParams.copy())
    yield
    after = dict(mpl.rcParams.copy())
    assert {key for key in before if before[key] != after[key]} == set()


def check_svg(drawing: Drawing, name: str) -> None:
    svg = drawing.svg
    root = ElementTree.fromstring(svg)
    ids = re.findall(r'\bid="([^"]*)"', svg)
    assert len(ids) == len(set(ids))
    assert all(one.startswith(f"{name}-") for one in ids)
    used = re.findall(r'href="#([^"]*)"|url\(#([^)]*)\)', svg)
    assert {a or b for a, b in used} <= set(ids)
    assert root.attrib["aria-labelledby"].split() == [f"{name}-title", f"{name}-desc"]
    assert [root[0].text, root[1].text] == [drawing.title, drawing.description]
    assert not re.search(r"<(script|style|metadata|image)|href=\"[^#]|https?://(?!www.w3.org)", svg)


def test_reliability_panels() -> None:
    drawing = reliability_drawing([SCORED, UNSCORED, SCORED], "n = 20")
    check_svg(drawing, "reliability")
    shown = texts(drawing)
    assert {"confidence", "answers that are right", "small"} <= shown
    assert "calibration error 0.100; if perfect 0.080" in shown
    assert "calibration error: unknown" in shown
    assert "not enough answers with a score:" in shown
    assert "0 of 20" in shown


def test_deferral_curve() -> None:
    drawing = deferral_of_test(data())
    check_svg(drawing, "deferral")
    assert {
        "last tier alone: big",
        "2 points below it (epsilon)",
        "by lot: small or big",
        "policies of the chain",
        "certified policies",
        "served policy, with 95 % interval",
    } <= texts(drawing)


def test_what_is_not_served_is_not_marked() -> None:
    drawing = deferral_of_test(data(is_served=False, names=(HOSTILE, "b")))
    check_svg(drawing, "deferral")
    assert "policies of the best chain, not served" in texts(drawing)
    assert not any("served policy" in text for text in texts(drawing))


def test_pareto_plot_with_costs_on_a_logarithmic_axis() -> None:
    drawing = pareto_of_test(data())
    check_svg(drawing, "pareto")
    # ticks at 1, 2 and 5 of a decade: linear ones would be evenly apart
    assert {"1", "2", "5", "10", "oracle", "perfect chain", "one tier alone", "big"} <= texts(
        drawing
    )


def test_costs_that_differ_little_lie_on_a_linear_axis() -> None:
    close = data(costs=(10.0, 12.0), accuracies=(1.0, 1.0), names=(HOSTILE, "b"))
    drawing = pareto_of_test(close)
    check_svg(drawing, "pareto")
    assert {"12", "14", "16", "18", "20", "22"} <= texts(drawing)


def test_a_tier_that_costs_nothing_is_drawn() -> None:
    drawing = pareto_of_test(data(costs=(0.0, 12.0)))
    assert {"0", "2", "4", "6", "8", "10", "12"} <= texts(drawing)


def test_risk_histogram() -> None:
    drawing = risk(RISKS)
    check_svg(drawing, "risk")
    assert {
        "risk of accepting the answer of small",
        "accepting does no harm",
        "accepting does harm",
        "accepted up to 0.120",
    } <= texts(drawing)


def test_the_same_numbers_give_the_same_file() -> None:
    # and a threshold above every risk is not drawn
    drawing = risk(replace(RISKS, accept_at_most=0.5))
    assert drawing == risk(replace(RISKS, accept_at_most=0.5))
    assert not any("accepted up to" in text for text in texts(drawing))


def test_a_tier_without_scores_says_so() -> None:
    risks = replace(RISKS, n_harmless=(0, 0), n_harmful=(0, 0), n_unscored=20, accept_at_most=None)
    shown = texts(risk(risks))
    assert "no answer has a score" in shown
    assert not any("accepted up to" in text for text in shown)
