"""The calibration report's figures with their captions and their descriptions in words."""

from eval.judging.reliability import N_SHOWN_BINS
from eval.reports.blocks import Drawing
from eval.reports.calibration_figures import ReportData, RiskHistogram
from eval.reports.calibration_svg import deferral_svg, pareto_svg, reliability_svg, risk_svg
from eval.reports.readable import NOT_ENOUGH, cost, percent


def pareto(data: ReportData) -> Drawing:
    """Accuracy against cost."""
    cascade, last = data.cascade.total, data.last
    tiers = "; ".join(f"{t.name} {percent(t.accuracy)} at {cost(t.mean_cost)}" for t in data.alone)
    description = (
        f"Scatter plot of accuracy against mean cost per question. Tiers alone: {tiers}. Cascade: "
        f"{percent(cascade.accuracy)} at {cost(cascade.mean_cost)}. Perfect chain: "
        f"{percent(data.perfect_chain.accuracy)} at {cost(data.perfect_chain.mean_cost)}. Oracle: "
        f"{percent(data.oracle.accuracy)} at {cost(data.oracle.mean_cost)}."
    )
    caption = (
        f"Accuracy against mean cost per question, every tier asked included ({_n(data)}). Up and "
        f"to the left is better: the path should reach the height of {last.name} far to its left. "
        f"{_path(data)}"
    )
    title = "Accuracy against cost"
    svg = pareto_svg(data, title=title, description=description)
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def deferral(data: ReportData) -> Drawing:
    """Accuracy against the share of questions kept from the last tier."""
    first, last = data.path.points[0], data.path.points[-1]
    description = (
        "Line plot of accuracy against the share of questions that never reach the last tier, from "
        f"{percent(first.accuracy)} at {percent(first.share_kept)} to {percent(last.accuracy)} at "
        f"{percent(last.share_kept)}; the last tier alone has {percent(data.last.accuracy)}."
    )
    caption = (
        f"Accuracy against the share of questions that never reach the last tier ({_n(data)}). "
        "The path should stay above the dashed line, on which chance decides who goes to the last "
        f"tier and {data.path.fallback.name} answers the rest, and above the dotted line as far to "
        f"the right as possible. {_path(data)}"
    )
    title = "Deferral curve"
    svg = deferral_svg(data, title=title, description=description)
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def reliability(data: ReportData) -> Drawing:
    """Confidence against the share of right answers, tier by tier."""
    errors = "; ".join(
        f"{tier.tier}: {NOT_ENOUGH if tier.ece is None else f'{tier.ece:.3f}'}"
        for tier in data.reliabilities
    )
    description = (
        "One panel for each tier below the last: share of right answers against confidence. "
        f"Calibration errors: {errors}."
    )
    caption = (
        f"Confidence against the share of answers that are right ({_n(data)}). Each point stands "
        f"for an equal part of a tier's answers, at most {N_SHOWN_BINS} points; bars are 95 % "
        "intervals. Points on the dashed line mean that confidence can be taken at its word, "
        "above it that it is too low, below it too high. The panels show different ranges."
    )
    title = "Reliability diagrams"
    svg = reliability_svg(data.reliabilities, title=title, description=description)
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def risk(data: ReportData) -> Drawing:
    """Risks of the first tier's answers."""
    risks = data.risks
    description = (
        f"Histogram of the risk of {risks.n_scored} answers of {risks.tier}; accepting "
        f"{sum(risks.n_harmful)} of them would do harm, stacked on top."
    )
    unscored = f" {risks.n_unscored} answers without a score are not shown; they escalate."
    caption = (
        f"Risk of accepting the answers of {risks.tier}, the chain's first tier, before any other "
        f"is asked (n = {risks.n_scored} test questions). Harmful ones should gather on the right. "
        f"{_accepted(risks)}{unscored if risks.n_unscored else ''}"
    )
    title = f"Risk of the answers of {risks.tier}"
    svg = risk_svg(risks, title=title, description=description)
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def _accepted(risks: RiskHistogram) -> str:
    if risks.accept_at_most is None:
        return "No threshold is drawn, as none of them is accepted at first sight."
    if risks.accepts_all:
        return f"All of them are accepted: the threshold is {risks.accept_at_most:.3f}."
    return "Answers left of the dashed line are accepted."


def _n(data: ReportData) -> str:
    return f"n = {data.n_test} test questions"


def _path(data: ReportData) -> str:
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
