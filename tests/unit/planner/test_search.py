"""Whole plans: what they keep, and how they change with load, bounds and GPUs."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.planner.demand import Demand
from hybridserve_llm.planner.forecast import plan_of, planned_tiers
from hybridserve_llm.planner.plan import Plan
from hybridserve_llm.planner.search import RATE_PRECISION, Planner, Solution, described
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.units import GIB

ALL = ("small", "medium", "giant")
MakeDemand = Callable[..., Demand]
MakePlanner = Callable[..., Planner]


def check_is_consistent(solution: Solution, planner: Planner) -> None:
    """Holds a plan to what every plan must keep."""
    cluster = planner.cluster
    tiers = planned_tiers(solution)
    placements = {
        placement.name: placement
        for placement in plan_of(solution, {tier.name: () for tier in tiers}).placements
    }
    taken: dict[tuple[str, int], list[tuple[str, float]]] = {}
    for tier in tiers:
        n_gpus = tier.tensor_parallel_size * tier.pipeline_parallel_size
        names = {place.replica for place in tier.placements}
        assert len(names) == tier.replicas
        for name in names:
            here = [place for place in tier.placements if place.replica == name]
            gpus = [(place.node, gpu) for place in here for gpu in place.gpus]
            assert len(set(gpus)) == len(gpus) == n_gpus
            assert all(len(place.gpus) % tier.tensor_parallel_size == 0 for place in here)
            # The report and the plan name the same GPUs.
            assert placements[name].gpu_uuids == tuple(f"{node}/{gpu}" for node, gpu in gpus)
            for gpu in gpus:
                taken.setdefault(gpu, []).append((name, tier.memory_gib_per_gpu or 0.0))
        assert (tier.kv_cache_tokens or 0) >= 4096
        assert (tier.utilisation or 0) <= 0.8
    memory = {node.name: node.memory_bytes / GIB for node in cluster.nodes}
    for (node, _), here_gib in taken.items():
        assert sum(gib for _, gib in here_gib) <= 0.9 * memory[node] + 1e-6
        assert len({name for name, _ in here_gib}) == len(here_gib)
    assert len(taken) == solution.n_gpus
    assert solution.power_w == pytest.approx(
        sum(tier.power_w or 0.0 for tier in tiers) + solution.parked_power_w
    )
    assert solution.latency_s == pytest.approx(
        sum(tier.reach * (tier.latency_s or 0.0) for tier in tiers)
    )


@settings(max_examples=40)
@given(
    n_gpus=st.integers(1, 40),
    requests_per_s=st.floats(0.01, 100),
    names=st.sampled_from([ALL, ALL[:2], ALL[1:]]),
)
def test_every_plan_fits_its_gpus_and_adds_up(
    planner: MakePlanner, demand: MakeDemand, n_gpus: int, requests_per_s: float, names: list[str]
) -> None:
    plans = planner(n_gpus)
    solution = plans.best(demand(*names, requests_per_s=requests_per_s))
    if solution is None:
        return
    check_is_consistent(solution, plans)
    plan = plan_of(solution, dict.fromkeys(names, ()))
    assert Plan.from_json(plan.to_json()) == plan


def test_small_tiers_share_a_gpu_at_little_load_and_part_at_more(
    planner: MakePlanner, demand: MakeDemand
) -> None:
    little = planner(8).best(demand(*ALL, requests_per_s=0.1))
    assert little is not None
    assert any(choice.arrangement.is_shared for choice in little.choices)
    much = planner(64).best(demand(*ALL, requests_per_s=300.0))
    assert much is not None
    assert not any(choice.arrangement.is_shared for choice in much.choices)


def test_what_the_operator_pins_is_kept(
    planner: MakePlanner, demand: MakeDemand, tier: Callable[..., object]
) -> None:
    pinned = demand(
        tier("small", replicas=3),
        tier("medium", tensor_parallel_size=2, memory_share=0.5, max_num_seqs=7),
        "giant",
    )
    solution = planner(16).best(pinned)
    assert solution is not None
    small, medium, _ = planned_tiers(solution)
    assert small.replicas == 3
    assert (medium.tensor_parallel_size, medium.gpu_memory_utilization, medium.max_num_seqs) == (
        2,
        0.5,
        7,
    )


def test_the_largest_load_fits_and_a_little_more_does_not(
    planner: MakePlanner, demand: MakeDemand
) -> None:
    plans = planner(8)
    solution = plans.best(demand(*ALL, objective="throughput"))
    assert solution is not None
    rate = solution.demand.requests_per_s
    assert plans.best(demand(*ALL, requests_per_s=rate)) is not None
    assert plans.best(demand(*ALL, requests_per_s=rate * (1 + 2 * RATE_PRECISION))) is None
    assert plans.largest_rate_per_s(demand(*ALL, requests_per_s=10 * rate)) == pytest.approx(
        rate, rel=2 * RATE_PRECISION
    )


def test_runners_up_cost_no_less_and_are_others(planner: MakePlanner, demand: MakeDemand) -> None:
    plans = planner(8)
    solution = plans.best(demand(*ALL))
    assert solution is not None
    others = plans.runners_up(solution)
    assert others
    watts = [solution.power_w, *(other.power_w for other in others)]
    assert watts == sorted(watts)
    texts = [tuple(described(each)) for each in (solution, *others)]
    assert len(texts) == len(set(texts))


def test_plans_are_the_same_every_time(planner: MakePlanner, demand: MakeDemand) -> None:
    first = planner(16).best(demand(*ALL, requests_per_s=7.0))
    assert first == planner(16).best(demand(*ALL, requests_per_s=7.0))


def test_stages_of_a_pipeline_may_be_on_several_nodes(
    planner: MakePlanner, demand: MakeDemand
) -> None:
    # 140 GB of weights on L40S of 45 GiB need four GPUs; nodes of two leave stages only.
    nodes = described_nodes("node", gpu_type("L40S"), n_gpus=8, gpus_per_node=2)
    plans = replace(planner(1), cluster=Cluster(nodes=nodes))
    solution = plans.best(demand("giant", requests_per_s=0.5))
    assert solution is not None
    (found,) = planned_tiers(solution)
    assert found.pipeline_parallel_size >= 2
    check_is_consistent(solution, plans)
    (placement, *_) = plan_of(solution, {"giant": ()}).placements
    assert placement.node == "node-0+node-1"
    assert placement.gpu_uuids == ("node-0/0", "node-0/1", "node-1/0", "node-1/1")
