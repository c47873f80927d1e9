"""The table of a policy and the other ways beside it: one for the terminal, one for reports."""

from collections.abc import Sequence

from rich.table import Table as RichTable

from eval.reports.blocks import Table
from eval.reports.readable import cost, percent, percent_range
from eval.rivals.other_ways import OtherWay

_FITTED = " *"
FITTED_NOTE = (
    "*: thresholds fitted on one half of the questions, to cost no more than the policy there, and "
    "counted on the other half, both in turn. Random escalation is an expectation."
)


def ways_block(
    ways: Sequence[OtherWay], *, caption: str, unit: str, policy: OtherWay | None = None
) -> Table:
    """For a report; `policy` comes first."""
    return Table(caption=caption, header=_header(unit), rows=_rows(ways, policy))


def ways_in_terminal(
    ways: Sequence[OtherWay], *, caption: str, policy: OtherWay | None = None
) -> RichTable:
    """For a terminal of 80 columns."""
    table = RichTable(box=None, header_style="bold", title=caption, title_justify="left")
    for i, heading in enumerate(_header("cost")):
        table.add_column(heading, justify="right" if i else "left")
    for row in _rows(ways, policy):
        table.add_row(*row)
    return table


def _header(unit: str) -> tuple[str, ...]:
    return ("who answers", "right", "95 % interval", unit, "ratio")


def _rows(ways: Sequence[OtherWay], policy: OtherWay | None) -> tuple[tuple[str, ...], ...]:
    shown = (*([policy] if policy else []), *ways)
    return tuple(
        (
            way.name + (_FITTED if way.is_fitted else ""),
            percent(way.accuracy),
            percent_range(way.accuracy_interval) if way.accuracy_interval else "expectation",
            cost(way.cost),
            "-" if way.ratio is None else f"{way.ratio:.2f}",
        )
        for way in shown
    )
