"""A forecast as a plan: what the launcher carries out."""

from collections.abc import Mapping, Sequence

from hybridserve_llm.planner.forecast import Forecast, ReplicaPlace, TierForecast
from hybridserve_llm.planner.plan import Placement, Plan, TierPlan


def plan_of(forecast: Forecast, endpoints: Mapping[str, Sequence[str]]) -> Plan:
    """The plan for all tiers, cheapest first.

    Args:
        forecast: Of the tiers that are started.
        endpoints: Every tier of the cascade in order, with the URLs where it runs already; none
            for a tier of `forecast`.
    """
    placed = {tier.name: tier for tier in forecast.tiers}
    plan = Plan(
        tiers=tuple(
            TierPlan(tier=name, endpoints=tuple(urls))
            if urls
            else TierPlan(
                tier=name,
                placements=tuple(_placement(placed[name], place) for place in placed[name].places),
            )
            for name, urls in endpoints.items()
        )
    )
    plan.check()
    return plan


def _placement(tier: TierForecast, place: ReplicaPlace) -> Placement:
    nodes = dict.fromkeys(stage.node.name for stage in place.stages)
    return Placement(
        name=place.name,
        device="gpu",
        node="+".join(nodes),
        tensor_parallel_size=tier.tensor_parallel_size,
        pipeline_parallel_size=tier.pipeline_parallel_size,
        gpu_uuids=tuple(gpu for stage in place.stages for gpu in stage.gpu_ids),
        gpu_memory_share=tier.memory_share,
        max_num_seqs=tier.max_num_seqs,
    )
