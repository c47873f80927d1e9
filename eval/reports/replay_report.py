"""What `hs-eval replay` says: JSON, or a table of 80 columns and a few sentences."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from eval.reports.readable import percent, percent_range, points, points_range
from eval.reports.ways_table import FITTED_NOTE, ways_in_terminal
from eval.rivals.other_ways import OtherWay
from eval.rivals.replay_figures import ReplayFigures
from eval.rivals.served_records import Comparison

SEEN = (
    "The certificate was made from this file of questions: they are those that it was calibrated "
    "on, and say nothing of its promise. Fresh questions do."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """One replayed policy beside other ways at its cost.

    `comparison` is None where no server's records were given.
    """

    policy: str
    figures: ReplayFigures
    n_questions: int
    cost_source: str
    remarks: tuple[str, ...]
    comparison: Comparison | None
    ways: tuple[OtherWay, ...]

    def as_json(self) -> dict[str, Any]:
        """One JSON object; absent is null."""
        return {
            "policy": self.policy,
            "n_questions": self.n_questions,
            **asdict(self.figures),
            "ratio": self.figures.ratio,
            "cost_source": self.cost_source,
            "remarks": list(self.remarks),
            "ways": [asdict(way) for way in self.ways],
            "served": None if self.comparison is None else asdict(self.comparison),
        }


def print_replay_report(report: ReplayReport, console: Console) -> None:
    """Who was asked and who answered, then accuracy and cost."""
    figures = report.figures
    table = Table(box=None, header_style="bold", title=report.policy, title_justify="left")
    for heading in ("tier", "asked", "answers"):
        table.add_column(heading, justify="left" if heading == "tier" else "right")
    for name, asked in figures.asked.items():
        table.add_row(name, percent(asked), percent(figures.answered[name]))
    console.print(table)
    console.print(
        f"Right: {percent(figures.accuracy)} ({percent_range(figures.accuracy_interval)}) of "
        f"{report.n_questions} questions; last tier alone {percent(figures.accuracy_last)}."
    )
    console.print(
        f"Difference: {points(figures.difference)} ({points_range(figures.difference_interval)}); "
        f"harm {percent(figures.harm)} ({percent_range(figures.harm_interval)})."
    )
    console.print(
        f"Cost of a request: {figures.cost:.4g}, last tier alone {figures.cost_last:.4g}: "
        f"{figures.ratio:.2f}x cheaper. {report.cost_source}."
    )
    if report.comparison is not None:
        console.print(_compared(report.comparison))
    console.print(ways_in_terminal(report.ways, caption="other ways, at the policy's cost"))
    console.print(FITTED_NOTE)
    for line in report.remarks:
        console.print(line)


def _compared(found: Comparison) -> str:
    n_same = found.n_compared - len(found.differing)
    examples = f", such as {', '.join(found.differing[:3])}" if found.differing else ""
    return (
        f"The server decided {n_same} of {found.n_compared} requests alike, "
        f"{len(found.differing)} otherwise{examples}; left out: {found.n_failed} that failed, "
        f"{found.n_unknown} of no question here."
    )
