"""A plan as a table for a person."""

from rich.table import Table

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.planner.plan import Placement, Plan


def plan_table(config: CascadeConfig, plan: Plan) -> Table:
    """Where every replica runs."""
    table = Table("replica", "model", "runs on", title="plan, as configured")
    models = {tier.name: tier.model for tier in config.tiers}
    for tier in plan.tiers:
        for endpoint in tier.endpoints:
            table.add_row(tier.tier, models[tier.tier], f"runs already at {endpoint}")
        for placement in tier.placements:
            table.add_row(placement.name, models[tier.tier], _place(placement))
    return table


def _place(placement: Placement) -> str:
    if placement.device == "gpu":
        share = placement.gpu_memory_share
        memory = f", {share:.0%} of its memory" if share is not None else ""
        return f"GPU {', '.join(placement.gpu_uuids)}{memory}"
    if placement.cpu_core_groups:
        groups = " | ".join(",".join(map(str, group)) for group in placement.cpu_core_groups)
        return f"CPU, ranks on cores {groups}"
    return f"CPU, {placement.cpu_threads} thread{'s' if placement.cpu_threads != 1 else ''}"
