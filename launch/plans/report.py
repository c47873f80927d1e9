"""Fill the plan's report from a search: its solution, or what is missing."""

from collections.abc import Sequence
from dataclasses import replace

from msgspec import structs

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.demand import Demand, TierDemand
from hybridserve_llm.planner.forecast import plan_of, planned_tiers
from hybridserve_llm.planner.report import (
    DemandedTier,
    GearReplicas,
    PlanDemand,
    PlanExplanation,
    PlannedGear,
    PlannedNode,
    PlanReport,
    RunnerUp,
)
from hybridserve_llm.planner.robustness import off_profiles
from hybridserve_llm.planner.search import Planner, Solution, described
from hybridserve_llm.planner.shortfall import shortfall
from hybridserve_llm.profiles.grades import worst_grade
from hybridserve_llm.units import GIB
from launch.plans.planning_demand import ASSUMED_OUTPUT_TOKENS, ASSUMED_PROMPT_TOKENS


def solved_report(
    config: CascadeConfig,
    solution: Solution,
    runners_up: Sequence[Solution],
    explanation: PlanExplanation | None,
) -> PlanReport:
    """Return the report of a cascade that fits, with its plan."""
    tiers = planned_tiers(solution)
    others = tuple(_runner_up(other) for other in runners_up)
    return structs.replace(
        _report(config, solution.cluster, solution.demand, _reason(solution, others)),
        fits=True,
        tiers=tiers,
        gpus_used=solution.n_gpus,
        gpus_parked=solution.cluster.n_gpus - solution.n_gpus,
        parked_power_w=solution.parked_power_w,
        power_w_total=solution.power_w,
        energy_j_per_request=solution.energy_j_per_request,
        latency_s=solution.latency_s,
        grade=worst_grade(tier.grade for tier in tiers if tier.grade),
        runners_up=others,
        explanation=explanation,
        plan=plan_of(solution, {tier.name: tier.endpoints for tier in config.tiers}),
    )


def unsolved_report(config: CascadeConfig, planner: Planner, demand: Demand) -> PlanReport:
    """Return the report of a cascade that does not fit, with what is missing."""
    missing = shortfall(planner, demand)
    return structs.replace(
        _report(config, planner.cluster, demand, missing.text), shortfall=missing
    )


def explanation_of(
    planner: Planner, solution: Solution, levels: Sequence[float]
) -> PlanExplanation:
    """Return the best plans at these multiples of the load, and the plan with wrong profiles."""
    demand = replace(solution.demand, objective="energy")
    gears = []
    for level in sorted(set(levels)):
        rate = demand.requests_per_s * level
        best = planner.best(replace(demand, requests_per_s=rate))
        gears.append(
            PlannedGear(level=level, requests_per_s=rate, fits=False)
            if best is None
            else _gear(level, best)
        )
    return PlanExplanation(gears=tuple(gears), profile_off=off_profiles(planner, solution))


def runner_up_line(other: RunnerUp, best_power_w: float) -> str:
    """Return another plan in words, with its cost compared to the one that was chosen."""
    n_gpus = f"{other.gpus_used} GPU{'s' if other.gpus_used != 1 else ''}"
    cost = f"{other.power_w_total - best_power_w:+.0f} W on {n_gpus}"
    return f"{', '.join(other.tiers)} for {cost}, {other.latency_s:.3g} s a request"


def _report(config: CascadeConfig, cluster: Cluster, demand: Demand, reason: str) -> PlanReport:
    """Return all that a search reports whether the cascade fits or not."""
    return PlanReport(
        fits=False,
        searched=True,
        reason=reason,
        objective=demand.objective,
        requests_per_s=demand.requests_per_s,
        head_room=demand.head_room,
        slo=demand.slo,
        gpus=cluster.n_gpus,
        cluster=tuple(
            PlannedNode(
                node=node.name,
                gpu_type=node.gpu_type.name,
                gpus=len(node.gpus),
                memory_gib_per_gpu=node.memory_bytes / GIB,
                linked_size=node.linked_size,
            )
            for node in cluster.nodes
        ),
        demand=_demand(config, demand.tiers),
    )


def _reason(solution: Solution, runners_up: Sequence[RunnerUp]) -> str:
    """Return in one sentence why this plan was chosen."""
    demand = solution.demand
    load = f"{demand.requests_per_s:.4g} requests/s with {demand.head_room:.0%} head-room"
    if demand.objective == "throughput":
        return f"the largest load that fits, {load}, for {solution.power_w:.0f} W"
    won = f"the fewest watts of all plans that carry {load}, {solution.power_w:.0f} W"
    if not runners_up:
        return f"{won}; it fits in no other shape"
    return f"{won}; next is {runner_up_line(runners_up[0], solution.power_w)}"


def _runner_up(other: Solution) -> RunnerUp:
    return RunnerUp(
        tiers=tuple(described(other)),
        gpus_used=other.n_gpus,
        power_w_total=other.power_w,
        latency_s=other.latency_s,
    )


def _gear(level: float, best: Solution) -> PlannedGear:
    names = [tier.name for tier in best.demand.tiers]
    return PlannedGear(
        level=level,
        requests_per_s=best.demand.requests_per_s,
        fits=True,
        gpus_used=best.n_gpus,
        power_w_total=best.power_w,
        energy_j_per_request=best.energy_j_per_request,
        tiers=tuple(described(best)),
        replicas=tuple(
            GearReplicas(
                tier=names[replica.tier],
                gpu_type=choice.arrangement.gpu_type.name,
                replicas=choice.replicas,
                tensor_parallel_size=replica.shape.tensor_parallel_size,
                pipeline_parallel_size=replica.shape.pipeline_parallel_size,
                max_num_seqs=replica.shape.max_num_seqs,
                memory_gib_per_gpu=replica.memory_bytes / GIB,
                shares_gpus_with=tuple(
                    names[other.tier]
                    for other in choice.arrangement.replicas
                    if other is not replica
                ),
            )
            for choice in best.choices
            for replica in choice.arrangement.replicas
        ),
    )


def _demand(config: CascadeConfig, tiers: Sequence[TierDemand]) -> PlanDemand:
    """Return all that the search knew of the tiers, so that a simulation needs no other file."""
    workload = config.planner.workload
    prompt, output = workload.prompt_tokens, workload.output_tokens
    lengths = {tier.name: tier.engine.max_model_len for tier in config.tiers}
    return PlanDemand(
        prompt_tokens=ASSUMED_PROMPT_TOKENS if prompt is None else prompt,
        output_tokens=ASSUMED_OUTPUT_TOKENS if output is None else output,
        tiers=tuple(
            DemandedTier(
                name=tier.name,
                reach=tier.reach,
                prompt_tokens=tier.prompt_tokens,
                output_tokens=tier.output_tokens,
                max_model_len=lengths[tier.name],
                max_num_seqs=tier.max_num_seqs,
                gpu_memory_utilization=tier.memory_share,
                facts=tier.facts,
                profiles=tuple(tier.profiles),
            )
            for tier in tiers
        ),
    )
