"""Show what `hs-eval replay` found: JSON, or blocks for a terminal of 80 columns."""

from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from eval.judging.ways import Way
from eval.reports.shared_tables import FITTED_NOTE, asked_and_answered, ways_table
from eval.rivals.other_ways import ways_json
from eval.rivals.replay_figures import ReplayFigures
from eval.rivals.served_records import Comparison
from hybridserve_llm.reporting.blocks import Bullets, Paragraph, print_blocks
from hybridserve_llm.reporting.readable import (
    four_digits,
    percent,
    percent_range,
    points,
    points_range,
)

SEEN = (
    "The certificate was made from this file of questions: they are those that it was calibrated "
    "on, and say nothing of its promise. Fresh questions do."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayReport:
    """Hold one replayed policy and other ways at its cost.

    `comparison` is None where no server's records were given.
    """

    policy: str
    figures: ReplayFigures
    n_questions: int
    cost_source: str
    remarks: tuple[str, ...]
    comparison: Comparison | None
    ways: tuple[Way, ...]

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object; absent is null."""
        return {
            "policy": self.policy,
            "n_questions": self.n_questions,
            **asdict(self.figures),
            "ratio": self.figures.ratio,
            "cost_source": self.cost_source,
            "remarks": list(self.remarks),
            "ways": ways_json(self.ways),
            "served": None if self.comparison is None else asdict(self.comparison),
        }


def print_replay_report(report: ReplayReport, console: Console) -> None:
    """Print who was asked and who answered, then accuracy and cost, then the other ways."""
    found = report.figures
    compared = [] if report.comparison is None else [_compared(report.comparison)]
    lines = (
        f"Right: {percent(found.accuracy)} ({percent_range(found.accuracy_interval)}) of "
        f"{report.n_questions} questions; last tier alone {percent(found.accuracy_last)}.",
        f"Difference: {points(found.difference)} ({points_range(found.difference_interval)}); "
        f"harm {percent(found.harm)} ({percent_range(found.harm_interval)}).",
        f"Cost of a request: {four_digits(found.cost)}, last tier alone "
        f"{four_digits(found.cost_last)}: {found.ratio:.2f}x cheaper. {report.cost_source}.",
        *compared,
    )
    blocks = (
        asked_and_answered(report.policy, found.asked, found.answered),
        Bullets(lines),
        ways_table(report.ways, caption="other ways, at the policy's cost"),
        Paragraph(FITTED_NOTE),
        Bullets(report.remarks),
    )
    print_blocks(blocks, console)


def _compared(found: Comparison) -> str:
    n_same = found.n_compared - len(found.differing)
    examples = f", such as {', '.join(found.differing[:3])}" if found.differing else ""
    return (
        f"The server decided {n_same} of {found.n_compared} requests alike, "
        f"{len(found.differing)} otherwise{examples}; left out: {found.n_failed} that failed, "
        f"{found.n_unknown} of no question here."
    )
