"""Draw the confidence of tiers against the share of their answers that are right."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from eval.judging.reliability import N_SHOWN_BINS, Reliability
from eval.reports.svg import BLUE, GREY, SKY, Words, drawn, in_percent, write_across
from hybridserve_llm.reporting.blocks import Drawing
from hybridserve_llm.reporting.readable import decimal


def reliability_drawing(reliabilities: Sequence[Reliability], counted_on: str) -> Drawing:
    """Return one panel for each tier; `counted_on` names the questions."""
    errors = "; ".join(f"{tier.tier}: {decimal(tier.ece)}" for tier in reliabilities)
    n_columns = min(len(reliabilities), 2)
    n_rows = -(-len(reliabilities) // n_columns)

    def draw(figure: Figure) -> None:
        for i, reliability in enumerate(reliabilities, start=1):
            _draw_panel(figure.add_subplot(n_rows, n_columns, i), reliability)

    words = Words(
        title="Reliability diagrams",
        description="One panel for each tier below the last: share of right answers against "
        f"confidence. Calibration errors: {errors}.",
        caption=f"Confidence against the share of answers that are right ({counted_on}). Each "
        f"point stands for an equal part of a tier's answers, at most {N_SHOWN_BINS} points; bars "
        "are 95 % intervals. Points on the dashed line mean that confidence can be taken at its "
        "word, above it that it is too low, below it too high. The panels show different ranges.",
    )
    return drawn("reliability", 3.6 * n_rows, draw, words)


def _draw_panel(axes: Axes, reliability: Reliability) -> None:
    """Draw the tier's bins; both axes show the same range, that in which its bins lie."""
    bins = reliability.bins
    spans = [b.accuracy_interval or (b.accuracy, b.accuracy) for b in bins]
    lowest = min(
        (min(b.mean_confidence, low) for b, (low, _) in zip(bins, spans, strict=True)), default=0.0
    )
    limits = (min(int(lowest * 10) / 10, 0.6), 1.02)
    axes.set(xlim=limits, ylim=limits, xlabel="confidence", ylabel="answers that are right")
    axes.set_aspect("equal")
    axes.set_title(_panel_title(reliability))
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
        axes.vlines(b.mean_confidence, low, high, color=SKY, linewidth=1.5)
    x, y = [b.mean_confidence for b in bins], [b.accuracy for b in bins]
    axes.plot(x, y, color=BLUE, marker="o", markersize=4.5, linewidth=0.8)


def _panel_title(reliability: Reliability) -> str:
    if reliability.ece is None or reliability.perfect_ece is None:
        return f"{reliability.tier}\ncalibration error: unknown"
    return (
        f"{reliability.tier}\ncalibration error {reliability.ece:.3f}; "
        f"if perfect {reliability.perfect_ece:.3f}"
    )
