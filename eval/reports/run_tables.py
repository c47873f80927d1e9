"""Tables of a report on measured runs."""

from collections.abc import Sequence

from eval.judging.intervals import Interval
from eval.judging.run_kinds import Latency
from eval.recorded.measured_run import RunHeader
from eval.reports.blocks import Table
from eval.reports.provenance import Provenance
from eval.reports.readable import (
    NOT_ENOUGH,
    UNKNOWN,
    cost,
    cost_range,
    number,
    percent,
    percent_of,
    percent_range,
    points,
    points_range,
)
from eval.reports.run_figures import RunFigures
from eval.reports.ways_table import ways_block
from eval.rivals.other_ways import OtherWay


def measured_ways(data: RunFigures) -> Table:
    """The cascade as measured over HTTP, and every other way."""
    policy = OtherWay(
        name="the cascade, measured",
        accuracy=data.accuracy,
        accuracy_interval=data.accuracy_interval,
        cost=data.total.cascade,
        ratio=data.total.ratio,
        is_fitted=False,
    )
    return ways_block(
        data.ways,
        caption=f"Accuracy and cost of a request on {data.n} questions",
        unit=f"{data.unit} a request",
        policy=policy,
    )


def beside_last(data: RunFigures) -> Table:
    """The cascade compared with the last tier alone, in accuracy."""
    difference = data.difference_interval
    net_loss = None if difference is None else (-difference[1], -difference[0])
    return Table(
        caption=f"The cascade beside {data.tiers[-1]} alone, both over HTTP",
        header=("quantity", "value", "95 % interval"),
        rows=(
            (
                "accuracy of the cascade",
                percent(data.accuracy),
                percent_range(data.accuracy_interval),
            ),
            (
                f"accuracy of {data.tiers[-1]} alone",
                percent(data.accuracy_last),
                percent_range(data.accuracy_last_interval),
            ),
            ("accuracy minus the last tier's", points(data.difference), points_range(difference)),
            ("net loss", points(-data.difference), points_range(net_loss)),
            ("harm", percent(data.harm), percent_range(data.harm_interval)),
        ),
    )


def cost_table(data: RunFigures) -> Table:
    """What engines used, with and without what they use when nobody asks."""
    total, net = data.total, data.without_idle
    rows = [
        ("cascade", cost(total.cascade), cost(net.cascade)),
        (f"{data.tiers[-1]} alone", cost(total.alone), cost(net.alone)),
        ("times cheaper", f"{total.ratio:.2f}", f"{net.ratio:.2f}"),
        ("its 95 % interval", _ratio_range(total.ratio_interval), _ratio_range(net.ratio_interval)),
        ("perfect chain", cost(total.perfect_chain), cost(net.perfect_chain)),
        (
            "share of the perfect chain's saving",
            percent(total.share_of_perfect),
            percent(net.share_of_perfect),
        ),
        (
            "wasted attempts",
            *(cost_and_share(c.wasted, c.cascade) for c in (total, net)),
        ),
        ("shadows, by tokens", *(cost_and_share(c.shadows, c.cascade) for c in (total, net))),
        (
            "times cheaper without shadows",
            *(f"{c.alone / (c.cascade - c.shadows):.2f}" for c in (total, net)),
        ),
    ]
    return Table(
        caption=f"{data.unit} a request of all engines",
        header=("quantity", "waiting included", "without idle use"),
        rows=tuple(rows),
    )


def cost_and_share(part: float, whole: float) -> str:
    """A part of a cost, and its share of the whole."""
    return f"{cost(part)} ({percent_of(part, whole)})"


def _ratio_range(interval: Interval | None) -> str:
    return NOT_ENOUGH if interval is None else f"{interval[0]:.2f} to {interval[1]:.2f}"


def tier_table(data: RunFigures) -> Table:
    """Each tier: who is asked, who answers, what it costs alone and in the cascade."""
    idle = data.idle_rates
    accuracy = {way.name.removesuffix(" alone"): way.accuracy for way in data.ways}
    return Table(
        caption=f"The tiers; {data.unit} waiting included",
        header=(
            "tier",
            "accuracy alone",
            "is asked",
            "answers",
            f"{data.unit} alone",
            f"{data.unit} in the cascade",
            "CPU-s a second idle",
        ),
        rows=tuple(
            (
                tier,
                percent(accuracy[tier]),
                percent(data.asked[tier]),
                percent(data.answered[tier]),
                cost(data.total.tiers[tier]),
                cost(data.total.cascade_by_tier[tier]),
                f"{idle[tier]:.3f}" if tier in idle else UNKNOWN,
            )
            for tier in data.tiers
        ),
    )


