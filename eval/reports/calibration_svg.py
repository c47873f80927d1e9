"""Draws the calibration report's figures as SVG.

Colours are Okabe and Ito's, which the colour-blind can tell apart; markers and line styles differ
too, so that nothing hangs on colour.
"""

from collections.abc import Sequence

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import (
    FuncFormatter,
    LogLocator,
    MaxNLocator,
    MultipleLocator,
    NullFormatter,
    NullLocator,
)

from eval.judging.accuracy_and_cost import AccuracyAndCost
from eval.judging.reliability import Reliability
from eval.reports.calibration_figures import PolicyPath, ReportData, RiskHistogram
from eval.reports.svg import GREY, drawn, in_percent, to_svg, write_across

_BLACK, _BLUE, _SKY, _GREEN = "#000000", "#0072B2", "#56B4E9", "#009E73"
_ORANGE, _VERMILLION, _BROWN = "#E69F00", "#D55E00", "#6b4a00"
_WIDTH_IN = 7.6
_LOG_FROM = 3.0
"""Costs that differ by less than this factor are drawn on a linear axis."""


def reliability_svg(reliabilities: Sequence[Reliability], *, title: str, description: str) -> str:
    """Reliability diagrams, one panel for each tier."""
    n_columns = min(len(reliabilities), 2)
    n_rows = -(-len(reliabilities) // n_columns)
    with drawn(_WIDTH_IN, 3.6 * n_rows) as figure:
        for i, reliability in enumerate(reliabilities, start=1):
            _draw_reliability(figure.add_subplot(n_rows, n_columns, i), reliability)
        return to_svg(figure, "reliability", title, description)


def _draw_reliability(axes: Axes, reliability: Reliability) -> None:
    """The tier's bins; both axes show the same range, that in which its bins lie."""
    bins = reliability.bins
    spans = [b.accuracy_interval or (b.accuracy, b.accuracy) for b in bins]
    lowest = min(
        (min(b.mean_confidence, low) for b, (low, _) in zip(bins, spans, strict=True)), default=0.0
    )
    limits = (min(int(lowest * 10) / 10, 0.6), 1.02)
    axes.set(xlim=limits, ylim=limits, xlabel="confidence", ylabel="answers that are right")
    axes.set_aspect("equal")
    axes.set_title(_reliability_title(reliability))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MultipleLocator(0.2 if limits[0] < 0.6 else 0.1))
    in_percent(axes.xaxis, axes.yaxis)
    if not bins:
        write_across(
            axes, f"not enough answers with a score:\n{reliability.n} of {reliability.n_all}"
        )
        return
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    for b, (low, high) in zip(bins, spans, strict=True):
        axes.vlines(b.mean_confidence, low, high, color=_SKY, linewidth=1.5)
    x, y = [b.mean_confidence for b in bins], [b.accuracy for b in bins]
    axes.plot(x, y, color=_BLUE, marker="o", markersize=4.5, linewidth=0.8)


def _reliability_title(reliability: Reliability) -> str:
    if reliability.ece is None or reliability.perfect_ece is None:
        return f"{reliability.tier}\ncalibration error: unknown"
    return (
        f"{reliability.tier}\ncalibration error {reliability.ece:.3f}; "
        f"if perfect {reliability.perfect_ece:.3f}"
    )


def deferral_svg(data: ReportData, *, title: str, description: str) -> str:
    """Accuracy against the share of questions that never reaches the last tier."""
    with drawn(_WIDTH_IN, 4.9) as figure:
        axes = figure.add_subplot()
        axes.set(
            xlabel="questions that never reach the last tier", ylabel="accuracy", xlim=(-0.02, 1.02)
        )
        in_percent(axes.xaxis, axes.yaxis)
        _draw_bounds(axes, data)
        path = data.path
        _draw_path(axes, path, [point.share_kept for point in path.points])
        if path.is_served:
            _draw_served(axes, 1 - data.cascade.asked[-1], data)
        _legend_below(figure)
        return to_svg(figure, "deferral", title, description)


def _draw_bounds(axes: Axes, data: ReportData) -> None:
    """The last tier's accuracy, what epsilon allows below it, and what chance would do."""
    last, fallback = data.last, data.path.fallback
    axes.axhline(last.accuracy, color=_BLACK, linewidth=1.2, label=f"last tier alone: {last.name}")
    axes.axhline(
        last.accuracy - data.epsilon,
        color=_BLACK,
        linewidth=1.2,
        linestyle=":",
        label=f"{data.epsilon * 100:g} points below it (epsilon)",
    )
    axes.plot(
        [0, 1],
        [last.accuracy, fallback.accuracy],
        color=GREY,
        linestyle="--",
        label=f"by lot: {fallback.name} or {last.name}",
    )


