"""What a report on measured runs says, in reading order."""

from collections.abc import Sequence
from typing import Any

from scipy import stats

from eval.judging.intervals import LEVEL, Interval
from eval.recorded.measured_run import RunHeader
from eval.reports.blocks import Block, Bullets, Drawing, Paragraph, Section
from eval.reports.calibration_text import verdict
from eval.reports.provenance import Provenance
from eval.reports.readable import cost, percent, points, points_range
from eval.reports.replay_report import SEEN
from eval.reports.run_confidence import confidence_blocks
from eval.reports.run_figures import RunFigures
from eval.reports.run_svg import deferral_svg, latency_svg, pareto_svg, shares_svg, wasted_svg
from eval.reports.run_tables import (
    beside_last,
    cost_table,
    iso_table,
    kind_table,
    latency_table,
    measured_ways,
    origin_table,
    regret_table,
    tier_table,
)
from eval.reports.ways_table import FITTED_NOTE
from hybridserve_llm.config.certificate import PolicyPart

FULL_BLOCK = 6
"""Blocks of fewer times as many questions as are asked at a time are said to be short."""
_WAYS = (
    f"{FITTED_NOTE} The perfect chain answers each question by the "
    "cheapest tier that does no harm and pays for every tier up to it; the oracle pays for that "
    "tier alone. "
    "Only the cascade's row is a measurement of the whole; the others are joined from the tiers' "
    "own blocks, question by question."
)
_STREAMED = (
    "The cascade and the last tier alone were asked as streams. A tier below the last is asked for "
    "its whole answer, and no token of it leaves before it is accepted, so its first token comes "
    "with its last; what goes on to the last tier has waited for the tiers below before."
)
_ORACLE = (
    "The oracle knows beforehand who is right, so nobody can be as good; the distance tells how "
    "much better decisions could do. As many forwarded: it sends exactly as many questions to the "
    "last tier as the cascade, those that gain most by it, and answers every other one by a lower "
    "tier that is right, where one is. At the cascade's accuracy: it answers as many questions "
    "right, each by the lowest tier that is, and pays for that tier alone. Intervals: bootstrap "
    "over questions, whole groups drawn."
)


def sections(
    data: RunFigures,
    headers: Sequence[RunHeader],
    provenance: Provenance,
    policy: PolicyPart | None,
) -> tuple[Section, ...]:
    """The whole report from its headline to its provenance.

    `policy` is the certificate's; None where no certificate was given to the report.
    """
    confidence = (Section("Confidence", confidence_blocks(data)),) if data.metrics else ()
    path = (iso_table(data),) if data.iso else ()
    return (
        Section(
            "Result",
            (Paragraph(headline(data), is_headline=True), Bullets(_remarks(data, headers))),
        ),
        Section("Certificate", certificate(data, headers, policy)),
        Section("Accuracy", (beside_last(data), kind_table(data))),
        Section(
            "Cost",
            (
                cost_table(data),
                Bullets(_how_counted(data)),
                tier_table(data),
                _shares(data),
                _wasted(data),
            ),
        ),
        Section(
            "Beside other ways",
            (
                measured_ways(data),
                Paragraph(_WAYS),
                _pareto(data),
                _deferral(data),
                regret_table(data),
                Paragraph(_ORACLE),
                *path,
            ),
        ),
        Section("Latency", (*_seconds(data), _latency(data))),
        *confidence,
        Section("Replay of the decisions", (Paragraph(replayed(data)),)),
        Section("Where the numbers come from", (origin_table(data, headers, provenance),)),
    )


def headline(data: RunFigures) -> str:
    """The result in two sentences."""
    total, last = data.total, data.tiers[-1]
    interval = total.ratio_interval
    of = f" (95 %: {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    perfect = (
        f", {percent(total.share_of_perfect)} of what the perfect chain would save"
        if total.share_of_perfect is not None
        else ""
    )
    return (
        f"On {data.n} questions the cascade is right at {percent(data.accuracy)}, {last} alone at "
        f"{percent(data.accuracy_last)}: {points(data.difference)} "
        f"({points_range(data.difference_interval)}). A request costs {cost(total.cascade)} "
        f"{data.unit} instead of {cost(total.alone)}: {total.ratio:.2f}x cheaper{of}{perfect}."
    )