def latency_table(rows: Sequence[Latency], until: str) -> Table:
    """Seconds at the client, `until` what."""
    return Table(
        caption=f"Seconds from sending a request to its {until}, at the client",
        header=("requests", "number", "median", "95th percentile"),
        rows=tuple(
            (one.name, str(one.n), f"{one.median_s:.3f}", f"{one.p95_s:.3f}") for one in rows
        ),
    )


def iso_table(data: RunFigures) -> Table:
    """The cheapest policy of the path at given losses of accuracy."""
    return Table(
        caption=(
            "Cheapest point of the path at an accuracy of the last tier's less so much; chosen on "
            "these questions, so no promise"
        ),
        header=("below the last tier", f"{data.unit} a request", "times cheaper"),
        rows=tuple(
            (
                points(one.points_below),
                "no point" if one.cost is None else cost(one.cost),
                "-" if one.ratio is None else f"{one.ratio:.2f}",
            )
            for one in data.iso
        ),
    )


def regret_table(data: RunFigures) -> Table:
    """How far the cascade is from the oracle at the same forward rate, and at its own accuracy."""
    found, unit = data.regret, f"{data.unit} a request"
    return Table(
        caption=(
            f"Regret to the oracle, which knows who is right; {percent(found.forwarded)} of the "
            f"questions are forwarded to {data.tiers[-1]}"
        ),
        header=("quantity", "value", "95 % interval"),
        rows=(
            ("accuracy of the best choice, as many forwarded", percent(found.oracle_accuracy), ""),
            (
                "that minus the cascade's",
                points(found.regret),
                points_range(found.regret_interval),
            ),
            (
                f"least {unit} at the cascade's accuracy",
                UNKNOWN if found.oracle_cost is None else cost(found.oracle_cost),
                "",
            ),
            (
                f"the cascade's {unit} beyond that",
                UNKNOWN if found.extra_cost is None else cost(found.extra_cost),
                cost_range(found.extra_cost_interval),
            ),
        ),
    )


def kind_table(data: RunFigures) -> Table:
    """The cascade by kinds of questions; with a certificate, how confidence ranks answers there."""
    ranked = tuple(data.metrics)
    return Table(
        caption="The cascade by kinds of questions",
        header=(
            *("kind", "number", "kept", "accuracy", "last tier", "harm", "95 % interval"),
            *(f"AUROC {tier}" for tier in ranked),
        ),
        rows=tuple(
            (
                row.name,
                str(row.n),
                percent(row.kept),
                percent(row.accuracy),
                percent(row.accuracy_last),
                percent(row.harm),
                percent_range(row.harm_interval),
                *(number(row.auroc[tier]) for tier in ranked),
            )
            for row in data.kinds
        ),
    )


def origin_table(data: RunFigures, headers: Sequence[RunHeader], provenance: Provenance) -> Table:
    """Commands, versions, machine, dates."""
    first = headers[0]
    rows = [
        *((f"run {i}", one.command) for i, one in enumerate(headers, start=1)),
        *((f"run {i} at commit", one.commit or UNKNOWN) for i, one in enumerate(headers, start=1)),
        *((f"run {i} begun", one.asked.created) for i, one in enumerate(headers, start=1)),
        ("run on", first.hardware),
        ("engines", _engines(first)),
        ("sampling", str(first.asked.sampling or "as a plain client sends")),
        ("asked at a time", str(first.concurrency)),
        ("questions a block", f"{first.block_questions}, {data.n_blocks} blocks of each way"),
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
    """Versions of the tiers' engines, as the fingerprint tells them."""
    parts = (header.asked.fingerprint or {}).get("parts") or {}
    tiers = parts.get("tiers") or {}
    versions = {str(tier.get("engine_version") or UNKNOWN) for tier in tiers.values()}
    return f"vLLM {', '.join(sorted(versions))}" if versions else UNKNOWN
