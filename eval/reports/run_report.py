"""Write the report on measured runs, in reading order."""

from collections.abc import Sequence
from typing import Any

from scipy import stats

from eval.judging.intervals import LEVEL, Interval
from eval.recorded.measured_run import RunHeader
from eval.reports.provenance import Provenance
from eval.reports.replay_report import SEEN
from eval.reports.run_confidence import confidence_blocks
from eval.reports.run_drawings import (
    answer_and_cost_shares,
    deferral_of_run,
    latency,
    pareto_of_run,
    wasted,
)
from eval.reports.run_figures import RunFigures
from eval.reports.run_tables import (
    compared_over_http,
    cost_table,
    iso_table,
    kind_table,
    latency_table,
    measured_ways,
    origin_table,
    regret_table,
    tier_table,
)
from eval.reports.shared_tables import FITTED_NOTE, verdict
from hybridserve_llm.config.certificate import PolicyPart
from hybridserve_llm.reporting.blocks import Bullets, Paragraph, ReportBlock, Section
from hybridserve_llm.reporting.readable import (
    four_digits,
    percent,
    points,
    points_range,
    reversed_range,
)

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
    "The oracle knows beforehand who is right, so nobody can be as good; the distance shows how "
    "much better decisions could do. As many forwarded: it sends exactly as many questions to the "
    "last tier as the cascade, those that gain most by it, and answers every other one by a lower "
    "tier that is right, where one is. At the cascade's accuracy: it answers as many questions "
    "right, each by the lowest tier that is, and pays for that tier alone. Intervals: bootstrap "
    "over questions, whole groups drawn."
)


def run_sections(
    data: RunFigures,
    headers: Sequence[RunHeader],
    provenance: Provenance,
    policy: PolicyPart | None,
) -> tuple[Section, ...]:
    """Return the whole report from its headline to its provenance.

    `policy` is the certificate's; None where no certificate was given to the report.
    """
    confidence = (
        (Section("Confidence", confidence_blocks(data)),) if data.confidence.metrics else ()
    )
    path = (iso_table(data),) if data.iso else ()
    return (
        Section(
            "Result",
            (Paragraph(headline(data), is_headline=True), Bullets(_remarks(data, headers))),
        ),
        Section("Certificate", certificate(data, headers, policy)),
        Section("Accuracy", (compared_over_http(data), kind_table(data))),
        Section(
            "Cost",
            (
                cost_table(data),
                Bullets(_how_counted(data)),
                tier_table(data),
                answer_and_cost_shares(data),
                wasted(data),
            ),
        ),
        Section(
            "Compared with other ways",
            (
                measured_ways(data),
                Paragraph(_WAYS),
                pareto_of_run(data),
                deferral_of_run(data),
                regret_table(data),
                Paragraph(_ORACLE),
                *path,
            ),
        ),
        Section("Latency", (*_seconds(data), latency(data))),
        *confidence,
        Section("Replay of the decisions", (Paragraph(replayed(data)),)),
        Section("Where the numbers come from", (origin_table(data, headers, provenance),)),
    )


def headline(data: RunFigures) -> str:
    """Return the result in two sentences."""
    total, last = data.costs.total, data.last
    interval = total.ratio_interval
    of = f" (95 %: {interval[0]:.2f} to {interval[1]:.2f})" if interval else ""
    perfect = (
        f", {percent(total.share_of_perfect)} of what the perfect chain would save"
        if total.share_of_perfect is not None
        else ""
    )
    found, unit = data.answers, data.unit
    return (
        f"On {data.counts.n} questions the cascade is right at {percent(found.accuracy)}, {last} "
        f"alone at {percent(found.accuracy_last)}: {points(found.difference)} "
        f"({points_range(found.difference_interval)}). A request costs "
        f"{four_digits(total.cascade)} {unit} instead of {four_digits(total.alone)}: "
        f"{total.ratio:.2f}x cheaper{of}{perfect}."
    )