def _remarks(data: RunFigures, headers: Sequence[RunHeader]) -> tuple[str, ...]:
    kept, last = 1 - data.asked[data.tiers[-1]], data.tiers[-1]
    lines = [
        f"{percent(kept)} of the questions never reached {last}.",
        f"{percent(data.certified_share)} of the cascade's answers were covered by its "
        "certificate.",
        f"The watch had {data.n_shadowed} accepted answers asked of {last} again; what that cost "
        "is part of the cascade's cost. It draws many in the first hours after a start, later "
        "about the share that is configured.",
    ]
    header = headers[0]
    if header.block_questions < FULL_BLOCK * header.concurrency:
        lines.append(
            f"Blocks of {header.block_questions} questions, {header.concurrency} at a time, are "
            "short: engines work with small batches for much of a block, which costs more."
        )
    if data.n_left_out:
        lines.append(
            f"Left out, not answered in every way or not graded: {data.n_left_out} questions."
        )
    if data.n_last_differs:
        lines.append(
            f"{last}, asked with and without log-probabilities, was right once and wrong once at "
            f"{data.n_last_differs} questions; the answer without them counts."
        )
    return tuple(lines)


def _how_counted(data: RunFigures) -> tuple[str, ...]:
    last = data.tiers[-1]
    lines = [
        f"The cascade pays for all {len(data.tiers)} tiers' engines, {last} alone for its own; the "
        "front end is not counted. The last tier alone is asked without log-probabilities, the "
        "lower tiers with those that the policy reads.",
        "What a block used is shared among its questions by tokens; sums are measured, a single "
        "question's share is not.",
    ]
    if data.unit == "J":
        return (
            *lines,
            f"Joules are of {data.energy_sources}; idle joules are those booked as idle.",
        )
    return (
        *lines,
        "No meter gave joules, so CPU-seconds of the engines' process trees stand in their place. "
        "Idle use is what the engines used a second in windows without a request, times the "
        "block's seconds.",
    )


def certificate(
    data: RunFigures, headers: Sequence[RunHeader], policy: PolicyPart | None
) -> tuple[Block, ...]:
    """What was certified, and what these questions say of it."""
    told = headers[0].certificate
    if told is None or not told.get("certified"):
        return (Paragraph("The cascade told no certificate: nothing is promised."),)
    counted = () if policy is None else (Paragraph(certified_on(policy, told)),)
    return Paragraph(promised(told)), *counted, Paragraph(_test(data, told, headers))


def certified_on(policy: PolicyPart, told: dict[str, Any]) -> str:
    """What was counted on the certify questions; the bound is Clopper and Pearson's."""
    lines = (
        f"Certify questions: of {policy.n} the policy loses {policy.n_lost} and rescues "
        f"{policy.n_rescued}; p = {policy.p_value:.3g} of the "
        "hypothesis that the loss is above epsilon."
    )
    if told["loss"] != "harm" or policy.share < 1:
        return lines
    at = stats.binomtest(policy.n_lost, policy.n, alternative="less")
    bound = float(at.proportion_ci(1 - told["delta"], method="exact").high)
    return f"{lines} Exact bound of the harm at {1 - told['delta']:g}: {points(bound)}."


def promised(told: dict[str, Any]) -> str:
    """What a certificate's summary promises, and what it was made from."""
    return (
        f"{' > '.join(told['chain'])}: {told['loss']} loss at most {told['epsilon']:g} with "
        f"probability {1 - told['delta']:g}, from {told['n_certify']} certify and "
        f"{told['n_fit']} fit questions ({told['labels']} labels), made {told['created']}."
    )


def _test(data: RunFigures, told: dict[str, Any], headers: Sequence[RunHeader]) -> str:
    """What the questions say of the promise; nothing where it was made from them."""
    epsilon, loss = told["epsilon"], told["loss"]
    value, span, how = data.harm, data.harm_interval, "bootstrap over groups"
    if not data.has_groups:
        span, how = _exact(data.n_harmed, data.n), "exact"
    if loss == "net":
        own, how = data.difference_interval, "bootstrap"
        value, span = -data.difference, None if own is None else (-own[1], -own[0])
    shown = (
        f"on the {data.n} questions of this report the {loss} loss is {points(value)} "
        f"(95 %: {points_range(span)}; {how})."
    )
    if any(header.is_of_seen_questions for header in headers):
        return f"No test: {shown} {SEEN}"
    return f"Test: {shown} {verdict(span, epsilon)}"


