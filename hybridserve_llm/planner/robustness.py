"""Compute the figures of a plan in worlds where the profiles it was made with are wrong."""

from dataclasses import replace

from hybridserve_llm.planner.columns import latency_of_request, tier_power_w
from hybridserve_llm.planner.forecast import loads_at
from hybridserve_llm.planner.replica_table import Tables
from hybridserve_llm.planner.report import OffProfile
from hybridserve_llm.planner.search import Planner, Solution

PROFILE_ERROR = 0.2
"""The error of profiles that is assumed, as a share of time and of power above idle."""


def off_profiles(planner: Planner, solution: Solution) -> tuple[OffProfile, ...]:
    """Return the plan with steps a fifth slower and quicker, and a fifth more and less power."""
    percent = round(100 * PROFILE_ERROR)
    worlds = (
        (f"steps {percent} % slower", 1 + PROFILE_ERROR, 1.0),
        (f"steps {percent} % quicker", 1 - PROFILE_ERROR, 1.0),
        (f"power {percent} % higher", 1.0, 1 + PROFILE_ERROR),
        (f"power {percent} % lower", 1.0, 1 - PROFILE_ERROR),
    )
    return tuple(
        _in_world(planner, solution, what, step_factor=step, power_factor=power)
        for what, step, power in worlds
    )


def _in_world(
    planner: Planner, solution: Solution, what: str, *, step_factor: float, power_factor: float
) -> OffProfile:
    changed = replace(
        solution,
        choices=tuple(
            replace(
                choice,
                arrangement=replace(
                    choice.arrangement,
                    replicas=tuple(
                        replace(
                            replica,
                            table=replica.table.perturbed(
                                step_factor=step_factor, power_factor=power_factor
                            ),
                        )
                        for replica in choice.arrangement.replicas
                    ),
                ),
            )
            for choice in solution.choices
        ),
    )
    tables = Tables(step_factor=step_factor, power_factor=power_factor)
    demand = replace(solution.demand, objective="energy")
    best = replace(planner, tables=tables).best(demand)
    power_w, utilisation, broken = _measured(changed)
    return OffProfile(
        what=what,
        power_w_total=power_w,
        utilisation=utilisation,
        broken=broken,
        best_power_w_total=None if best is None else best.power_w,
    )


def _measured(solution: Solution) -> tuple[float, float, tuple[str, ...]]:
    """Return watts, utilisation of the fullest GPUs, and broken bounds."""
    power_w, fullest, latency_s = solution.parked_power_w, 0.0, 0.0
    broken = []
    slo = solution.demand.slo
    for choice in solution.choices:
        loads = loads_at(solution, choice)
        power_w += sum(float(tier_power_w(load.power_w, choice.replicas)[0]) for load in loads)
        fullest = max(fullest, sum(float(load.utilisation[0]) for load in loads))
        latency_s += float(latency_of_request(solution.demand, choice.arrangement, loads)[0])
        for replica, load in zip(choice.arrangement.replicas, loads, strict=True):
            name = solution.demand.tiers[replica.tier].name
            if load.utilisation[0] >= 1:
                broken.append(f"{name} does not keep up")
            for key, bound in slo.of_tiers:
                reached = float(load.time_s(key)[0])
                if reached > bound:
                    broken.append(f"{name}: {key} {reached:.3g} s, bound {bound:g} s")
    if slo.latency_s is not None and latency_s > slo.latency_s:
        broken.append(f"latency_s {latency_s:.3g} s, bound {slo.latency_s:g} s")
    return power_w, fullest, tuple(broken)
