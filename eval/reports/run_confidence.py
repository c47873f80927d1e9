"""What a report on measured runs says of the confidence of the tiers below the last."""

from eval.judging.certified_coverage import CERTIFIED_DELTA, CertifiedCoverage, fewest_taken
from eval.judging.intervals import Interval
from eval.judging.run_kinds import FEWEST_TO_RANK
from eval.judging.score_metrics import TARGET_RISKS
from eval.reports.blocks import Block, Drawing, Paragraph, Table
from eval.reports.calibration_svg import reliability_svg
from eval.reports.readable import number, percent
from eval.reports.run_figures import RunFigures

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


def confidence_blocks(data: RunFigures) -> tuple[Block, ...]:
    """Drawing, figures of every tier, and what of its answers could be taken."""
    if not data.certified_coverage:
        return _reliability(data), metric_table(data), Paragraph(_RANKING), Paragraph(_SEEN)
    words = _CERTIFIED + (_OF_GROUPS if data.has_groups else "")
    return (
        _reliability(data),
        metric_table(data),
        Paragraph(_RANKING),
        coverage_table(data),
        Paragraph(words),
    )


def metric_table(data: RunFigures) -> Table:
    """Every metric of every lower tier's confidence, with intervals."""
    names = [metric.name for metric in next(iter(data.metrics.values()), ())]
    by_tier = {
        tier: {metric.name: metric for metric in found} for tier, found in data.metrics.items()
    }
    header = ["metric"]
    for tier in data.metrics:
        header += [tier, "95 % interval"]
    rows = []
    for name in names:
        row = [name]
        for found in by_tier.values():
            interval = found[name].interval
            row += [number(found[name].value), _range(interval)]
        rows.append(tuple(row))
    return Table(
        caption=f"Confidence of the tiers below {data.tiers[-1]}, each asked alone",
        header=tuple(header),
        rows=tuple(rows),
    )


def _range(interval: Interval | None) -> str:
    return "-" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"


def coverage_table(data: RunFigures) -> Table:
    """How many answers may be taken at each target, certified, and what was counted there."""
    header = ["wrong at most"]
    for tier in data.certified_coverage:
        header += [f"{tier}: taken", "wrong of these"]
    rows = []
    for i, risk in enumerate(TARGET_RISKS):
        row = [f"{100 * risk:g} %"]
        for found in data.certified_coverage.values():
            row += _coverage_cells(found[i])
        rows.append(tuple(row))
    return Table(
        caption=(
            f"Certified coverage, delta = {CERTIFIED_DELTA:g}: the largest share of a tier's "
            "surest answers, each tier asked alone"
        ),
        header=tuple(header),
        rows=tuple(rows),
    )


def _coverage_cells(found: CertifiedCoverage) -> list[str]:
    if found.share is None:
        return ["too few questions", "-"]
    if not found.n_taken:
        return ["none", "-"]
    return [percent(found.share), f"{found.n_wrong} of {found.n_taken}"]


def _reliability(data: RunFigures) -> Drawing:
    errors = "; ".join(
        f"{one.tier}: {'not enough' if one.ece is None else f'{one.ece:.3f}'}"
        for one in data.reliabilities
    )
    description = f"Share of right answers against confidence. Calibration errors: {errors}."
    caption = (
        "Confidence against the share of answers that are right, each point an equal part of a "
        "tier's answers, bars are 95 % intervals. On the dashed line confidence can be taken at "
        "its word."
    )
    title = "Reliability diagrams"
    svg = reliability_svg(data.reliabilities, title=title, description=description)
    return Drawing(svg=svg, title=title, caption=caption, description=description)