def _exact(n_hits: int, n: int) -> Interval:
    """Clopper and Pearson's interval of a share of independent questions."""
    found = stats.binomtest(n_hits, n).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def replayed(data: RunFigures) -> str:
    """How the server's decisions compare with a replay of the tiers' own answers."""
    found = data.comparison
    if found is None:
        return "No certificate was given to the report, so nothing was replayed."
    gap = found.largest_difference
    return (
        "The tiers' own blocks, replayed through the policy of the certificate, are answered by "
        f"the same tier as over HTTP at {found.n_same_tier} of {found.n} questions, and decided "
        f"alike at every tier at {found.n_same_way}. {found.n_same_numbers} were decided on the "
        f"same numbers to 1e-9; of these {found.n_unexplained} were decided otherwise. Elsewhere "
        "the tier's answer was computed in another batch, whose sums come in another order, so "
        "that its log-probabilities differ (risks by at most "
        f"{0.0 if gap is None else gap:.2g}); nothing is rounded and no tie is broken."
    )


def _pareto(data: RunFigures) -> Drawing:
    ways = "; ".join(f"{way.name} {percent(way.accuracy)} at {cost(way.cost)}" for way in data.ways)
    description = (
        f"Scatter plot of accuracy against {data.unit} a request. The cascade, measured: "
        f"{percent(data.accuracy)} at {cost(data.total.cascade)}. {ways}."
    )
    caption = (
        "Up and to the left is better. The line of policies is replayed from the tiers' own "
        "blocks, the star was measured over HTTP, with all engines working beside each other."
    )
    title = f"Accuracy against {data.unit}"
    svg = pareto_svg(data, title=title, description=description)
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def _deferral(data: RunFigures) -> Drawing:
    last = data.tiers[-1]
    description = (
        f"Accuracy against the share of questions that never reach {last}; the cascade: "
        f"{percent(data.accuracy)} at {percent(1 - data.asked[last])}."
    )
    caption = "The policies should stay above the dashed line, on which chance decides."
    title = "Deferral curve"
    svg = deferral_svg(data, title=title, description=description)
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def _shares(data: RunFigures) -> Drawing:
    parts = "; ".join(
        f"{tier} answers {percent(data.answered[tier])} and costs "
        f"{cost(data.total.cascade_by_tier[tier])}"
        for tier in data.tiers
    )
    title = "Who answers, and whom it costs"
    description = f"Two stacked bars: {parts} {data.unit} a request."
    svg = shares_svg(data, title=title, description=description)
    caption = "Above the share of answers by tier, below the share of the cascade's cost by tier."
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def _wasted(data: RunFigures) -> Drawing:
    total = data.total
    description = (
        f"Bars: {data.tiers[-1]} alone {cost(total.alone)}, the cascade {cost(total.cascade)}, of "
        f"which {cost(total.wasted)} for attempts whose answer was not taken and "
        f"{cost(total.shadows)} for shadows of the watch; perfect chain "
        f"{cost(total.perfect_chain)} {data.unit} a request."
    )
    title = "The cost of wasted attempts"
    svg = wasted_svg(data, title=title, description=description)
    caption = "What a request costs, and how much of it went into answers that were not taken."
    return Drawing(svg=svg, title=title, caption=caption, description=description)


def _seconds(data: RunFigures) -> tuple[Block, ...]:
    """Tables of seconds to the last byte and, of streams, to the first token."""
    whole = latency_table(data.latencies, "last byte")
    if not data.first_tokens:
        return (whole,)
    return whole, latency_table(data.first_tokens, "first token"), Paragraph(_STREAMED)


def _latency(data: RunFigures) -> Drawing:
    description = "; ".join(
        f"{one.name}: median {one.median_s:.3f} s, 95th percentile {one.p95_s:.3f} s"
        for one in data.latencies
    )
    title = "Latency"
    svg = latency_svg(data, title=title, description=description)
    caption = "Share of requests that were answered within so many seconds; to the left is better."
    return Drawing(svg=svg, title=title, caption=caption, description=description)
