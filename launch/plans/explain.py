"""Show a plan's report to a person: figures in units, with grades, at most 80 columns wide."""

from collections.abc import Iterator
from itertools import groupby

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.planner.plan import Placement, Plan
from hybridserve_llm.planner.report import (
    OffProfile,
    PlanExplanation,
    PlannedGear,
    PlannedTier,
    PlanReport,
)
from hybridserve_llm.reporting.blocks import Paragraph, ReportBlock, Table
from hybridserve_llm.reporting.readable import four_digits
from hybridserve_llm.units import s_to_ms
from launch.plans.report import runner_up_line


def plan_blocks(config: CascadeConfig, report: PlanReport) -> Iterator[ReportBlock]:
    """Yield the report as tables and lines."""
    parts = _searched_parts(report) if report.searched else _configured_parts(config, report)
    for part in parts:
        yield Paragraph(part) if isinstance(part, str) else part


def _searched_parts(report: PlanReport) -> Iterator[Table | str]:
    if report.fits:
        yield _tier_table(report.tiers)
        yield _total_line(report)
        yield from _place_lines(report.tiers)
        if report.slo and any(name.startswith("p95") for name, _ in report.slo.of_tiers):
            yield from _percentile_lines(report.tiers)
        yield f"why: {report.reason}"
        for other in report.runners_up[1:]:
            yield f"  or {runner_up_line(other, report.power_w_total or 0.0)}"
    for remark in report.remarks:
        yield f"note: {remark}"
    for assumption in report.assumptions:
        yield f"assumed: {assumption}"
    if report.explanation is not None:
        yield from _explanation_parts(report.explanation, report.head_room)


def _configured_parts(config: CascadeConfig, report: PlanReport) -> Iterator[Table | str]:
    if report.plan is None:
        return
    yield _replica_table(config, report.plan)
    for tier in report.tiers:
        yield from _outlook_lines(tier)
    yield f"why: {report.reason}"
    for remark in report.remarks:
        yield f"note: {remark}"
    started = {tier.name for tier in report.tiers}
    if not any(tier.profiles for tier in config.tiers if tier.name in started):
        yield "unknown: load, watts and times; no tier names a profile (hs-profile makes them)"
        return
    for assumption in report.assumptions:
        yield f"assumed: {assumption}"
    for reason in report.unknown:
        yield f"unknown: {reason}"


def _replica_table(config: CascadeConfig, plan: Plan) -> Table:
    models = {tier.name: tier.model for tier in config.tiers}
    rows = []
    for tier in plan.tiers:
        model = models[tier.tier]
        rows += [(tier.tier, model, f"runs already at {endpoint}") for endpoint in tier.endpoints]
        rows += [(place.name, model, _place(place)) for place in tier.placements]
    header = ("replica", "model", "runs on")
    return Table(caption="plan, as configured", header=header, rows=tuple(rows), is_text=True)


def _place(placement: Placement) -> str:
    if placement.device == "gpu":
        share = placement.gpu_memory_share
        memory = f", {share:.0%} of its memory" if share is not None else ""
        return f"GPU {', '.join(placement.gpu_uuids)}{memory}"
    if placement.cpu_core_groups:
        groups = " | ".join(",".join(map(str, group)) for group in placement.cpu_core_groups)
        return f"CPU, ranks on cores {groups}"
    return f"CPU, {placement.cpu_threads} thread{'s' if placement.cpu_threads != 1 else ''}"


def _outlook_lines(tier: PlannedTier) -> Iterator[str]:
    """Yield the figures that are known of a tier that was not searched, in at most two lines."""
    if tier.host_memory_gib is not None:
        yield (
            f"{tier.name}: {tier.host_memory_gib:.1f} GiB of this machine's memory, room for "
            f"{tier.kv_cache_tokens} tokens in each cache"
        )
    if tier.utilisation is not None:
        watts = "" if tier.power_w is None else f", {tier.power_w:.0f} W"
        yield (
            f"{tier.name}: {tier.utilisation:.0%} of what was measured to be carried, "
            f"{tier.latency_s:.3g} s an answer{watts} (measured)"
        )


