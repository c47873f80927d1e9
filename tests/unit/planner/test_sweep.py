from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.planner.demand import Demand, Slo
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.planner.sweep import least_power_w
from hybridserve_llm.profiles.gpu_types import gpu_type

ALL = ("small", "medium", "giant")


def reaches(n: int) -> np.ndarray:
    """Falling shares; the first tier is asked by all."""
    drawn = np.random.default_rng(0).uniform(0, 1, (n, 3))
    falling = np.sort(drawn, axis=1)[:, ::-1].copy()
    falling[:, 0] = 1.0
    return falling


def one_by_one(planner: Planner, demand: Demand, shares: np.ndarray) -> list[float]:
    found = []
    for reach in shares:
        tiers = tuple(replace(t, reach=r) for t, r in zip(demand.tiers, reach, strict=True))
        best = planner.best(replace(demand, tiers=tiers))
        found.append(np.inf if best is None else best.power_w)
    return found


@pytest.mark.parametrize(("n_gpus", "requests_per_s"), [(16, 3.0), (16, 40.0), (8, 100.0), (2, 1)])
def test_the_sweep_equals_planning_one_by_one(
    planner: Callable[..., Planner],
    demand: Callable[..., Demand],
    n_gpus: int,
    requests_per_s: float,
) -> None:
    wish = demand(*ALL, requests_per_s=requests_per_s)
    shares = reaches(12)
    found = least_power_w(planner(n_gpus), wish, shares)
    assert found.tolist() == pytest.approx(one_by_one(planner(n_gpus), wish, shares))


def test_bounds_on_percentiles_are_kept_by_the_sweep(
    planner: Callable[..., Planner], demand: Callable[..., Demand]
) -> None:
    shares = reaches(4)
    bounded = demand(*ALL, requests_per_s=3.0, slo=Slo(p95_ttft_s=0.2, p95_itl_s=0.02))
    found = least_power_w(planner(16), bounded, shares)
    assert found.tolist() == pytest.approx(one_by_one(planner(16), bounded, shares))
    free = least_power_w(planner(16), replace(bounded, slo=Slo()), shares)
    assert (found > free).all()


def test_other_budgets_are_planned_one_by_one(
    planner: Callable[..., Planner], demand: Callable[..., Demand]
) -> None:
    shares = reaches(3)
    nodes = (
        *described_nodes("a", gpu_type("H100-80GB"), n_gpus=4),
        *described_nodes("b", gpu_type("L40S"), n_gpus=4),
    )
    two_types = replace(planner(1), cluster=Cluster(nodes=nodes))
    bounded = demand(*ALL, slo=Slo(latency_s=8.0))
    for plans, wish in ((two_types, demand(*ALL)), (planner(8), bounded)):
        found = least_power_w(plans, wish, shares)
        assert found.tolist() == pytest.approx(one_by_one(plans, wish, shares))
        assert np.isfinite(found).all()