def _remarks(data: RunFigures, headers: Sequence[RunHeader]) -> tuple[str, ...]:
    kept, last = data.share_kept, data.last
    lines = [
        f"{percent(kept)} of the questions never reached {last}.",
        f"{percent(data.answers.certified_share)} of the cascade's answers were covered by its "
        "certificate.",
        f"The watch had {data.counts.n_shadowed} accepted answers asked of {last} again; what that "
        "cost is part of the cascade's cost. It draws many in the first hours after a start, later "
        "about the share that is configured.",
    ]
    header = headers[0]
    if header.block_questions < FULL_BLOCK * header.concurrency:
        lines.append(
            f"Blocks of {header.block_questions} questions, {header.concurrency} at a time, are "
            "short: engines work with small batches for much of a block, which costs more."
        )
    if data.counts.n_left_out:
        lines.append(
            "Left out, not answered in every way or not graded: "
            f"{data.counts.n_left_out} questions."
        )
    if data.counts.n_last_differs:
        lines.append(
            f"{last}, asked with and without log-probabilities, was right once and wrong once at "
            f"{data.counts.n_last_differs} questions; the answer without them counts."
        )
    return tuple(lines)


def _how_counted(data: RunFigures) -> tuple[str, ...]:
    last = data.last
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
            f"Joules are of {data.counts.energy_sources}; idle joules are those booked as idle.",
        )
    return (
        *lines,
        "No meter gave joules, so CPU-seconds of the engines' process trees stand in their place. "
        "Idle use is what the engines used a second in windows without a request, times the "
        "block's seconds.",
    )


def certificate(
    data: RunFigures, headers: Sequence[RunHeader], policy: PolicyPart | None
) -> tuple[ReportBlock, ...]:
    """Return what was certified, and what these questions say of it."""
    summary = headers[0].certificate
    if summary is None or not summary.get("certified"):
        return (Paragraph("The cascade reported no certificate: nothing is promised."),)
    counted = () if policy is None else (Paragraph(certified_on(policy, summary)),)
    return (
        Paragraph(certificate_in_words(summary)),
        *counted,
        Paragraph(_test(data, summary, headers)),
    )


def certified_on(policy: PolicyPart, summary: dict[str, Any]) -> str:
    """Return the counts on the certify questions; the bound is Clopper and Pearson's."""
    lines = (
        f"Certify questions: of {policy.n} the policy loses {policy.n_lost} and rescues "
        f"{policy.n_rescued}; p = {policy.p_value:.3g} of the "
        "hypothesis that the loss is above epsilon."
    )
    if summary["loss"] != "harm" or policy.share < 1:
        return lines
    at = stats.binomtest(policy.n_lost, policy.n, alternative="less")
    bound = float(at.proportion_ci(1 - summary["delta"], method="exact").high)
    return f"{lines} Exact bound of the harm at {1 - summary['delta']:g}: {points(bound)}."


def certificate_in_words(summary: dict[str, Any]) -> str:
    """Return what a certificate's summary promises, and what it was made from."""
    return (
        f"{' > '.join(summary['chain'])}: {summary['loss']} loss at most {summary['epsilon']:g} "
        f"with probability {1 - summary['delta']:g}, from {summary['n_certify']} certify and "
        f"{summary['n_fit']} fit questions ({summary['labels']} labels), made "
        f"{summary['created']}."
    )


def _test(data: RunFigures, summary: dict[str, Any], headers: Sequence[RunHeader]) -> str:
    """Return the test of the promise; none where the promise was made from these questions."""
    epsilon, loss = summary["epsilon"], summary["loss"]
    value, span, how = data.answers.harm, data.answers.harm_interval, "bootstrap over groups"
    if not data.counts.has_groups:
        span, how = _exact(data.answers.n_harmed, data.counts.n), "exact"
    if loss == "net":
        how = "bootstrap"
        value, span = -data.answers.difference, reversed_range(data.answers.difference_interval)
    shown = (
        f"on the {data.counts.n} questions of this report the {loss} loss is {points(value)} "
        f"(95 %: {points_range(span)}; {how})."
    )
    if any(header.is_of_seen_questions for header in headers):
        return f"No test: {shown} {SEEN}"
    return f"Test: {shown} {verdict(span, epsilon)}"


def _exact(n_hits: int, n: int) -> Interval:
    """Return Clopper and Pearson's interval of a share of independent questions."""
    found = stats.binomtest(n_hits, n).proportion_ci(LEVEL, method="exact")
    return float(found.low), float(found.high)


def replayed(data: RunFigures) -> str:
    """Compare the server's decisions with a replay of the tiers' own answers, in words."""
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


def _seconds(data: RunFigures) -> tuple[ReportBlock, ...]:
    """Return tables of seconds to the last byte and, of streams, to the first token."""
    whole = latency_table(data.times.latencies, "last byte")
    if not data.times.first_tokens:
        return (whole,)
    return whole, latency_table(data.times.first_tokens, "first token"), Paragraph(_STREAMED)
