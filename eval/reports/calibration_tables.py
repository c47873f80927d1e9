"""The calibration report's tables."""

from eval.judging.accuracy_and_cost import AccuracyAndCost
from eval.judging.reliability import N_ECE_BINS
from eval.reports.blocks import Table
from eval.reports.calibration_figures import ReportData
from eval.reports.calibration_result import Report
from eval.reports.provenance import Provenance
from eval.reports.readable import (
    UNKNOWN,
    cost,
    number,
    percent,
    percent_of,
    percent_range,
    points,
    points_range,
)
from hybridserve_llm.calibration.choice import SAVING_PER_TIER

N_CHAINS = 10
"""Chains that are listed; the page's data holds all."""


def ways_of_answering(data: ReportData) -> Table:
    """Tiers alone, the cascade, and the two ideals."""
    cascade, ways = data.cascade, [(f"{tier.name} alone", tier) for tier in data.alone]
    kept = "nothing certified" if cascade.is_last_alone else " > ".join(cascade.chain)
    gate = ", with a gate" if cascade.has_gate else ""
    ways.append((f"cascade: {kept}{gate}", cascade.total))
    ways += [(ideal.name, ideal) for ideal in (data.perfect_chain, data.oracle)]
    return Table(
        caption=f"Accuracy and mean cost per question on the {data.n_test} test questions",
        header=("who answers", "accuracy", "95 % interval", "cost", "of last tier's"),
        rows=tuple(_way_row(name, way, data.last) for name, way in ways),
    )


def _way_row(name: str, way: AccuracyAndCost, last: AccuracyAndCost) -> tuple[str, ...]:
    return (
        name,
        percent(way.accuracy),
        percent_range(way.accuracy_interval),
        cost(way.mean_cost),
        percent_of(way.mean_cost, last.mean_cost),
    )


def beside_last(data: ReportData) -> Table:
    """The cascade compared with the last tier alone."""
    cascade, last = data.cascade, data.last
    difference = cascade.difference_interval
    net_loss = None if difference is None else (-difference[1], -difference[0])
    rows = [
        ("accuracy minus the last tier's", points(cascade.difference), points_range(difference)),
        ("net loss", points(-cascade.difference), points_range(net_loss)),
        ("harm rate", percent(cascade.harm_rate), percent_range(cascade.harm_interval)),
    ]
    if cascade.is_last_alone:  # no sample can show another difference
        rows = [(name, value, "by construction") for name, value, _ in rows]
    wasted, total = cascade.wasted_cost, cascade.total.mean_cost
    return Table(
        caption=f"The cascade beside {last.name} alone, on the {data.n_test} test questions",
        header=("quantity", "value", "95 % interval"),
        rows=(
            *rows,
            ("times cheaper", f"{last.mean_cost / total:.2f}" if total > 0 else UNKNOWN, ""),
            ("cost of wasted attempts, per question", cost(wasted), ""),
            ("their share of the cost", percent_of(wasted, total), ""),
        ),
    )


def by_tier(data: ReportData) -> Table:
    """Shares of questions that each tier is asked and answers."""
    cascade = data.cascade
    shares = zip(cascade.tiers, cascade.asked, cascade.answered, strict=True)
    return Table(
        caption=f"Who is asked and who answers, of the {data.n_test} test questions",
        header=("tier", "is asked", "answers"),
        rows=tuple((name, percent(asked), percent(answered)) for name, asked, answered in shares),
    )


def calibration_of_tiers(data: ReportData) -> Table:
    """How far the confidence of every tier below the last can be believed."""
    return Table(
        caption=(
            f"Confidence on the {data.n_test} test questions; calibration error (ECE) over "
            f"{N_ECE_BINS} bins of equal mass"
        ),
        header=(
            "tier",
            "scored",
            "no score",
            "ECE",
            "ECE if perfect",
            "95 % bound",
            "Brier",
            "AUROC",
        ),
        rows=tuple(
            (
                tier.tier,
                str(tier.n),
                str(tier.n_unscored),
                number(tier.ece),
                number(tier.perfect_ece),
                number(tier.perfect_ece_high),
                number(tier.brier),
                number(tier.auroc),
            )
            for tier in data.reliabilities
        ),
    )


def chains(report: Report) -> Table:
    """The chains that were compared, the best first."""
    shown = [*report.chains[:N_CHAINS], *(c for c in report.chains[N_CHAINS:] if len(c.tiers) == 1)]
    return Table(
        caption=(
            f"Chains as judged on the {report.n_fit} fit questions, not the test questions: "
            f"{len(shown)} of {len(report.chains)}, the best first, where a further tier or a gate "
            f"has to save {100 * SAVING_PER_TIER:g} %"
        ),
        header=("chain", "gate", "expected cost", "of last tier's"),
        rows=tuple(
            (
                " > ".join(chain.tiers),
                "yes" if chain.has_gate else "no",
                cost(chain.mean_cost),
                percent(chain.cost_share),
            )
            for chain in shown
        ),
    )


def origin(report: Report, provenance: Provenance) -> Table:
    """Command, versions, machine, questions."""
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
