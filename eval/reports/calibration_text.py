"""What the calibration report says, in reading order."""

from collections.abc import Sequence

from eval.judging.intervals import Interval
from eval.reports.blocks import Block, Bullets, Paragraph, Section
from eval.reports.calibration_drawings import deferral, pareto, reliability, risk
from eval.reports.calibration_figures import ReportData
from eval.reports.calibration_result import Report
from eval.reports.calibration_tables import (
    beside_last,
    by_tier,
    calibration_of_tiers,
    chains,
    origin,
    ways_of_answering,
)
from eval.reports.provenance import Provenance
from eval.reports.readable import percent, points, points_range

_NOT_PROMISED = (
    "the same bound for a single question, topic or group of users: it holds on average;",
    "anything once questions, models, chat templates or sampling settings differ from those of the "
    "certify questions;",
    "that the labels are right: they are taken as the truth;",
    "that confidence or risk is calibrated: the bound holds either way;",
    "the cost, which is measured only;",
    "the same delta after a choice among calibrations: k tries on the same questions (other seed, "
    "loss, epsilon, chain or preset) until one passes spend up to k times delta.",
)
_IDEALS = (
    "The oracle answers each question by the cheapest tier that does no harm and pays for that "
    "tier alone; the perfect chain decides alike and pays for every tier up to it. Intervals of "
    "accuracy and harm rate are Wilson's, those of differences a paired bootstrap."
)
_GROUPED = (
    " Questions come in groups (users or conversations); the bootstrap draws whole groups, "
    "Wilson's intervals do not know of them and are too narrow."
)
_AS_GROUPS = (
    ": a random question of a random group (user or conversation), so a group of many questions "
    "counts as much as one of few"
)
_RANKING = (
    "ECE is above zero even where confidence is perfect, since questions are finitely many: beside "
    "it stands what perfect confidence would show here on average, and what it would exceed once "
    "in twenty times (simulated). Brier: mean squared error, less is better. AUROC: how often a "
    "right answer has more confidence than a wrong one; 0.5 is chance."
)


def sections(
    report: Report, data: ReportData, provenance: Provenance, remarks: Sequence[str] = ()
) -> tuple[Section, ...]:
    """The whole report from its headline to its provenance; `remarks` follow the headline."""
    result = (Paragraph(text) for text in (*remarks, counted_on(data)))
    ideals = Paragraph(_IDEALS + (_GROUPED if data.has_groups else ""))
    costs = Bullets(tuple(report.remarks()))
    return (
        Section("Result", (Paragraph(report.headline(), is_headline=True), *result)),
        Section("What is promised", promised(report, data)),
        Section(
            "Accuracy and cost",
            (ways_of_answering(data), ideals, beside_last(data), by_tier(data), costs),
        ),
        Section("Accuracy against cost", (pareto(data), deferral(data))),
        Section(
            "Confidence and risk",
            (reliability(data), calibration_of_tiers(data), Paragraph(_RANKING), risk(data)),
        ),
        Section("Chains", (chains(report),)),
        Section("Where the numbers come from", (origin(report, provenance),)),
    )


def counted_on(data: ReportData) -> str:
    """Which questions the figures are counted on, and whether they are fresh."""
    if data.n_seen:
        return (
            f"Figures and tables are counted on {data.n_test} test questions. {data.n_seen} of "
            "them were drawn to fit or to certify too, so other questions may do somewhat worse. "
            "The certificate rests on the certify questions alone."
        )
    return (
        f"Figures and tables are counted on {data.n_test} test questions; none of them was used to "
        "fit or to certify. Where other questions are meant, the caption says so."
    )


def promised(report: Report, data: ReportData) -> tuple[Block, ...]:
    """The certificate in words, its evidence, the check on test questions, and its limits."""
    promise, chosen, last = report.calibration.promise, report.calibration.chosen, data.last.name
    if chosen is None:
        return (
            Paragraph(
                f"Nothing. No policy that is cheaper than {last} alone could be certified "
                f"({promise.loss} loss, epsilon = {promise.epsilon:g}, delta = {promise.delta:g}). "
                f"So {last} answers everything, at its own accuracy and cost."
            ),
        )
    return (
        Paragraph(
            f"With probability at least {percent(1 - promise.delta)}, {_bound(report, last)}: "
            f"epsilon = {promise.epsilon:g}, delta = {promise.delta:g}, {promise.loss} loss. The "
            "probability is over the draw of the certify questions; the bound holds for questions "
            f"drawn as they were{_AS_GROUPS if report.is_of_groups else ''}."
        ),
        Paragraph(
            f"Evidence: of n = {chosen.n} certify questions, {chosen.n_lost} were lost (the "
            f"cascade wrong, {last} right) and {chosen.n_rescued} rescued (the other way round); "
            f"p = {chosen.p_value:.3g}, which may be at most delta."
        ),
        Paragraph(_check(report, data)),
        Paragraph("Not promised:"),
        Bullets(_NOT_PROMISED),
    )


def _bound(report: Report, last: str) -> str:
    epsilon = report.calibration.promise.epsilon
    if report.calibration.promise.loss == "net":
        return f"the cascade's accuracy is at most {points(epsilon)} below that of {last} alone"
    return (
        f"at most {percent(epsilon)} of the questions get a wrong answer where {last} would have "
        "been right"
    )


def _check(report: Report, data: ReportData) -> str:
    """The promise held against the test questions."""
    promise, cascade = report.calibration.promise, data.cascade
    loss, interval = -cascade.difference, cascade.difference_interval
    interval = None if interval is None else (-interval[1], -interval[0])
    if promise.loss == "harm":
        loss, interval = cascade.harm_rate, cascade.harm_interval
    return (
        f"Check: on the test questions the {promise.loss} loss is {points(loss)} (95 % interval: "
        f"{points_range(interval)}). {verdict(interval, promise.epsilon)}"
    )


def verdict(interval: Interval | None, epsilon: float) -> str:
    """Whether the test questions alone tell that the loss is within `epsilon`."""
    if interval is not None and interval[1] <= epsilon:
        return "All of it is within epsilon."
    if interval is not None and interval[0] > epsilon:
        return "All of it is above epsilon: the promise is not kept here."
    return "That does not tell whether the loss is within epsilon."
