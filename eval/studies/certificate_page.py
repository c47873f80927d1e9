"""The certificate table as text of 80 columns and as Markdown."""

from collections.abc import Iterator, Sequence

from eval.judging.intervals import Interval
from eval.studies.certificate_summary import Comparison, Section, WayRow

_HEADINGS = ("way", "cost ratio", "mean of ratios", "loss %", "violated %", "none certified %")


def as_text(sections: Sequence[Section]) -> str:
    """Every section, at most 80 columns wide."""
    return "\n".join(line for section in sections for line in (*_text_lines(section), ""))


def as_markdown(sections: Sequence[Section]) -> str:
    """Every section as a heading, a table and the comparisons."""
    return "\n".join(line for section in sections for line in (*_markdown_lines(section), ""))


def _text_lines(section: Section) -> Iterator[str]:
    yield title(section)
    yield f"{'':24} {'cost ratio':>20} {'mean of':>7} {'loss':>6} {'violated':>12} none"
    yield f"{'way':24} {'':>20} {'ratios':>7} {'%':>6} {'%':>12}    %"
    for row in section.rows:
        violated = f"{100 * row.violated:.0f} {percent_interval(row.violated_interval)}".strip()
        ratio = f"{row.cost_ratio:.2f} {interval_text(row.cost_ratio_interval)}".strip()
        yield (
            f"{row.way:24} {ratio:>20} {row.mean_cost_ratio:7.2f} {100 * row.loss:6.2f} "
            f"{violated:>12} {_nothing(row):>4}"
        )
    yield from map(comparison_text, section.comparisons)


def _markdown_lines(section: Section) -> Iterator[str]:
    yield f"### {title(section)}"
    yield ""
    yield f"| {' | '.join(_HEADINGS)} |"
    yield f"|---|{'---:|' * (len(_HEADINGS) - 1)}"
    for row in section.rows:
        cells = (
            row.way,
            f"{row.cost_ratio:.2f} {interval_text(row.cost_ratio_interval)}".strip(),
            f"{row.mean_cost_ratio:.2f} {interval_text(row.mean_cost_ratio_interval)}".strip(),
            f"{100 * row.loss:.2f}",
            f"{100 * row.violated:.0f} {percent_interval(row.violated_interval)}".strip(),
            _nothing(row),
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    yield from (f"* {comparison_text(comparison)}" for comparison in section.comparisons)


def title(section: Section) -> str:
    """File and promise."""
    return (
        f"{section.file}, {section.loss} loss <= {section.epsilon:g}, delta {section.delta:g}, "
        f"{section.n_seeds} seeds"
    )


def comparison_text(found: Comparison) -> str:
    """One line: how ours and a rival compare."""
    verdict = "(no interval)"
    if found.interval is not None:
        low, high = found.interval
        verdict = f"({low:+.3f} to {high:+.3f})"
        verdict += ": ours dearer" if found.is_worse else ": ours cheaper" * (low > 0)
    return f"{found.rival}: log(cost / ours) {found.mean_log_ratio:+.3f} {verdict}"


def interval_text(interval: Interval | None) -> str:
    """The interval in brackets; nothing without one."""
    return "" if interval is None else f"({interval[0]:.2f}-{interval[1]:.2f})"


def percent_interval(interval: Interval | None) -> str:
    """The interval of a share in whole percent, in brackets; nothing without one."""
    return "" if interval is None else f"({100 * interval[0]:.0f}-{100 * interval[1]:.0f})"


def _nothing(row: WayRow) -> str:
    return f"{100 * row.unsettled:.0f}" if row.is_certified else "-"
