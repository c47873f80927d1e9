"""A plan for a person to read and for a program to parse: figures in units, with their grades."""

from collections.abc import Iterator
from typing import Any

import orjson
from rich.box import SIMPLE_HEAD
from rich.table import Table

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.planner.forecast import Forecast, ReplicaPlace, TierForecast
from hybridserve_llm.planner.search import Solution, described
from hybridserve_llm.units import GIB, s_to_ms
from launch.plan_table import plan_table
from launch.planning import Explanation, Gear, Planned, Searched

_SCHEMA = "hybridserve-plan-report/1"
_DIGITS = 6


def plan_json(found: Planned) -> str:
    """A searched plan's report, whether it fits or not; the plan itself where nothing was searched.

    Keys are described in docs/planner.md. What is not known is null.
    """
    searched = found.searched
    if searched is None:
        return found.checked().to_json()
    plan = None if found.plan is None else orjson.loads(found.plan.to_json())
    report = {**_report(searched), "plan": plan}
    return orjson.dumps(_rounded(report), option=orjson.OPT_INDENT_2).decode() + "\n"


def plan_text(config: CascadeConfig, found: Planned) -> Iterator[Table | str]:
    """The same as tables and lines of at most 80 columns."""
    searched = found.searched
    if searched is None:
        yield plan_table(config, found.checked())
        return
    if searched.forecast is not None:
        yield _tier_table(searched.forecast.tiers)
        yield _total_line(searched.forecast)
        yield from _place_lines(searched.forecast)
        yield f"why: {reason_of(searched)}"
        for other in searched.runners_up[1:]:
            yield f"  or {_runner_up_line(searched, other)}"
    for remark in searched.remarks:
        yield f"note: {remark}"
    for assumption in searched.assumptions:
        yield f"assumed: {assumption}"
    if searched.explanation is not None:
        yield from _explanation_parts(searched, searched.explanation)


def reason_of(searched: Searched) -> str:
    """Why this plan, or why none, in one sentence."""
    if searched.shortfall is not None:
        return searched.shortfall.text
    solution = searched.solution
    if solution is None:
        raise ValueError("a search ends in a solution or a shortfall")
    demand = solution.demand
    load = f"{demand.requests_per_s:.4g} requests/s with {demand.head_room:.0%} head-room"
    if demand.objective == "throughput":
        return f"the largest load that fits, {load}, for {solution.power_w:.0f} W"
    won = f"the fewest watts of all plans that carry {load}, {solution.power_w:.0f} W"
    if not searched.runners_up:
        return f"{won}; in no other shape does it fit"
    return f"{won}; next is {_runner_up_line(searched, searched.runners_up[0])}"


def _runner_up_line(searched: Searched, other: Solution) -> str:
    more_w = other.power_w - (searched.solution.power_w if searched.solution else 0.0)
    n_gpus = f"{other.n_gpus} GPU{'s' if other.n_gpus != 1 else ''}"
    cost = f"{more_w:+.0f} W on {n_gpus}, {other.latency_s:.3g} s a request"
    return f"{', '.join(described(other))} for {cost}"


