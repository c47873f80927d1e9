"""What a plan was searched for, tier by tier, for a program that goes on with it."""

from typing import Any

from hybridserve_llm.planner.demand import TierDemand
from launch.plans.planning import Searched
from launch.plans.planning_demand import ASSUMED_OUTPUT_TOKENS, ASSUMED_PROMPT_TOKENS


def demand_json(searched: Searched) -> dict[str, Any]:
    """All that the search knew of the tiers, and that their plan does not say.

    Lengths are in tokens; null is what nobody gave. Sizes of models and measurements stand in it
    whole, so that nothing but the report is needed to simulate the plan.
    """
    config = searched.config
    workload = config.planner.workload
    lengths = {tier.name: tier.engine.max_model_len for tier in config.tiers}
    return {
        "prompt_tokens": _given(workload.prompt_tokens, ASSUMED_PROMPT_TOKENS),
        "output_tokens": _given(workload.output_tokens, ASSUMED_OUTPUT_TOKENS),
        "tiers": [_tier_json(tier, lengths[tier.name]) for tier in searched.demand.tiers],
    }


def _given(value: float | None, assumed: float) -> float:
    return assumed if value is None else value


def _tier_json(tier: TierDemand, max_model_len: int | None) -> dict[str, Any]:
    return {
        "name": tier.name,
        "reach": tier.reach,
        "prompt_tokens": tier.prompt_tokens,
        "output_tokens": tier.output_tokens,
        "max_model_len": max_model_len,
        "max_num_seqs": tier.max_num_seqs,
        "gpu_memory_utilization": tier.memory_share,
        "facts": tier.facts.model_dump(mode="json"),
        "profiles": [profile.model_dump(mode="json", by_alias=True) for profile in tier.profiles],
    }
