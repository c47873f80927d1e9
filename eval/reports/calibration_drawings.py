"""Draw the calibration report's figures, with captions and descriptions in words."""

from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from eval.reports.calibration_figures import CalibrationFigures, RiskHistogram
from eval.reports.curves import Curves, deferral, pareto
from eval.reports.reliability_drawing import reliability_drawing
from eval.reports.svg import BLACK, SKY, VERMILLION, Words, drawn, write_across
from hybridserve_llm.reporting.blocks import Drawing
from hybridserve_llm.reporting.readable import four_digits, percent


def pareto_of_test(data: CalibrationFigures) -> Drawing:
    """Return accuracy against cost."""
    shown = (*data.alone, data.cascade.total, data.perfect_chain, data.oracle)
    ways = "; ".join(f"{w.name} {percent(w.accuracy)} at {four_digits(w.cost)}" for w in shown)
    words = Words(
        title="Accuracy against cost",
        description="Scatter plot of accuracy against mean cost per question, for each tier alone, "
        f"the cascade, the perfect chain and the oracle: {ways}.",
        caption=f"Accuracy against mean cost per question, every tier asked included ({_n(data)}). "
        "Up and to the left is better: the path should reach the height of "
        f"{data.last.name} far to its left. {_path(data)}",
    )
    return pareto(curves_of(data), words)


def deferral_of_test(data: CalibrationFigures) -> Drawing:
    """Return accuracy against the share of questions kept from the last tier."""
    first, last = data.path.points[0], data.path.points[-1]
    words = Words(
        title="Deferral curve",
        description="Line plot of accuracy against the share of questions that never reach the "
        f"last tier, from {percent(first.accuracy)} at {percent(first.share_kept)} to "
        f"{percent(last.accuracy)} at {percent(last.share_kept)}; the last tier alone has "
        f"{percent(data.last.accuracy)}.",
        caption=f"Accuracy against the share of questions that never reach the last tier "
        f"({_n(data)}). The path should stay above the dashed line, on which chance decides who "
        f"goes to the last tier and {data.path.fallback.name} answers the rest, and above the "
        f"dotted line as far to the right as possible. {_path(data)}",
    )
    return deferral(curves_of(data), words)


def curves_of(data: CalibrationFigures) -> Curves:
    """Return what both curves show."""
    path = data.path
    return Curves(
        unit="mean cost per question",
        path=path.points,
        path_name="policies of the chain"
        if path.is_served
        else "policies of the best chain, not served",
        cascade=data.cascade.total.named("served policy, with 95 % interval")
        if path.is_served
        else None,
        share_kept=1 - data.cascade.asked[-1],
        tiers=data.alone,
        fallback=path.fallback,
        ideals=(data.perfect_chain, data.oracle),
        epsilon=data.epsilon,
    )


def reliability_of_test(data: CalibrationFigures) -> Drawing:
    """Return confidence against the share of right answers, tier by tier."""
    return reliability_drawing(data.reliabilities, _n(data))


def risk(risks: RiskHistogram) -> Drawing:
    """Return the risks of the first tier's answers, and where they are accepted."""
    unscored = f" {risks.n_unscored} answers without a score are not shown; they escalate."
    words = Words(
        title=f"Risk of the answers of {risks.tier}",
        description=f"Histogram of the risk of {risks.n_scored} answers of {risks.tier}; accepting "
        f"{sum(risks.n_harmful)} of them would do harm, stacked on top.",
        caption=f"Risk of accepting the answers of {risks.tier}, the chain's first tier, before "
        f"any other is asked (n = {risks.n_scored} test questions). Harmful ones should gather on "
        f"the right. {_accepted(risks)}{unscored if risks.n_unscored else ''}",
    )
    return drawn("risk", 4.2, lambda figure: _draw_risks(figure, risks), words)


def _draw_risks(figure: Figure, risks: RiskHistogram) -> None:
    axes = figure.add_subplot()
    axes.set(xlabel=f"risk of accepting the answer of {risks.tier}", ylabel="questions")
    axes.set_xlim(0, risks.edges[-1])
    starts, width = risks.edges[:-1], risks.edges[1] - risks.edges[0]
    harmless = axes.bar(
        starts, risks.n_harmless, width, align="edge", color=SKY, edgecolor="white"
    )  # fmt: skip
    harmful = axes.bar(
        starts, risks.n_harmful, width, bottom=risks.n_harmless, align="edge", color=VERMILLION,
        edgecolor="white", hatch="////",
    )  # fmt: skip
    labels: dict[str, Artist] = {
        "accepting does no harm": harmless[0],
        "accepting does harm": harmful[0],
    }
    if risks.accept_at_most is not None and not risks.accepts_all:
        line = axes.axvline(risks.accept_at_most, color=BLACK, linestyle="--")
        labels[f"accepted up to {risks.accept_at_most:.3f}"] = line
    axes.grid(visible=False, axis="x")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    if risks.n_scored == 0:
        axes.set_ylim(0, 1)
        write_across(axes, "no answer has a score")
    figure.legend(list(labels.values()), list(labels), loc="outside lower center", ncols=3)


def _accepted(risks: RiskHistogram) -> str:
    if risks.accept_at_most is None:
        return "No threshold is drawn, as none of them is accepted at first sight."
    if risks.accepts_all:
        return f"All of them are accepted: the threshold is {risks.accept_at_most:.3f}."
    return "Answers left of the dashed line are accepted."


def _n(data: CalibrationFigures) -> str:
    return f"n = {data.n_test} test questions"


def _path(data: CalibrationFigures) -> str:
    path = data.path
    chain = " > ".join(path.chain) + (" with a gate" if path.has_gate else "")
    if path.is_served:
        return f"Circles are the policies of {chain}, from strict to lax; diamonds are certified."
    certified = (
        " Diamonds are certified, but do not cost less than the last tier alone."
        if any(point.is_certified for point in path.points)
        else ""
    )
    return f"None is served: circles are the policies of {chain}, the best longer chain.{certified}"
