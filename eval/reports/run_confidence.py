"""Show the confidence of the tiers below the last in a report on measured runs."""

from eval.judging.certified_coverage import CERTIFIED_DELTA, CertifiedCoverage, fewest_taken
from eval.judging.intervals import Interval
from eval.judging.run_kinds import FEWEST_TO_RANK
from eval.judging.score_metrics import TARGET_RISKS
from eval.reports.reliability_drawing import reliability_drawing
from eval.reports.run_figures import RunFigures
from hybridserve_llm.reporting.blocks import Paragraph, ReportBlock, Table
from hybridserve_llm.reporting.readable import decimal, percent

_RANKING = (
    "AUROC, PRR (as LM-Polygraph computes it), AURC and AUDC judge the order of answers by "
    "confidence; ECE, Brier, log loss and Spiegelhalter's p judge it as a probability. Coverage is "
    "the share of surest answers of which so many are wrong. Intervals: bootstrap over questions, "
    "whole groups drawn. AUROC by kinds of questions, in the table above, is of a tier's right "
    f"answers; it takes {FEWEST_TO_RANK} questions, right and wrong ones among them."
)
_CERTIFIED = (
    "Coverage above is what was counted here. Certified coverage is less, and holds beyond these "
    "questions: of the answers that a tier's threshold takes no more than the target are wrong, "
    f"with probability {1 - CERTIFIED_DELTA:g}, for questions drawn as these were. That is so for "
    "each target and tier by itself, not for all of them at once, and it is about one tier's "
    "answers, not the cascade's. Thresholds are walked from strict to lax, a hundredth of the "
    "answers more at each step; each is tested by the exact binomial tail of its wrong answers, "
    "and the walk ends at the first that fails (fixed-sequence testing). The path of thresholds "
    "was laid by the confidence in these very answers, without a look at who is right; it is one "
    "path, walked once. It begins with a tenth of the answers, or where it could pass at all: for "
    f"{100 * TARGET_RISKS[0]:g} % that takes {fewest_taken(TARGET_RISKS[0], CERTIFIED_DELTA)} "
    "answers, all of them right."
)
_OF_GROUPS = (
    " Tested is one random question of each group, since those of one depend on each other."
)
_SEEN = (
    "No coverage is certified: the certificate, and with it confidence, was made from these very "
    "questions."
)


def confidence_blocks(data: RunFigures) -> tuple[ReportBlock, ...]:
    """Return drawing and figures of every tier, and how much of its answers could be taken."""
    counted_on = f"n = {data.counts.n} questions"
    blocks = (
        reliability_drawing(data.confidence.reliabilities, counted_on),
        _metric_table(data),
        Paragraph(_RANKING),
    )
    if not data.confidence.certified_coverage:
        return *blocks, Paragraph(_SEEN)
    words = _CERTIFIED + (_OF_GROUPS if data.counts.has_groups else "")
    return *blocks, _coverage_table(data), Paragraph(words)


def _metric_table(data: RunFigures) -> Table:
    """Return every metric of every lower tier's confidence, with intervals."""
    found = data.confidence.metrics
    header = [cell for tier in found for cell in (tier, "95 % interval")]
    rows = [
        (
            of_tiers[0].name,
            *(cell for one in of_tiers for cell in (decimal(one.value), _range(one.interval))),
        )
        for of_tiers in zip(*found.values(), strict=True)
    ]
    return Table(
        caption=f"Confidence of the tiers below {data.last}, each asked alone",
        header=("metric", *header),
        rows=tuple(rows),
    )


def _range(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def _coverage_table(data: RunFigures) -> Table:
    """Return how many answers may be taken at each target, and how many were wrong there."""
    found = data.confidence.certified_coverage
    header = [cell for tier in found for cell in (f"{tier}: taken", "wrong of these")]
    rows = [
        (f"{100 * risk:g} %", *(cell for one in of_tiers for cell in _coverage_cells(one)))
        for risk, *of_tiers in zip(TARGET_RISKS, *found.values(), strict=True)
    ]
    return Table(
        caption=f"Certified coverage, delta = {CERTIFIED_DELTA:g}: the largest share of a tier's "
        "surest answers, each tier asked alone",
        header=("wrong at most", *header),
        rows=tuple(rows),
    )


def _coverage_cells(found: CertifiedCoverage) -> list[str]:
    if found.share is None:
        return ["too few questions", "-"]
    if not found.n_taken:
        return ["none", "-"]
    return [percent(found.share), f"{found.n_wrong} of {found.n_taken}"]
