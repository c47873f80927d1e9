"""Draw the figures of a report on measured runs, with captions and descriptions in words."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from eval.reports.curves import Curves, deferral, pareto
from eval.reports.run_figures import RunFigures
from eval.reports.svg import (
    BLACK,
    GREEN,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    Words,
    drawn,
    in_percent,
    legend_below,
    scale_logarithmically,
)
from eval.rivals.other_ways import ORACLE, PERFECT
from hybridserve_llm.reporting.blocks import Drawing
from hybridserve_llm.reporting.readable import four_digits, percent

_HATCHES = ("", "////", "....", "xxxx", "----")
_FILLS = (SKY, ORANGE, GREEN, PURPLE, VERMILLION)


def pareto_of_run(data: RunFigures) -> Drawing:
    """Return accuracy against the cost of a request."""
    shown = (data.cascade, *data.ways)
    ways = "; ".join(f"{w.name} {percent(w.accuracy)} at {four_digits(w.cost)}" for w in shown)
    words = Words(
        title=f"Accuracy against {data.unit}",
        description=f"Scatter plot of accuracy against {data.unit} a request: {ways}.",
        caption="Up and to the left is better. The line of policies is replayed from the tiers' "
        "own blocks, the star was measured over HTTP, with all engines working at the same time.",
    )
    return pareto(_curves(data), words)


def deferral_of_run(data: RunFigures) -> Drawing:
    """Return accuracy against the share of questions that never reach the last tier."""
    words = Words(
        title="Deferral curve",
        description="Accuracy against the share of questions that never reach "
        f"{data.last}; the cascade: {percent(data.cascade.accuracy)} at "
        f"{percent(data.share_kept)}.",
        caption="The policies should stay above the dashed line, on which chance decides.",
    )
    return deferral(_curves(data), words)


def _curves(data: RunFigures) -> Curves:
    ideals = [way for way in data.ways if way.name in (PERFECT, ORACLE)]
    others = data.ways[len(data.tiers) :]
    alone = zip(data.tiers, data.ways, strict=False)  # these come first
    tiers = tuple(way.named(name) for name, way in alone)
    return Curves(
        unit=f"{data.unit} a request, waiting included",
        path=data.path,
        path_name="the policy, thresholds scaled (replayed)",
        cascade=data.cascade.named("the cascade, measured, 95 % interval"),
        share_kept=data.share_kept,
        tiers=tiers,
        fallback=max(tiers[:-1] or tiers, key=lambda tier: tier.accuracy),
        ideals=tuple(ideals),
        rivals=tuple(way for way in others if way not in ideals),
    )


def answer_and_cost_shares(data: RunFigures) -> Drawing:
    """Return who answers, and the cost of each tier's work, wasted attempts included."""
    costs, answered = data.costs.total.cascade_by_tier, data.answers.answered
    parts = "; ".join(
        f"{tier} answers {percent(answered[tier])} and costs {four_digits(costs[tier])}"
        for tier in data.tiers
    )
    rows = {
        "answers": answered,
        f"{data.unit} of the cascade": {t: c / data.costs.total.cascade for t, c in costs.items()},
    }

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        starts = [0.0] * len(rows)
        for i, tier in enumerate(data.tiers):
            widths = [values[tier] for values in rows.values()]
            axes.barh(
                list(rows), widths, left=starts, label=tier, color=_FILLS[i % len(_FILLS)],
                hatch=_HATCHES[i % len(_HATCHES)], edgecolor="white", height=0.6,
            )  # fmt: skip
            starts = [a + b for a, b in zip(starts, widths, strict=True)]
        axes.set_xlim(0, 1)
        in_percent(axes.xaxis)
        _finish_bars(figure, axes, len(data.tiers))

    words = Words(
        title="Who answers, and whom it costs",
        description=f"Two stacked bars: {parts} {data.unit} a request.",
        caption="Above the share of answers by tier, below the share of the cascade's cost by "
        "tier.",
    )
    return drawn("shares", 3.0, draw, words)


def wasted(data: RunFigures) -> Drawing:
    """Return the cost of a request: answers that were taken, and attempts that were not."""
    cost, last = data.costs.total, data.last

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        names = [f"{last} alone", "cascade"]
        used = [cost.alone, cost.cascade - cost.wasted - cost.shadows]
        with_wasted = [cost.alone, cost.cascade - cost.shadows]
        axes.barh(names, used, color=SKY, edgecolor="white", height=0.55, label="answer taken")
        axes.barh(
            names, [0.0, cost.wasted], left=used, color=VERMILLION, hatch="////",
            edgecolor="white", height=0.55, label="attempts whose answer was not taken",
        )  # fmt: skip
        axes.barh(
            names, [0.0, cost.shadows], left=with_wasted, color=PURPLE, hatch="....",
            edgecolor="white", height=0.55, label="shadows of the watch, by tokens",
        )  # fmt: skip
        axes.axvline(cost.perfect_chain, color=GREEN, linestyle="--", label="perfect chain")
        axes.set_xlabel(f"{data.unit} a request, waiting included")
        _finish_bars(figure, axes, 2)

    words = Words(
        title="The cost of wasted attempts",
        description=f"Bars: {last} alone {four_digits(cost.alone)}, the cascade "
        f"{four_digits(cost.cascade)}, of which {four_digits(cost.wasted)} for attempts whose "
        f"answer was not taken and {four_digits(cost.shadows)} for shadows of the watch; perfect "
        f"chain {four_digits(cost.perfect_chain)} {data.unit} a request.",
        caption="What a request costs, and how much of it went into answers that were not taken.",
    )
    return drawn("wasted", 2.8, draw, words)


def _finish_bars(figure: Figure, axes: Axes, n_columns: int) -> None:
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    legend_below(figure, n_columns)


def latency(data: RunFigures) -> Drawing:
    """Return the shares of requests that were answered within so many seconds."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        lines = (("-", VERMILLION), ("--", BLACK))
        for (name, values), (line, color) in zip(data.times.latency_s.items(), lines, strict=True):
            answered = [(i + 1) / len(values) for i in range(len(values))]
            axes.plot(values, answered, color=color, linestyle=line, label=name)
        axes.set(xlabel="seconds from sending to the last byte", ylabel="requests answered")
        scale_logarithmically(axes)
        in_percent(axes.yaxis)
        legend_below(figure)

    words = Words(
        title="Latency",
        description="; ".join(
            f"{one.name}: median {one.median_s:.3f} s, 95th percentile {one.p95_s:.3f} s"
            for one in data.times.latencies
        ),
        caption="Share of requests that were answered within so many seconds; to the left is "
        "better.",
    )
    return drawn("latency", 4.2, draw, words)