def pareto_svg(data: ReportData, *, title: str, description: str) -> str:
    """Accuracy against mean cost per question."""
    with drawn(_WIDTH_IN, 5.2) as figure:
        axes = figure.add_subplot()
        axes.set(xlabel="mean cost per question", ylabel="accuracy")
        in_percent(axes.yaxis)
        _draw_path(axes, data.path, [point.mean_cost for point in data.path.points])
        _draw_marks(axes, data.alone, _BLACK, "s", "one tier alone")
        _draw_marks(axes, [data.oracle], _GREEN, "^", data.oracle.name)
        _draw_marks(axes, [data.perfect_chain], _GREEN, "v", data.perfect_chain.name)
        if data.path.is_served:
            _draw_served(axes, data.cascade.total.mean_cost, data)
        axes.margins(x=0.06, y=0.08)
        _scale_costs(axes, data)
        _name_tiers(axes, data)
        _legend_below(figure)
        return to_svg(figure, "pareto", title, description)


def _draw_marks(
    axes: Axes, ways: Sequence[AccuracyAndCost], color: str, marker: str, label: str
) -> None:
    x, y = [way.mean_cost for way in ways], [way.accuracy for way in ways]
    axes.plot(x, y, color=color, marker=marker, markersize=8, linestyle="none", label=label)


def risk_svg(risks: RiskHistogram, *, title: str, description: str) -> str:
    """How the risks of the first tier's answers lie, and where they are accepted."""
    with drawn(_WIDTH_IN, 4.2) as figure:
        axes = figure.add_subplot()
        axes.set(xlabel=f"risk of accepting the answer of {risks.tier}", ylabel="questions")
        axes.set_xlim(0, risks.edges[-1])
        starts, width = risks.edges[:-1], risks.edges[1] - risks.edges[0]
        harmless = axes.bar(
            starts, risks.n_harmless, width, align="edge", color=_SKY, edgecolor="white"
        )
        harmful = axes.bar(
            starts,
            risks.n_harmful,
            width,
            bottom=risks.n_harmless,
            align="edge",
            color=_VERMILLION,
            edgecolor="white",
            hatch="////",
        )
        labels: dict[str, Artist] = {
            "accepting does no harm": harmless[0],
            "accepting does harm": harmful[0],
        }
        if risks.accept_at_most is not None and not risks.accepts_all:
            line = axes.axvline(risks.accept_at_most, color=_BLACK, linestyle="--")
            labels[f"accepted up to {risks.accept_at_most:.3f}"] = line
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(integer=True))
        if risks.n_scored == 0:
            axes.set_ylim(0, 1)
            write_across(axes, "no answer has a score")
        figure.legend(list(labels.values()), list(labels), loc="outside lower center", ncols=3)
        return to_svg(figure, "risk", title, description)


def _draw_path(axes: Axes, path: PolicyPath, x: list[float]) -> None:
    """The policies as hollow circles, the certified ones as full diamonds."""
    y = [point.accuracy for point in path.points]
    name = "policies of the chain" if path.is_served else "policies of the best chain, not served"
    axes.plot(x, y, color=_BLUE, linewidth=1, marker="o", markersize=3.5, mfc="white", label=name)
    certified = [i for i, point in enumerate(path.points) if point.is_certified]
    if certified:
        axes.plot(
            [x[i] for i in certified],
            [y[i] for i in certified],
            color=_ORANGE,
            marker="D",
            markersize=4,
            markeredgecolor=_BROWN,
            markeredgewidth=0.3,
            linestyle="none",
            label="certified policies",
        )


def _draw_served(axes: Axes, x: float, data: ReportData) -> None:
    served = data.cascade.total
    low, high = served.accuracy_interval or (served.accuracy, served.accuracy)
    axes.errorbar(
        [x],
        [served.accuracy],
        yerr=[[served.accuracy - low], [high - served.accuracy]],
        color=_VERMILLION,
        marker="*",
        markersize=15,
        markeredgecolor=_BLACK,
        markeredgewidth=0.6,
        capsize=3,
        linestyle="none",
        label="served policy, with 95 % interval",
        zorder=5,
    )


def _scale_costs(axes: Axes, data: ReportData) -> None:
    """A logarithmic axis with plain numbers, where costs are above 0 and differ by much."""
    costs = [tier.mean_cost for tier in (*data.alone, data.oracle, data.perfect_chain)]
    if min(costs) <= 0 or max(costs) < _LOG_FROM * min(costs):
        return
    axes.set_xscale("log")
    is_wide = max(costs) > 300 * min(costs)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if is_wide else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _name_tiers(axes: Axes, data: ReportData) -> None:
    """Names along the top, each above its tier's cost, where they cover nothing."""
    costs = [tier.mean_cost for tier in data.alone]
    names = [tier.name for tier in data.alone]
    top = axes.secondary_xaxis("top")
    top.set_xticks(costs, labels=names, rotation=30, ha="left", rotation_mode="anchor")
    top.xaxis.set_minor_locator(NullLocator())
    top.spines["top"].set_visible(False)
    for tier in data.alone:
        axes.axvline(tier.mean_cost, color=GREY, linestyle=":", linewidth=0.8, zorder=0.5)


def _legend_below(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=2)
