"""A plan's report for a program: one JSON object, whether it was searched or not."""

from typing import Any

import orjson

from hybridserve_llm.planner.forecast import ReplicaPlace, TierForecast
from hybridserve_llm.planner.search import Solution, described
from hybridserve_llm.units import GIB
from launch.plans.configured_report import configured_report, shortfall_json
from launch.plans.demand_report import demand_json
from launch.plans.planning import Explanation, Planned, Searched

_SCHEMA = "hybridserve-plan-report/1"
_DIGITS = 6


def plan_json(found: Planned) -> str:
    """The report, whether the cascade fits or not; docs/planner.md has its keys, null is unknown.

    Raises:
        ValueError: `found` was neither searched nor placed as configured.
    """
    if found.searched is not None:
        report = _searched_report(found.searched)
    elif found.configured is not None:
        report = configured_report(found.configured)
    else:
        raise ValueError("a plan is either searched or as configured")
    plan = None if found.plan is None else orjson.loads(found.plan.to_json())
    # As it was given, not rounded: a program that goes on with it must see what the planner saw.
    demand = None if found.searched is None else demand_json(found.searched)
    report = {"schema": _SCHEMA, **_rounded(report), "demand": demand, "plan": plan}
    return orjson.dumps(report, option=orjson.OPT_INDENT_2).decode() + "\n"


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
    return f"{won}; next is {runner_up_line(searched, searched.runners_up[0])}"


def runner_up_line(searched: Searched, other: Solution) -> str:
    """Another solution in words, with what it costs beside the one that won."""
    more_w = other.power_w - (searched.solution.power_w if searched.solution else 0.0)
    n_gpus = f"{other.n_gpus} GPU{'s' if other.n_gpus != 1 else ''}"
    cost = f"{more_w:+.0f} W on {n_gpus}, {other.latency_s:.3g} s a request"
    return f"{', '.join(described(other))} for {cost}"


def _searched_report(searched: Searched) -> dict[str, Any]:
    found, demand = searched.forecast, searched.demand
    return {
        "fits": found is not None,
        "searched": True,
        "reason": reason_of(searched),
        "objective": demand.objective,
        "requests_per_s": demand.requests_per_s,
        "head_room": demand.head_room,
        "slo": {
            "ttft_s": demand.slo.ttft_s,
            "itl_s": demand.slo.itl_s,
            "latency_s": demand.slo.latency_s,
            "p95_ttft_s": demand.slo.p95_ttft_s,
            "p95_itl_s": demand.slo.p95_itl_s,
            "p95_latency_s": demand.slo.p95_latency_s,
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
        "unknown": [],
        "assumptions": list(searched.assumptions),
        "remarks": list(searched.remarks),
        "cluster": [
            {
                "node": node.name,
                "gpu_type": node.gpu_type.name,
                "gpus": len(node.gpus),
                "memory_gib_per_gpu": node.memory_bytes / GIB,
                "linked_size": node.linked_size,
            }
            for node in searched.cluster.nodes
        ],
        "shortfall": shortfall_json(searched.shortfall),
        "runners_up": [_runner_up_json(other) for other in searched.runners_up],
        "explanation": None
        if searched.explanation is None
        else _explanation_json(searched.explanation),
    }


def _tier_json(tier: TierForecast) -> dict[str, Any]:
    return {
        "name": tier.name,
        "device": "gpu",
        "gpu_type": tier.gpu_type,
        "tensor_parallel_size": tier.tensor_parallel_size,
        "pipeline_parallel_size": tier.pipeline_parallel_size,
        "replicas": tier.replicas,
        "max_num_seqs": tier.max_num_seqs,
        "placements": [entry for place in tier.places for entry in places_json(place)],
        "shares_gpus_with": list(tier.shares_with),
        "gpu_memory_utilization": tier.memory_share,
        "memory_gib_per_gpu": tier.memory_bytes_per_gpu / GIB,
        "weight_gib_per_gpu": tier.weight_bytes_per_gpu / GIB,
        "kv_cache_gib_per_gpu": tier.kv_bytes_per_gpu / GIB,
        "kv_cache_tokens": tier.kv_tokens,
        "host_memory_gib": None,
        "reach": tier.reach,
        "requests_per_s": tier.requests_per_s,
        "utilisation": tier.utilisation,
        "power_w": tier.power_w,
        "ttft_s": tier.ttft_s,
        "itl_s": tier.itl_s,
        "latency_s": tier.latency_s,
        "p95_ttft_s": tier.p95_ttft_s,
        "p95_itl_s": tier.p95_itl_s,
        "p95_latency_s": tier.p95_latency_s,
        "grade": tier.grade,
    }


def places_json(place: ReplicaPlace) -> list[dict[str, Any]]:
    """One entry for each node that the replica has GPUs on: its name, the node, numbers of GPUs."""
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
                "replicas": [] if gear.solution is None else _gear_replicas(gear.solution),
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


def _gear_replicas(solution: Solution) -> list[dict[str, Any]]:
    """Every tier's shape and number, for programs to read."""
    names = [tier.name for tier in solution.demand.tiers]
    return [
        {
            "tier": names[replica.tier],
            "gpu_type": choice.arrangement.gpu_type.name,
            "replicas": choice.replicas,
            "tensor_parallel_size": replica.shape.tensor_parallel_size,
            "pipeline_parallel_size": replica.shape.pipeline_parallel_size,
            "max_num_seqs": replica.shape.max_num_seqs,
            "memory_gib_per_gpu": replica.memory_bytes / GIB,
            "shares_gpus_with": [
                names[other.tier] for other in choice.arrangement.replicas if other is not replica
            ],
        }
        for choice in solution.choices
        for replica in choice.arrangement.replicas
    ]


def _rounded(value: Any) -> Any:
    """Floats to a millionth of their unit, so that runs compare byte by byte."""
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return value
