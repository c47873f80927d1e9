"""Draw a cascade among other ways: accuracy against cost, and against questions kept."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from eval.judging.accuracy_and_cost import PolicyPoint
from eval.judging.ways import Way
from eval.reports.svg import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    VERMILLION,
    Words,
    drawn,
    in_percent,
    legend_below,
    scale_logarithmically,
)
from hybridserve_llm.reporting.blocks import Drawing

_LOG_FROM, _WIDE_FROM = 3.0, 300.0
"""Costs that differ by less than the first factor are drawn on a linear axis."""
_RIVAL_MARKS = ("P", "X", "d", "h", "<", ">")


@dataclass(frozen=True, slots=True, kw_only=True)
class Curves:
    """Hold everything that the two drawings of a report show.

    Attributes:
        unit: What the cost of a request is counted in, for the axis.
        path: Policies from strict to lax; empty where there are none.
        cascade: As served or measured, with its name for the legend; None where nothing is served.
        share_kept: Of the questions, those that the cascade keeps from the last tier.
        tiers: Each alone, the last one last.
        fallback: The tier that answers what chance does not send to the last one.
        ideals: Ways that no policy can beat.
        rivals: Other ways at the cascade's cost.
        epsilon: Allowed loss of accuracy; None where none is drawn.
    """

    unit: str
    path: tuple[PolicyPoint, ...]
    path_name: str
    cascade: Way | None
    share_kept: float
    tiers: tuple[Way, ...]
    fallback: Way
    ideals: tuple[Way, ...]
    rivals: tuple[Way, ...] = ()
    epsilon: float | None = None


def pareto(curves: Curves, words: Words) -> Drawing:
    """Return accuracy against the mean cost of a request."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.set(xlabel=curves.unit, ylabel="accuracy")
        in_percent(axes.yaxis)
        _draw_path(axes, curves, [point.mean_cost for point in curves.path])
        if curves.rivals:
            _draw_lot(axes, curves)
        _draw_marks(axes, curves.tiers, BLACK, "s", "one tier alone")
        for way, mark in zip(curves.ideals, "v^", strict=False):
            _draw_marks(axes, [way], GREEN, mark, way.name)
        for way, mark in zip(curves.rivals, cycle(_RIVAL_MARKS), strict=False):
            _draw_marks(axes, [way], ORANGE, mark, way.name)
        if curves.cascade is not None:
            _draw_cascade(axes, curves.cascade.cost, curves.cascade)
        axes.margins(x=0.06, y=0.08)
        _scale_costs(axes, [way.cost for way in (*curves.tiers, *curves.ideals)])
        _name_tiers(axes, curves.tiers)
        legend_below(figure)

    return drawn("pareto", 5.6, draw, words)


def deferral(curves: Curves, words: Words) -> Drawing:
    """Return accuracy against the share of questions that never reach the last tier."""
    last, fallback = curves.tiers[-1], curves.fallback

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        label = f"questions that never reach {last.name}"
        axes.set(xlabel=label, ylabel="accuracy", xlim=(-0.02, 1.02))
        in_percent(axes.xaxis, axes.yaxis)
        label = f"last tier alone: {last.name}"
        axes.axhline(last.accuracy, color=BLACK, linewidth=1.2, label=label)
        if curves.epsilon is not None:
            label = f"{curves.epsilon * 100:g} points below it (epsilon)"
            allowed = last.accuracy - curves.epsilon
            axes.axhline(allowed, color=BLACK, linewidth=1.2, linestyle=":", label=label)
        label = f"by lot: {fallback.name} or {last.name}"
        by_lot = [last.accuracy, fallback.accuracy]
        axes.plot([0, 1], by_lot, color=GREY, linestyle="--", label=label)
        _draw_path(axes, curves, [point.share_kept for point in curves.path])
        if curves.cascade is not None:
            _draw_cascade(axes, curves.share_kept, curves.cascade)
        legend_below(figure)

    return drawn("deferral", 4.9, draw, words)


def _draw_path(axes: Axes, curves: Curves, x: list[float]) -> None:
    """Draw the policies as hollow circles, the certified ones as full diamonds."""
    if not curves.path:
        return
    y = [point.accuracy for point in curves.path]
    axes.plot(
        x, y, color=BLUE, linewidth=1, marker="o", markersize=3.5, mfc="white",
        label=curves.path_name,
    )  # fmt: skip
    certified = [i for i, point in enumerate(curves.path) if point.is_certified]
    if certified:
        axes.plot(
            [x[i] for i in certified], [y[i] for i in certified], color=ORANGE, marker="D",
            markersize=4, markeredgecolor=BROWN, markeredgewidth=0.3, linestyle="none",
            label="certified policies",
        )  # fmt: skip


def _draw_cascade(axes: Axes, x: float, cascade: Way) -> None:
    accuracy = cascade.accuracy
    low, high = cascade.accuracy_interval or (accuracy, accuracy)
    axes.errorbar(
        [x], [accuracy], yerr=[[accuracy - low], [high - accuracy]], color=VERMILLION, marker="*",
        markersize=15, markeredgecolor=BLACK, markeredgewidth=0.6, capsize=3, linestyle="none",
        label=cascade.name, zorder=5,
    )  # fmt: skip


def _draw_lot(axes: Axes, curves: Curves) -> None:
    first, last = curves.tiers[0], curves.tiers[-1]
    shares = [i / 50 for i in range(51)]  # a mix is a straight line on a linear axis only
    axes.plot(
        [(1 - share) * first.cost + share * last.cost for share in shares],
        [(1 - share) * first.accuracy + share * last.accuracy for share in shares],
        color=GREY, linestyle="--", linewidth=1, label="by lot: first or last tier alone",
    )  # fmt: skip


def _draw_marks(axes: Axes, ways: Sequence[Way], color: str, marker: str, label: str) -> None:
    x, y = [way.cost for way in ways], [way.accuracy for way in ways]
    axes.plot(
        x, y, color=color, marker=marker, markersize=8, markeredgecolor=BLACK, markeredgewidth=0.4,
        linestyle="none", label=label,
    )  # fmt: skip


def _scale_costs(axes: Axes, costs: list[float]) -> None:
    """Take a logarithmic axis where costs are above 0 and differ by much."""
    if min(costs) > 0 and max(costs) >= _LOG_FROM * min(costs):
        scale_logarithmically(axes, is_wide=max(costs) > _WIDE_FROM * min(costs))


def _name_tiers(axes: Axes, tiers: Sequence[Way]) -> None:
    """Write names along the top, each above its tier's cost, where they cover nothing."""
    top = axes.secondary_xaxis("top")
    labels = [tier.name for tier in tiers]
    costs = [tier.cost for tier in tiers]
    top.set_xticks(costs, labels=labels, rotation=30, ha="left", rotation_mode="anchor")
    top.xaxis.set_minor_locator(NullLocator())
    top.spines["top"].set_visible(False)
    for cost in costs:
        axes.axvline(cost, color=GREY, linestyle=":", linewidth=0.8, zorder=0.5)
