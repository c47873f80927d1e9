"""Make the tables of a report on measured runs."""

from collections.abc import Callable, Sequence

from eval.judging.run_costs import CostFigures
from eval.judging.run_kinds import GroupRow, Latency
from eval.recorded.measured_run import RunHeader
from eval.reports.provenance import Provenance
from eval.reports.run_figures import RunFigures
from eval.reports.shared_tables import QUANTITIES, loss_rows, ways_table
from hybridserve_llm.reporting.blocks import Table
from hybridserve_llm.reporting.readable import (
    UNKNOWN,
    decimal,
    four_digits,
    four_digits_range,
    or_dash,
    percent,
    percent_of,
    percent_range,
    points,
    points_range,
    ratio_range,
)


def measured_ways(data: RunFigures) -> Table:
    """Return the cascade as measured over HTTP, and every other way."""
    return ways_table(
        (data.cascade, *data.ways),
        caption=f"Accuracy and cost of a request on {data.counts.n} questions",
        unit=f"{data.unit} a request",
    )


def compared_over_http(data: RunFigures) -> Table:
    """Return the cascade compared with the last tier alone, in accuracy."""
    found = data.answers
    last = percent_range(found.accuracy_last_interval)
    own = percent_range(found.accuracy_interval)
    return Table(
        caption=f"The cascade compared with {data.last} alone, both over HTTP",
        header=QUANTITIES,
        rows=(
            ("accuracy of the cascade", percent(found.accuracy), own),
            (f"accuracy of {data.last} alone", percent(found.accuracy_last), last),
            *loss_rows(
                found.difference, found.difference_interval, found.harm, found.harm_interval
            ),
        ),
    )


def cost_table(data: RunFigures) -> Table:
    """Return the use of engines, with and without what they use when nobody asks."""
    rows: dict[str, Callable[[CostFigures], str]] = {
        "cascade": lambda cost: four_digits(cost.cascade),
        f"{data.last} alone": lambda cost: four_digits(cost.alone),
        "times cheaper": lambda cost: f"{cost.ratio:.2f}",
        "its 95 % interval": lambda cost: ratio_range(cost.ratio_interval),
        "perfect chain": lambda cost: four_digits(cost.perfect_chain),
        "share of the perfect chain's saving": lambda cost: percent(cost.share_of_perfect),
        "wasted attempts": lambda cost: _cost_and_share(cost.wasted, cost.cascade),
        "shadows, by tokens": lambda cost: _cost_and_share(cost.shadows, cost.cascade),
        "times cheaper without shadows": lambda cost: (
            f"{cost.alone / (cost.cascade - cost.shadows):.2f}"
        ),
    }
    costs = data.costs.total, data.costs.without_idle
    return Table(
        caption=f"{data.unit} a request of all engines",
        header=("quantity", "waiting included", "without idle use"),
        rows=tuple((name, *map(cell, costs)) for name, cell in rows.items()),
    )


def _cost_and_share(part: float, whole: float) -> str:
    """Return a part of a cost, and its share of the whole."""
    return f"{four_digits(part)} ({percent_of(part, whole)})"


def tier_table(data: RunFigures) -> Table:
    """Return each tier: who is asked, who answers, what it costs alone and in the cascade."""
    accuracy = {way.name.removesuffix(" alone"): way.accuracy for way in data.ways}
    idle, costs, answers = data.costs.idle_rates, data.costs.total, data.answers
    return Table.of(
        data.tiers,
        f"The tiers; {data.unit} waiting included",
        {
            "tier": str,
            "accuracy alone": lambda tier: percent(accuracy[tier]),
            "is asked": lambda tier: percent(answers.asked[tier]),
            "answers": lambda tier: percent(answers.answered[tier]),
            f"{data.unit} alone": lambda tier: four_digits(costs.tiers[tier]),
            f"{data.unit} in the cascade": lambda tier: four_digits(costs.cascade_by_tier[tier]),
            "CPU-s a second idle": lambda tier: f"{idle[tier]:.3f}" if tier in idle else UNKNOWN,
        },
    )