def _report(searched: Searched) -> dict[str, Any]:
    found, demand = searched.forecast, searched.demand
    lack = searched.shortfall
    return {
        "schema": _SCHEMA,
        "fits": found is not None,
        "reason": reason_of(searched),
        "objective": demand.objective,
        "requests_per_s": demand.requests_per_s,
        "head_room": demand.head_room,
        "slo": {
            "ttft_s": demand.slo.ttft_s,
            "itl_s": demand.slo.itl_s,
            "latency_s": demand.slo.latency_s,
        },
        "tiers": [] if found is None else [_tier_json(tier) for tier in found.tiers],
        "gpus": searched.cluster.n_gpus,
        "gpus_used": None if found is None else found.n_gpus,
        "gpus_parked": None if found is None else found.n_gpus_parked,
        "parked_power_w": None if found is None else found.parked_power_w,
        "power_w_total": None if found is None else found.power_w,
        "energy_j_per_request": None if found is None else found.energy_j_per_request,
        "latency_s": None if found is None else found.latency_s,
        "grade": None if found is None else found.grade,
        "assumptions": list(searched.assumptions),
        "remarks": list(searched.remarks),
        "cluster": [
            {
                "node": node.name,
                "gpu_type": node.gpu_type.name,
                "gpus": len(node.gpus),
                "memory_gib_per_gpu": node.memory_bytes / GIB,
            }
            for node in searched.cluster.nodes
        ],
        "shortfall": None
        if lack is None
        else {
            "reason": lack.reason,
            "missing_memory_gib": None
            if lack.missing_memory_bytes is None
            else lack.missing_memory_bytes / GIB,
            "missing_gpus": lack.missing_gpus,
            "changes": list(lack.changes),
        },
        "runners_up": [_runner_up_json(other) for other in searched.runners_up],
        "explanation": None
        if searched.explanation is None
        else _explanation_json(searched.explanation),
    }


def _tier_json(tier: TierForecast) -> dict[str, Any]:
    return {
        "name": tier.name,
        "gpu_type": tier.gpu_type,
        "tensor_parallel_size": tier.tensor_parallel_size,
        "pipeline_parallel_size": tier.pipeline_parallel_size,
        "replicas": tier.replicas,
        "max_num_seqs": tier.max_num_seqs,
        "placements": [entry for place in tier.places for entry in _places_json(place)],
        "shares_gpus_with": list(tier.shares_with),
        "gpu_memory_utilization": tier.memory_share,
        "memory_gib_per_gpu": tier.memory_bytes_per_gpu / GIB,
        "weight_gib_per_gpu": tier.weight_bytes_per_gpu / GIB,
        "kv_cache_gib_per_gpu": tier.kv_bytes_per_gpu / GIB,
        "kv_cache_tokens": tier.kv_tokens,
        "reach": tier.reach,
        "requests_per_s": tier.requests_per_s,
        "utilisation": tier.utilisation,
        "power_w": tier.power_w,
        "ttft_s": tier.ttft_s,
        "itl_s": tier.itl_s,
        "latency_s": tier.latency_s,
        "grade": tier.grade,
    }


def _places_json(place: ReplicaPlace) -> list[dict[str, Any]]:
    """One entry for each node that the replica has GPUs on."""
    gpus: dict[str, list[int]] = {}
    for stage in place.stages:
        gpus.setdefault(stage.node.name, []).extend(stage.numbers)
    return [
        {"replica": place.name, "node": node, "gpus": indices} for node, indices in gpus.items()
    ]


def _runner_up_json(other: Solution) -> dict[str, Any]:
    return {
        "tiers": list(described(other)),
        "gpus_used": other.n_gpus,
        "power_w_total": other.power_w,
        "latency_s": other.latency_s,
    }


def _explanation_json(explanation: Explanation) -> dict[str, Any]:
    return {
        "gears": [
            {
                "level": gear.level,
                "requests_per_s": gear.requests_per_s,
                "fits": gear.solution is not None,
                "gpus_used": None if gear.solution is None else gear.solution.n_gpus,
                "power_w_total": None if gear.solution is None else gear.solution.power_w,
                "energy_j_per_request": None
                if gear.solution is None
                else gear.solution.energy_j_per_request,
                "tiers": [] if gear.solution is None else list(described(gear.solution)),
            }
            for gear in explanation.gears
        ],
        "profile_off": [
            {
                "what": off.what,
                "power_w_total": off.power_w,
                "utilisation": off.utilisation,
                "broken": list(off.broken),
                "best_power_w_total": off.best_power_w,
            }
            for off in explanation.off_profiles
        ],
    }


def _rounded(value: Any) -> Any:
    """Floats to a millionth of their unit, so that runs compare byte by byte."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value


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
                for entry in _places_json(place)
            )
            shared = f", shared with {', '.join(tier.shares_with)}" if tier.shares_with else ""
            yield f"{place.name}: {tier.gpu_type} at {where}{shared}"


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
