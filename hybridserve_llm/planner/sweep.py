"""The least power of many reaches at once: what thresholds cost, before one is chosen.

Each vector of thresholds sends other shares of requests to the tiers. All are planned together by a
dynamic program over GPUs, vectorised over vectors; `Planner.best` plans the one that is chosen.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hybridserve_llm.planner.arrangements import Arrangement, arrangements
from hybridserve_llm.planner.columns import (
    keeps_bounds,
    loads_of,
    most_replicas,
    pinned_replicas,
    tier_power_w,
)
from hybridserve_llm.planner.demand import Demand
from hybridserve_llm.planner.problem import FloatArray, IntArray
from hybridserve_llm.planner.search import Planner


def least_power_w(planner: Planner, demand: Demand, reaches: FloatArray) -> FloatArray:
    """Watts of the best plan for each of `reaches` [m, n_tiers]; inf where nothing fits, [m].

    Equal to `Planner.best` of each, one by one, which is what is done where the cluster has other
    budgets than its number of GPUs (several types, nodes that are no power of two) or the latency
    of whole requests is bounded. Else O(m * n_columns + m * n_gpus^2 * 3^n_tiers).
    """
    energy = replace(demand, objective="energy")
    if len(planner.cluster.budget_rows()) > 1 or demand.slo.latency_s is not None:
        return np.array([_one_by_one(planner, energy, reach) for reach in reaches])
    n_gpus = planner.cluster.n_gpus
    costs: dict[int, FloatArray] = {}
    for choice in arrangements(planner.cluster, demand.tiers, planner.tables):
        counts = _counts(planner, demand, choice)
        extra_w = _extra_power_w(energy, choice, counts, reaches)
        cost = costs.setdefault(choice.serves, np.full((len(reaches), n_gpus + 1), np.inf))
        gpus = counts * choice.n_gpus
        cost[:, gpus] = np.minimum(cost[:, gpus], extra_w)
    # GPUs that are left over are parked and counted already: "at most g" in place of "g".
    at_most = {serves: np.minimum.accumulate(cost, axis=1) for serves, cost in costs.items()}
    everything = (1 << len(demand.tiers)) - 1
    best = _over_subsets(at_most, everything, np.zeros((len(reaches), n_gpus + 1)))
    return best[:, -1] + planner.cluster.parked_w()


def _one_by_one(planner: Planner, demand: Demand, reach: Sequence[float]) -> float:
    tiers = tuple(
        replace(tier, reach=float(share)) for tier, share in zip(demand.tiers, reach, strict=True)
    )
    found = planner.best(replace(demand, tiers=tiers))
    return np.inf if found is None else found.power_w


def _counts(planner: Planner, demand: Demand, choice: Arrangement) -> IntArray:
    most = most_replicas(planner.cluster, choice)
    n_fixed = pinned_replicas(demand, choice)
    if n_fixed is None:
        return np.arange(1, most + 1, dtype=np.int64)
    return np.arange(n_fixed, n_fixed + (n_fixed <= most), dtype=np.int64)


def _extra_power_w(
    demand: Demand, choice: Arrangement, counts: IntArray, reaches: FloatArray
) -> FloatArray:
    """Watts beyond parking, [m, n_counts]; inf where head-room or bounds are not kept."""
    rates = [
        demand.requests_per_s * reaches[:, replica.tier, None] / counts
        for replica in choice.replicas
    ]
    loads = loads_of(choice, rates)
    watts = np.sum([tier_power_w(load.power_w, counts) for load in loads], axis=0)
    extra_w = watts - counts * choice.n_gpus * choice.gpu_type.idle_bare_w
    return np.where(keeps_bounds(demand, choice, loads), extra_w, np.inf)


def _over_subsets(costs: dict[int, FloatArray], everything: int, nothing: FloatArray) -> FloatArray:
    """The least cost of serving all tiers with at most g GPUs, [m, n_gpus + 1]."""
    best = {0: nothing}
    for served in range(1, everything + 1):
        found = np.full_like(nothing, np.inf)
        for block, cost in costs.items():
            rest = served & ~block
            # Each partition in one order only: the block that serves the last tier comes last.
            if block & ~served == 0 and block > rest:
                found = np.minimum(found, _min_plus(best[rest], cost))
        best[served] = found
    return best[everything]


def _min_plus(one: FloatArray, other: FloatArray) -> FloatArray:
    """`min over h of one[:, h] + other[:, g - h]` for every g: both together at most g GPUs."""
    n = one.shape[1]
    found = np.full_like(one, np.inf)
    for h in range(n):
        np.minimum(found[:, h:], one[:, h, None] + other[:, : n - h], out=found[:, h:])
    return found