def _tier_table(tiers: tuple[PlannedTier, ...]) -> Table:
    def replicas(tier: PlannedTier) -> str:
        stages = f" PP {tier.pipeline_parallel_size}" if tier.pipeline_parallel_size > 1 else ""
        return f"{tier.replicas} x TP {tier.tensor_parallel_size}{stages}"

    return Table.of(
        tiers,
        "plan",
        {
            "tier": lambda tier: tier.name,
            "replicas": replicas,
            "GiB/GPU": lambda tier: f"{tier.memory_gib_per_gpu:.1f}",
            "load": lambda tier: f"{tier.utilisation:.0%}",
            "W": lambda tier: f"{tier.power_w:.0f}",
            "TTFT s": lambda tier: f"{tier.ttft_s:.3g}",
            "ITL ms": lambda tier: _ms(tier.itl_s),
            "grade": lambda tier: str(tier.grade),
        },
    )


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{s_to_ms(seconds):.3g}"


def _total_line(report: PlanReport) -> str:
    parked = f"{report.parked_power_w:.0f} W of it for {report.gpus_parked} parked"
    return (
        f"{report.power_w_total:.0f} W in all, "
        f"{parked if report.gpus_parked else 'no GPU is parked'}; "
        f"{report.gpus_used} of {report.gpus} GPUs used; at {report.requests_per_s:.4g} requests/s "
        f"{report.energy_j_per_request:.4g} J and {report.latency_s:.3g} s a request"
    )


def _place_lines(tiers: tuple[PlannedTier, ...]) -> Iterator[str]:
    for tier in tiers:
        shared = (
            f", shared with {', '.join(tier.shares_gpus_with)}" if tier.shares_gpus_with else ""
        )
        for name, places in groupby(tier.placements, key=lambda place: place.replica):
            where = ", ".join(
                f"{place.node} GPU {','.join(map(str, place.gpus))}" for place in places
            )
            yield f"{name}: {tier.gpu_type} at {where}{shared}"


def _percentile_lines(tiers: tuple[PlannedTier, ...]) -> Iterator[str]:
    for tier in tiers:
        yield (
            f"95 % of {tier.name}: first token in {tier.p95_ttft_s:.3g} s, the next in "
            f"{_ms(tier.p95_itl_s)} ms, all in {tier.p95_latency_s:.3g} s"
        )


def _explanation_parts(
    explanation: PlanExplanation, head_room: float | None
) -> Iterator[Table | str]:
    heads = ("load", "requests/s", "GPUs", "W", "J a request", "plan")
    rows = tuple(
        (f"{gear.level:g}", four_digits(gear.requests_per_s), *_gear_cells(gear))
        for gear in explanation.gears
    )
    yield Table(caption="load levels", header=heads, rows=rows, is_text=True)
    yield Table.of(
        explanation.profile_off,
        "profile off",
        {
            "if": lambda off: off.what,
            "W": lambda off: f"{off.power_w_total:.0f}",
            "fullest GPU": lambda off: f"{off.utilisation:.0%}",
            "a new plan's W": _best_w,
            "bounds": lambda off: "; ".join(off.broken) or "kept",
        },
        is_text=True,
    )
    if any(off.best_power_w_total is None for off in explanation.profile_off):
        yield f"nothing fits: no plan keeps {head_room:.0%} head-room there"


def _best_w(off: OffProfile) -> str:
    return "nothing fits" if off.best_power_w_total is None else f"{off.best_power_w_total:.0f}"


def _gear_cells(gear: PlannedGear) -> tuple[str, str, str, str]:
    if not gear.fits:
        return "-", "-", "-", "does not fit"
    return (
        str(gear.gpus_used),
        f"{gear.power_w_total:.0f}",
        f"{gear.energy_j_per_request:.4g}",
        ", ".join(gear.tiers),
    )