def latency_table(rows: Sequence[Latency], until: str) -> Table:
    """Return seconds at the client from sending to `until`."""
    return Table.of(
        rows,
        f"Seconds from sending a request to its {until}, at the client",
        {
            "requests": lambda one: one.name,
            "number": lambda one: str(one.n),
            "median": lambda one: f"{one.median_s:.3f}",
            "95th percentile": lambda one: f"{one.p95_s:.3f}",
        },
    )


def iso_table(data: RunFigures) -> Table:
    """Return the cheapest policy of the path at given losses of accuracy."""
    return Table.of(
        data.iso,
        "Cheapest point of the path at an accuracy of the last tier's less so much; chosen on "
        "these questions, so no promise",
        {
            "below the last tier": lambda one: points(one.points_below),
            f"{data.unit} a request": lambda one: (
                "no point" if one.cost is None else four_digits(one.cost)
            ),
            "times cheaper": lambda one: or_dash(one.ratio, ".2f"),
        },
    )


def regret_table(data: RunFigures) -> Table:
    """Return how far the cascade is from the oracle, at its forward rate and its accuracy."""
    found, unit = data.regret, f"{data.unit} a request"

    def cost(value: float | None) -> str:
        return UNKNOWN if value is None else four_digits(value)

    more = f"the cascade's {unit} beyond that"
    rows = (
        ("accuracy of the best choice, as many forwarded", percent(found.oracle_accuracy), ""),
        ("that minus the cascade's", points(found.regret), points_range(found.regret_interval)),
        (f"least {unit} at the cascade's accuracy", cost(found.oracle_cost), ""),
        (more, cost(found.extra_cost), four_digits_range(found.extra_cost_interval)),
    )
    return Table(
        caption="Regret to the oracle, which knows who is right; "
        f"{percent(found.forwarded)} of the questions are forwarded to {data.last}",
        header=QUANTITIES,
        rows=rows,
    )


def kind_table(data: RunFigures) -> Table:
    """Return the cascade by kinds of questions; with a certificate, how confidence ranks there."""
    ranked: dict[str, Callable[[GroupRow], str]] = {
        f"AUROC {tier}": lambda row, tier=tier: decimal(row.auroc[tier])  # type: ignore[misc]  # bound early
        for tier in data.confidence.metrics
    }
    return Table.of(
        data.kinds,
        "The cascade by kinds of questions",
        {
            "kind": lambda row: row.name,
            "number": lambda row: str(row.n),
            "kept": lambda row: percent(row.kept),
            "accuracy": lambda row: percent(row.accuracy),
            "last tier": lambda row: percent(row.accuracy_last),
            "harm": lambda row: percent(row.harm),
            "95 % interval": lambda row: percent_range(row.harm_interval),
            **ranked,
        },
    )


def origin_table(data: RunFigures, headers: Sequence[RunHeader], provenance: Provenance) -> Table:
    """Return commands, versions, machine and dates."""
    first = headers[0]
    rows = [
        *((f"run {i}", one.command) for i, one in enumerate(headers, start=1)),
        *((f"run {i} at commit", one.commit or UNKNOWN) for i, one in enumerate(headers, start=1)),
        *((f"run {i} begun", one.asked.created) for i, one in enumerate(headers, start=1)),
        ("run on", first.hardware),
        ("engines", _engines(first)),
        ("sampling", str(first.asked.sampling or "as a plain client sends")),
        ("asked at a time", str(first.concurrency)),
        (
            "questions a block",
            f"{first.block_questions}, {data.counts.n_blocks} blocks of each way",
        ),
        ("sha256 of the prompts", ", ".join(one.asked.data_sha256[:16] for one in headers)),
        ("fingerprint", str((first.asked.fingerprint or {}).get("hash", UNKNOWN))),
        *((f"report: {name}", value) for name, value in provenance.rows()),
    ]
    return Table(
        caption="Runs, versions and machine",
        header=("what", "which"),
        rows=tuple(rows),
        is_text=True,
    )


def _engines(header: RunHeader) -> str:
    """Return the versions of the tiers' engines by the fingerprint."""
    parts = (header.asked.fingerprint or {}).get("parts") or {}
    tiers = parts.get("tiers") or {}
    versions = {str(tier.get("engine_version") or UNKNOWN) for tier in tiers.values()}
    return f"vLLM {', '.join(sorted(versions))}" if versions else UNKNOWN
