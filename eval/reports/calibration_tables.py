"""Make the calibration report's tables."""

from collections.abc import Sequence

from eval.judging.reliability import N_ECE_BINS
from eval.reports.calibration_figures import CalibrationFigures
from eval.reports.calibration_result import CalibrationReport, ChainCost
from eval.reports.provenance import Provenance
from eval.reports.shared_tables import QUANTITIES, asked_and_answered, loss_rows
from hybridserve_llm.calibration.choice import SAVING_PER_TIER
from hybridserve_llm.reporting.blocks import Bullets, Paragraph, ReportBlock, Table
from hybridserve_llm.reporting.readable import (
    UNKNOWN,
    decimal,
    four_digits,
    percent,
    percent_of,
    percent_range,
)

N_CHAINS, N_CHAINS_IN_TERMINAL = 10, 6
"""Chains that are listed; the page's data holds all."""


def ways_of_answering(data: CalibrationFigures) -> Table:
    """Return tiers alone, the cascade, and the two ideals."""
    cascade, last = data.cascade, data.last
    kept = "nothing certified" if cascade.is_last_alone else " > ".join(cascade.chain)
    gate = ", with a gate" if cascade.has_gate else ""
    return Table.of(
        [
            *(tier.named(f"{tier.name} alone") for tier in data.alone),
            cascade.total.named(f"cascade: {kept}{gate}"),
            data.perfect_chain,
            data.oracle,
        ],
        f"Accuracy and mean cost per question on the {data.n_test} test questions",
        {
            "who answers": lambda way: way.name,
            "accuracy": lambda way: percent(way.accuracy),
            "95 % interval": lambda way: percent_range(way.accuracy_interval),
            "cost": lambda way: four_digits(way.cost),
            "of last tier's": lambda way: percent_of(way.cost, last.cost),
        },
    )


def compared_with_last(data: CalibrationFigures) -> Table:
    """Return the cascade compared with the last tier alone."""
    cascade, last = data.cascade, data.last
    rows = loss_rows(
        cascade.difference, cascade.difference_interval, cascade.harm_rate, cascade.harm_interval
    )
    if cascade.is_last_alone:  # no sample can show another difference
        rows = tuple((name, value, "by construction") for name, value, _ in rows)
    wasted, total = cascade.wasted_cost, cascade.total.cost
    return Table(
        caption=f"The cascade compared with {last.name} alone, on the {data.n_test} test questions",
        header=QUANTITIES,
        rows=(
            *rows,
            ("times cheaper", f"{last.cost / total:.2f}" if total > 0 else UNKNOWN, ""),
            ("cost of wasted attempts, per question", four_digits(wasted), ""),
            ("their share of the cost", percent_of(wasted, total), ""),
        ),
    )


def shares_of_tiers(data: CalibrationFigures) -> Table:
    """Return the shares of questions that each tier is asked and answers."""
    cascade = data.cascade
    return asked_and_answered(
        f"Who is asked and who answers, of the {data.n_test} test questions",
        dict(zip(cascade.tiers, cascade.asked, strict=True)),
        dict(zip(cascade.tiers, cascade.answered, strict=True)),
    )


def calibration_of_tiers(data: CalibrationFigures) -> Table:
    """Return how far the confidence of every tier below the last can be believed."""
    return Table.of(
        data.reliabilities,
        f"Confidence on the {data.n_test} test questions; calibration error (ECE) over "
        f"{N_ECE_BINS} bins of equal mass",
        {
            "tier": lambda tier: tier.tier,
            "scored": lambda tier: str(tier.n),
            "no score": lambda tier: str(tier.n_unscored),
            "ECE": lambda tier: decimal(tier.ece),
            "ECE if perfect": lambda tier: decimal(tier.perfect_ece),
            "95 % bound": lambda tier: decimal(tier.perfect_ece_high),
            "Brier": lambda tier: decimal(tier.brier),
            "AUROC": lambda tier: decimal(tier.auroc),
        },
    )


def chains(report: CalibrationReport) -> Table:
    """Return the chains that were compared, the best first."""
    shown = [*report.chains[:N_CHAINS], *(c for c in report.chains[N_CHAINS:] if len(c.tiers) == 1)]
    return Table.of(
        shown,
        f"Chains as judged on the {report.n_fit} fit questions, not the test questions: "
        f"{len(shown)} of {len(report.chains)}, the best first, where a further tier or a gate "
        f"has to save {100 * SAVING_PER_TIER:g} %",
        {
            "chain": lambda chain: " > ".join(chain.tiers),
            "gate": lambda chain: "yes" if chain.has_gate else "no",
            "expected cost": lambda chain: four_digits(chain.mean_cost),
            "of last tier's": lambda chain: percent(chain.cost_share),
        },
    )


def calibration_in_terminal(
    report: CalibrationReport, remarks: Sequence[str]
) -> tuple[ReportBlock, ...]:
    """Return the result for a terminal of 80 columns; `remarks` are on the data."""
    return (
        Paragraph(report.headline()),
        _tiers_in_terminal(report),
        _chains_in_terminal(report),
        Bullets((*report.remarks(), *remarks)),
    )


def _tiers_in_terminal(report: CalibrationReport) -> Table:
    """Return cost, accuracy and shares of each tier."""
    cascade = report.cascade
    asked = dict(zip(cascade.tiers, cascade.asked, strict=True))
    answered = dict(zip(cascade.tiers, cascade.answered, strict=True))
    return Table.of(
        report.tiers,
        "on the test questions",
        {
            "tier": lambda tier: tier.name,
            "cost": lambda tier: four_digits(tier.cost),
            "accuracy": lambda tier: f"{tier.accuracy:.3f}",
            "answers": lambda tier: f"{answered[tier.name]:.1%}",
            "asked": lambda tier: f"{asked[tier.name]:.1%}",
        },
    )


def _chains_in_terminal(report: CalibrationReport) -> Table:
    """Return the best chains, in three columns."""

    def name(chain: ChainCost) -> str:
        return ("gate > " if chain.has_gate else "") + " > ".join(chain.tiers)

    return Table.of(
        report.chains[:N_CHAINS_IN_TERMINAL],
        "chains, as judged on the fit questions",
        {
            "chain": name,
            "expected cost": lambda chain: four_digits(chain.mean_cost),
            "of the last tier alone": lambda chain: f"{chain.cost_share:.1%}",
        },
    )


def origin(report: CalibrationReport, provenance: Provenance) -> Table:
    """Return command, versions, machine and questions."""
    questions = f"{report.n_fit} to fit, {report.n_certify} to certify, {report.n_test} to test"
    return Table(
        caption="Run, versions and questions",
        header=("what", "which"),
        rows=(
            *provenance.rows(),
            ("questions", questions),
            ("left out, not answered by every tier", str(report.n_incomplete)),
            ("seed", str(report.seed)),
            ("cost", report.cost_source),
        ),
        is_text=True,
    )
