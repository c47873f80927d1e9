"""Draws the figures of a report on measured runs, in the style of `report_svg.py`.

Colours are Okabe and Ito's; markers, hatches and line styles differ too, so that nothing hangs on
colour.
"""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from eval.reports.run_figures import RunFigures
from eval.reports.svg import GREY, drawn, in_percent, to_svg
from eval.rivals.other_ways import ORACLE, PERFECT, RANDOM, OtherWay

_BLACK, _BLUE, _SKY, _GREEN = "#000000", "#0072B2", "#56B4E9", "#009E73"
_ORANGE, _VERMILLION, _PURPLE = "#E69F00", "#D55E00", "#CC79A7"
_WIDTH_IN = 7.6
_LOG_FROM = 3.0
"""Costs that differ by less than this factor are drawn on a linear axis."""
_MARKS = ("v", "P", "X", "d", "h", "<", ">")
_HATCHES = ("", "////", "....", "xxxx", "----")
_FILLS = (_SKY, _ORANGE, _GREEN, _PURPLE, _VERMILLION)


def pareto_svg(data: RunFigures, *, title: str, description: str) -> str:
    """Accuracy against what a request cost."""
    with drawn(_WIDTH_IN, 5.6) as figure:
        axes = figure.add_subplot()
        axes.set(xlabel=f"{data.unit} a request, waiting included", ylabel="accuracy")
        in_percent(axes.yaxis)
        _draw_path(axes, data, [point.mean_cost for point in data.path])
        _draw_ways(axes, data.ways)
        _draw_measured(axes, data)
        _scale(axes, [way.cost for way in data.ways])
        axes.margins(x=0.06, y=0.08)
        figure.legend(loc="outside lower center", ncols=2)
        return to_svg(figure, "pareto", title, description)


def _draw_path(axes: Axes, data: RunFigures, x: list[float]) -> None:
    if data.path:
        y = [point.accuracy for point in data.path]
        label = "the policy, thresholds scaled (replayed)"
        axes.plot(
            x, y, color=_BLUE, linewidth=1, marker="o", markersize=3, mfc="white", label=label
        )


def _draw_ways(axes: Axes, ways: tuple[OtherWay, ...]) -> None:
    alone = [way for way in ways if way.name.endswith(" alone")]
    shares = [i / 50 for i in range(51)]  # a mix is a straight line on a linear axis only
    first, last = alone[0], alone[-1]
    axes.plot(
        [(1 - share) * first.cost + share * last.cost for share in shares],
        [(1 - share) * first.accuracy + share * last.accuracy for share in shares],
        color=GREY,
        linestyle="--",
        linewidth=1,
        label="by lot: first or last tier alone",
    )
    for way in alone:
        axes.plot([way.cost], [way.accuracy], color=_BLACK, marker="s", markersize=7)
        axes.annotate(
            way.name, (way.cost, way.accuracy), xytext=(6, -12), textcoords="offset points"
        )
    ideal = [way for way in ways if way.name in (PERFECT, ORACLE)]
    for way in ideal:
        marker = "^" if way.name == ORACLE else "D"
        axes.plot(
            [way.cost], [way.accuracy], color=_GREEN, marker=marker, markersize=8,
            linestyle="none", label=way.name,
        )  # fmt: skip
    others = [way for way in ways if way.is_fitted or way.name == RANDOM]
    for way, mark in zip(others, _MARKS, strict=False):
        axes.plot(
            [way.cost], [way.accuracy], color=_ORANGE, marker=mark, markersize=7,
            markeredgecolor=_BLACK, markeredgewidth=0.4, linestyle="none", label=way.name,
        )  # fmt: skip


def _draw_measured(axes: Axes, data: RunFigures) -> None:
    low, high = data.accuracy_interval or (data.accuracy, data.accuracy)
    axes.errorbar(
        [data.total.cascade],
        [data.accuracy],
        yerr=[[data.accuracy - low], [high - data.accuracy]],
        color=_VERMILLION,
        marker="*",
        markersize=15,
        markeredgecolor=_BLACK,
        markeredgewidth=0.6,
        capsize=3,
        linestyle="none",
        label="the cascade, measured, 95 % interval",
        zorder=5,
    )


