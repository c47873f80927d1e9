"""Print the result of `hs-calibrate` for a person, at 80 columns."""

from rich.console import Console
from rich.table import Table

from eval.commands.calibration import CalibrationResult


def print_calibration(result: CalibrationResult, console: Console) -> None:
    """Print the result in words and two tables."""
    report, data = result.report, result.data
    console.print(report.headline(), soft_wrap=False)
    tiers = Table(
        box=None, header_style="bold", title="on the test questions", title_justify="left"
    )
    for heading in ("tier", "cost", "accuracy", "answers", "asked"):
        tiers.add_column(heading, justify="left" if heading == "tier" else "right")
    for tier in report.tiers:
        tiers.add_row(
            tier.name,
            f"{tier.cost:.4g}",
            f"{tier.accuracy:.3f}",
            f"{tier.answered:.1%}",
            f"{tier.asked:.1%}",
        )
    console.print(tiers)
    chains = Table(
        box=None,
        header_style="bold",
        title="chains, as judged on the fit questions",
        title_justify="left",
    )
    chains.add_column("chain")
    chains.add_column("expected cost", justify="right")
    chains.add_column("of the last tier alone", justify="right")
    for chain in report.chains[:6]:
        gate = "gate > " if chain.has_gate else ""
        name = gate + " > ".join(chain.tiers)
        chains.add_row(name, f"{chain.mean_cost:.4g}", f"{chain.cost_share:.1%}")
    console.print(chains)
    for line in (*report.remarks(), *data.remarks()):
        console.print(line, soft_wrap=False)
