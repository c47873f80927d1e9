"""The report of a plan that was not searched: the keys of a searched one, null where unknown."""

from typing import Any

from hybridserve_llm.planner.outlook import TierOutlook
from hybridserve_llm.planner.shortfall import Shortfall
from hybridserve_llm.units import GIB
from launch.plans.configured import Configured


def configured_report(found: Configured) -> dict[str, Any]:
    """All keys but `schema` and `plan`."""
    fits = found.plan is not None
    grades = {tier.grade for tier in found.tiers}
    n_gpus = len(found.hardware.gpus)
    return {
        "fits": fits,
        "searched": False,
        "reason": found.reason,
        "objective": None,
        "requests_per_s": found.requests_per_s,
        "head_room": None,
        "slo": None,
        "tiers": [_tier_json(tier) for tier in found.tiers] if fits else [],
        "gpus": n_gpus,
        "gpus_used": found.n_gpus_used if fits else None,
        "gpus_parked": n_gpus - found.n_gpus_used if fits else None,
        "parked_power_w": found.parked_power_w if fits else None,
        "power_w_total": found.power_w if fits else None,
        "energy_j_per_request": _energy_j(found) if fits else None,
        "latency_s": found.latency_s if fits else None,
        "grade": "measured" if grades == {"measured"} else None,
        "unknown": list(found.unknown()) if fits else [],
        "assumptions": list(found.assumptions),
        "remarks": list(found.remarks),
        "cluster": _cluster_json(found),
        "shortfall": shortfall_json(found.shortfall),
        "runners_up": [],
        "explanation": None,
    }


def shortfall_json(lack: Shortfall | None) -> dict[str, Any] | None:
    """What is missing; None where it fits."""
    if lack is None:
        return None
    missing = lack.missing_memory_bytes
    return {
        "reason": lack.reason,
        "missing_memory_gib": None if missing is None else missing / GIB,
        "missing_gpus": lack.missing_gpus,
        "changes": list(lack.changes),
    }


def _tier_json(found: TierOutlook) -> dict[str, Any]:
    tier, load, place = found.tier, found.load, found.tier.placement
    return {
        "name": tier.plan.tier,
        "device": place.device,
        "gpu_type": found.gpu_type,
        "tensor_parallel_size": place.tensor_parallel_size,
        "pipeline_parallel_size": place.pipeline_parallel_size,
        "replicas": len(found.places),
        "max_num_seqs": place.max_num_seqs or tier.max_num_seqs,
        "placements": [
            {"replica": name, "node": place.node, "gpus": list(gpus)} for name, gpus in found.places
        ],
        "shares_gpus_with": list(found.shares_with),
        "gpu_memory_utilization": None
        if place.device == "cpu"
        else place.gpu_memory_share or tier.memory_share,
        "memory_gib_per_gpu": _gib(found.memory_bytes_per_gpu),
        "weight_gib_per_gpu": _gib(found.weight_bytes_per_gpu),
        "kv_cache_gib_per_gpu": _gib(found.kv_bytes_per_gpu),
        "kv_cache_tokens": found.kv_tokens,
        "host_memory_gib": _gib(found.host_memory_bytes),
        "reach": tier.reach,
        "requests_per_s": tier.requests_per_s,
        "utilisation": load.utilisation,
        "power_w": found.power_w,
        "ttft_s": load.ttft_s,
        "itl_s": load.itl_s,
        "latency_s": load.latency_s,
        # A profile holds means.
        "p95_ttft_s": None,
        "p95_itl_s": None,
        "p95_latency_s": None,
        "grade": found.grade,
    }


def _cluster_json(found: Configured) -> list[dict[str, Any]]:
    """One entry for each kind of GPU that is there."""
    gpus = found.hardware.gpus
    return [
        {
            "node": "localhost",
            "gpu_type": name,
            "gpus": sum(gpu.name == name for gpu in gpus),
            "memory_gib_per_gpu": min(gpu.memory_bytes for gpu in gpus if gpu.name == name) / GIB,
            "linked_size": None,
        }
        for name in dict.fromkeys(gpu.name for gpu in gpus)
    ]


def _energy_j(found: Configured) -> float | None:
    watts = found.power_w
    return None if watts is None or not found.tiers else watts / found.requests_per_s


def _gib(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else n_bytes / GIB