def _scale(axes: Axes, costs: list[float]) -> None:
    """A logarithmic axis with plain numbers, where costs are above 0 and differ by much."""
    if min(costs) <= 0 or max(costs) < _LOG_FROM * min(costs):
        return
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def deferral_svg(data: RunFigures, *, title: str, description: str) -> str:
    """Accuracy against the share of questions that never reach the last tier."""
    last = data.tiers[-1]
    with drawn(_WIDTH_IN, 4.9) as figure:
        axes = figure.add_subplot()
        axes.set(xlabel=f"questions that never reach {last}", ylabel="accuracy", xlim=(-0.02, 1.02))
        in_percent(axes.xaxis, axes.yaxis)
        axes.axhline(data.accuracy_last, color=_BLACK, linewidth=1.2, label=f"{last} alone")
        fallback = max(way.accuracy for way in data.ways[: len(data.tiers) - 1])
        axes.plot(
            [0, 1], [data.accuracy_last, fallback], color=GREY, linestyle="--",
            label="by lot: the best lower tier or the last",
        )  # fmt: skip
        _draw_path(axes, data, [point.share_kept for point in data.path])
        axes.plot(
            [1 - data.asked[last]], [data.accuracy], color=_VERMILLION, marker="*", markersize=15,
            markeredgecolor=_BLACK, markeredgewidth=0.6, linestyle="none",
            label="the cascade, measured",
        )  # fmt: skip
        figure.legend(loc="outside lower center", ncols=2)
        return to_svg(figure, "deferral", title, description)


def shares_svg(data: RunFigures, *, title: str, description: str) -> str:
    """Who answers, and what each tier's work cost: taken answers and wasted attempts together."""
    with drawn(_WIDTH_IN, 3.0) as figure:
        axes = figure.add_subplot()
        rows = [
            ("answers", data.answered, 1.0),
            (f"{data.unit} of the cascade", data.total.cascade_by_tier, data.total.cascade),
        ]
        starts = [0.0] * len(rows)
        for i, tier in enumerate(data.tiers):
            widths = [values[tier] / whole for _, values, whole in rows]
            axes.barh(
                [label for label, *_ in rows], widths, left=starts, label=tier,
                color=_FILLS[i % len(_FILLS)], hatch=_HATCHES[i % len(_HATCHES)],
                edgecolor="white", height=0.6,
            )  # fmt: skip
            starts = [a + b for a, b in zip(starts, widths, strict=True)]
        axes.set_xlim(0, 1)
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        in_percent(axes.xaxis)
        figure.legend(loc="outside lower center", ncols=len(data.tiers))
        return to_svg(figure, "shares", title, description)


def wasted_svg(data: RunFigures, *, title: str, description: str) -> str:
    """The cost of a request: the answers that were taken, and the attempts that were not."""
    cost, last = data.total, data.tiers[-1]
    with drawn(_WIDTH_IN, 2.8) as figure:
        axes = figure.add_subplot()
        names = [f"{last} alone", "cascade"]
        used = [cost.alone, cost.cascade - cost.wasted - cost.shadows]
        taken_and_wasted = [cost.alone, cost.cascade - cost.shadows]
        axes.barh(names, used, color=_SKY, edgecolor="white", height=0.55, label="answer taken")
        axes.barh(
            names, [0.0, cost.wasted], left=used, color=_VERMILLION, hatch="////",
            edgecolor="white", height=0.55, label="attempts whose answer was not taken",
        )  # fmt: skip
        axes.barh(
            names, [0.0, cost.shadows], left=taken_and_wasted, color=_PURPLE, hatch="....",
            edgecolor="white", height=0.55, label="shadows of the watch, by tokens",
        )  # fmt: skip
        axes.axvline(cost.perfect_chain, color=_GREEN, linestyle="--", label="perfect chain")
        axes.set_xlabel(f"{data.unit} a request, waiting included")
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        figure.legend(loc="outside lower center", ncols=2)
        return to_svg(figure, "wasted", title, description)


def latency_svg(data: RunFigures, *, title: str, description: str) -> str:
    """Shares of requests that were answered within so many seconds."""
    with drawn(_WIDTH_IN, 4.2) as figure:
        axes = figure.add_subplot()
        for (name, values), style, color in zip(
            data.latency_s.items(), ("-", "--"), (_VERMILLION, _BLACK), strict=False
        ):
            shares = [(i + 1) / len(values) for i in range(len(values))]
            axes.plot(values, shares, color=color, linestyle=style, label=name)
        axes.set(xlabel="seconds from sending to the last byte", ylabel="requests answered")
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        in_percent(axes.yaxis)
        _legend(figure)
        return to_svg(figure, "latency", title, description)


def _legend(figure: Figure) -> None:
    figure.legend(loc="outside lower center", ncols=2)
