"""A plan for a person to read: figures in units, with their grades, at most 80 columns wide."""

from collections.abc import Iterator

from rich.box import SIMPLE_HEAD
from rich.table import Table

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.planner.forecast import Forecast, TierForecast
from hybridserve_llm.planner.outlook import TierOutlook
from hybridserve_llm.planner.search import described
from hybridserve_llm.units import GIB, s_to_ms
from launch.plans.plan_report import places_json, reason_of, runner_up_line
from launch.plans.plan_table import plan_table
from launch.plans.planning import Explanation, Gear, Planned, Searched


def plan_text(config: CascadeConfig, found: Planned) -> Iterator[Table | str]:
    """What `plan_json` says, as tables and lines."""
    searched = found.searched
    if searched is None:
        yield from _configured_parts(config, found)
        return
    if searched.forecast is not None:
        yield _tier_table(searched.forecast.tiers)
        yield _total_line(searched.forecast)
        yield from _place_lines(searched.forecast)
        if any(name.startswith("p95") for name, _ in searched.demand.slo.of_tiers):
            yield from _percentile_lines(searched.forecast)
        yield f"why: {reason_of(searched)}"
        for other in searched.runners_up[1:]:
            yield f"  or {runner_up_line(searched, other)}"
    for remark in searched.remarks:
        yield f"note: {remark}"
    for assumption in searched.assumptions:
        yield f"assumed: {assumption}"
    if searched.explanation is not None:
        yield from _explanation_parts(searched, searched.explanation)


def _configured_parts(config: CascadeConfig, found: Planned) -> Iterator[Table | str]:
    yield plan_table(config, found.checked())
    configured = found.configured
    if configured is None:
        return
    for tier in configured.tiers:
        yield from _outlook_lines(tier)
    yield f"why: {configured.reason}"
    for remark in configured.remarks:
        yield f"note: {remark}"
    if not any(tier.tier.profiles for tier in configured.tiers):
        yield "unknown: load, watts and times; no tier names a profile (hs-profile makes them)"
        return
    for assumption in configured.assumptions:
        yield f"assumed: {assumption}"
    for reason in configured.unknown():
        yield f"unknown: {reason}"


def _outlook_lines(found: TierOutlook) -> Iterator[str]:
    """What is known of a tier, in at most two lines."""
    name, load = found.tier.plan.tier, found.load
    if found.host_memory_bytes is not None:
        yield (
            f"{name}: {found.host_memory_bytes / GIB:.1f} GiB of this machine's memory, room for "
            f"{found.kv_tokens} tokens in each cache"
        )
    if load.utilisation is not None:
        watts = "" if found.power_w is None else f", {found.power_w:.0f} W"
        yield (
            f"{name}: {load.utilisation:.0%} of what was measured to be carried, "
            f"{load.latency_s:.3g} s an answer{watts} (measured)"
        )


def _tier_table(tiers: tuple[TierForecast, ...]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="plan")
    for name in ("tier", "replicas", "GiB/GPU", "load", "W", "TTFT s", "ITL ms", "grade"):
        is_text = name in {"tier", "replicas", "grade"}
        table.add_column(name, justify="left" if is_text else "right", no_wrap=name != "tier")
    for tier in tiers:
        stages = f" PP {tier.pipeline_parallel_size}" if tier.pipeline_parallel_size > 1 else ""
        table.add_row(
            tier.name,
            f"{tier.replicas} x TP {tier.tensor_parallel_size}{stages}",
            f"{tier.memory_bytes_per_gpu / GIB:.1f}",
            f"{tier.utilisation:.0%}",
            f"{tier.power_w:.0f}",
            f"{tier.ttft_s:.3g}",
            f"{s_to_ms(tier.itl_s):.3g}",
            tier.grade,
        )
    return table


def _total_line(found: Forecast) -> str:
    n_all = found.n_gpus + found.n_gpus_parked
    parked = f"{found.parked_power_w:.0f} W of it for {found.n_gpus_parked} parked"
    return (
        f"{found.power_w:.0f} W in all, {parked if found.n_gpus_parked else 'no GPU is parked'}; "
        f"{found.n_gpus} of {n_all} GPUs used; at {found.requests_per_s:.4g} requests/s "
        f"{found.energy_j_per_request:.4g} J and {found.latency_s:.3g} s a request"
    )


def _place_lines(found: Forecast) -> Iterator[str]:
    for tier in found.tiers:
        for place in tier.places:
            where = ", ".join(
                f"{entry['node']} GPU {','.join(map(str, entry['gpus']))}"
                for entry in places_json(place)
            )
            shared = f", shared with {', '.join(tier.shares_with)}" if tier.shares_with else ""
            yield f"{place.name}: {tier.gpu_type} at {where}{shared}"


def _percentile_lines(found: Forecast) -> Iterator[str]:
    for tier in found.tiers:
        yield (
            f"95 % of {tier.name}: first token in {tier.p95_ttft_s:.3g} s, the next in "
            f"{s_to_ms(tier.p95_itl_s):.3g} ms, all in {tier.p95_latency_s:.3g} s"
        )


def _explanation_parts(searched: Searched, explanation: Explanation) -> Iterator[Table | str]:
    heads = ("load", "requests/s", "GPUs", "W", "J a request", "plan")
    table = Table(*heads, box=SIMPLE_HEAD, pad_edge=False, title="load levels")
    for gear in explanation.gears:
        table.add_row(f"{gear.level:g}", f"{gear.requests_per_s:.4g}", *_gear_cells(gear))
    yield table
    off_heads = ("if", "W", "fullest GPU", "a new plan's W", "bounds")
    off_table = Table(*off_heads, box=SIMPLE_HEAD, pad_edge=False, title="profile off")
    for off in explanation.off_profiles:
        best = "nothing fits" if off.best_power_w is None else f"{off.best_power_w:.0f}"
        bounds = "; ".join(off.broken) or "kept"
        off_table.add_row(off.what, f"{off.power_w:.0f}", f"{off.utilisation:.0%}", best, bounds)
    yield off_table
    if any(off.best_power_w is None for off in explanation.off_profiles):
        yield f"nothing fits: no plan keeps {searched.demand.head_room:.0%} head-room there"


def _gear_cells(gear: Gear) -> tuple[str, str, str, str]:
    found = gear.solution
    if found is None:
        return "-", "-", "-", "does not fit"
    return (
        str(found.n_gpus),
        f"{found.power_w:.0f}",
        f"{found.energy_j_per_request:.4g}",
        ", ".join(described(found)),
    )
