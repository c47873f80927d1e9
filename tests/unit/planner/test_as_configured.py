from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.load import parse_config
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.as_configured import plan_as_configured
from hybridserve_llm.planner.hardware import Gpu, Hardware, NumaNode


def cascade(*tiers: dict[str, Any]) -> CascadeConfig:
    """Tiers t0, t1, …; each argument adds to one's settings."""
    values = [
        {"name": f"t{i}", "model": "m", "accept": {"score_at_least": -1.0}, **tier}
        for i, tier in enumerate(tiers)
    ]
    values[-1].pop("accept")
    return parse_config({"tiers": values}, source="test")


def cores(n: int) -> Hardware:
    return Hardware(cpu_cores=tuple(range(n)))


def gpus(n: int) -> Hardware:
    made = tuple(Gpu(uuid=f"GPU-{i}", name="x", memory_bytes=2**36) for i in range(n))
    return Hardware(cpu_cores=(0, 1), gpus=made)


def placed(config: CascadeConfig, hardware: Hardware) -> dict[str, tuple[str, ...]]:
    return {p.name: p.gpu_uuids for p in plan_as_configured(config, hardware).placements}


def test_cpu_threads_are_shared_out_and_never_less_than_one() -> None:
    config = cascade({}, {"replicas": 2}, {})
    # 10 cores for 4 engines: 2 each, 2 stay free for the front end.
    assert [p.cpu_threads for p in plan_as_configured(config, cores(10)).placements] == [2] * 4
    plan = plan_as_configured(config, cores(2))
    assert [p.cpu_threads for p in plan.placements] == [1] * 4
    assert [p.name for p in plan.placements] == ["t0/0", "t1/0", "t1/1", "t2/0"]
    assert all(p.device == "cpu" and p.cpu_core_groups == () for p in plan.placements)


def test_cpu_tensor_parallel_ranks_get_cores_of_their_own() -> None:
    config = cascade({}, {"tensor_parallel_size": 2})
    # 3 ranks on 7 cores: 2 threads each; t0 counts for cores 0 and 1.
    giant = plan_as_configured(config, cores(7)).placements[1]
    assert giant.cpu_core_groups == ((2, 3), (4, 5))
    assert giant.cpu_threads == 2
    # On 2 cores the ranks of different engines share, those of one engine do not.
    giant = plan_as_configured(config, cores(2)).placements[1]
    assert giant.cpu_core_groups == ((1,), (0,))


def two_nodes(n_cores: int) -> Hardware:
    """Even cores on one node and odd ones on the other, as many servers number them."""
    nodes = tuple(NumaNode(number=i, cpu_cores=tuple(range(i, n_cores, 2))) for i in range(2))
    return Hardware(cpu_cores=tuple(range(n_cores)), numa_nodes=nodes)


def test_engines_are_bound_to_a_numa_node_each() -> None:
    config = cascade({}, {"tensor_parallel_size": 2}, {})
    # 4 ranks on 16 cores are 4 threads each: the two of t1 fill one node, the others the second.
    plan = plan_as_configured(config, two_nodes(16))
    small, medium, giant = (place.cpu_core_groups for place in plan.placements)
    assert medium == ((0, 2, 4, 6), (8, 10, 12, 14))
    assert (small, giant) == (((1, 3, 5, 7),), ((9, 11, 13, 15),))
    assert {place.cpu_threads for place in plan.placements} == {4}


def test_threads_become_fewer_where_engines_do_not_fit_into_nodes() -> None:
    # 3 engines on 2 nodes of 8 cores: 16 / 3 = 5 threads leave no room for a third; 4 do.
    plan = plan_as_configured(cascade({}, {}, {}), two_nodes(16))
    assert [place.cpu_core_groups for place in plan.placements] == [
        ((0, 2, 4, 6),),
        ((1, 3, 5, 7),),
        ((8, 10, 12, 14),),
    ]


def test_engines_that_no_node_holds_are_not_bound_to_one() -> None:
    # Two nodes of one core each: t1 needs two cores, and t0 is left to the scheduler.
    plan = plan_as_configured(cascade({}, {"tensor_parallel_size": 2}), two_nodes(2))
    assert [place.cpu_core_groups for place in plan.placements] == [(), ((1,), (0,))]


@given(
    n_cores=st.integers(2, 64),
    sizes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), min_size=2, max_size=4),
)
def test_no_core_of_a_numa_node_is_promised_twice(
    n_cores: int, sizes: list[tuple[int, int]]
) -> None:
    config = cascade(*({"tensor_parallel_size": tp, "replicas": n} for tp, n in sizes))
    assume(max(tp for tp, _ in sizes) <= n_cores)
    places = plan_as_configured(config, two_nodes(n_cores)).placements
    if all(place.cpu_core_groups for place in places) and min(tp for tp, _ in sizes) == 1:
        cores = [core for place in places for group in place.cpu_core_groups for core in group]
        assert len(cores) == len(set(cores))
        for place in places:
            on = {core % 2 for group in place.cpu_core_groups for core in group}
            assert len(on) == 1


def test_more_ranks_than_cores_cannot_be_placed() -> None:
    config = cascade({}, {"tensor_parallel_size": 4})
    with pytest.raises(CannotBeDone, match=r"t1 needs 4 CPU cores .* there are 3: 1 too few"):
        plan_as_configured(config, cores(3))


def test_replicas_get_gpus_of_their_own_in_order_while_they_last() -> None:
    config = cascade({"replicas": 2}, {"tensor_parallel_size": 2})
    expected = {"t0/0": ("GPU-0",), "t0/1": ("GPU-1",), "t1/0": ("GPU-2", "GPU-3")}
    assert placed(config, gpus(4)) == expected
    assert placed(config, gpus(6)) == expected
    shares = [p.gpu_memory_share for p in plan_as_configured(config, gpus(4)).placements]
    assert shares == [None, None, None]


def test_small_tiers_share_when_gpus_are_short() -> None:
    plan = plan_as_configured(cascade({}, {}, {}), gpus(2))
    assert [(p.gpu_uuids, p.gpu_memory_share) for p in plan.placements] == [
        (("GPU-0",), 0.45),
        (("GPU-0",), 0.45),
        (("GPU-1",), None),
    ]


def test_one_gpu_is_split_around_the_shares_the_configuration_gives() -> None:
    config = cascade({}, {}, {"engine": {"gpu_memory_utilization": 0.6}})
    # 0.9 - 0.6 = 0.3 for the two others.
    shares = [p.gpu_memory_share for p in plan_as_configured(config, gpus(1)).placements]
    assert shares == [0.15, 0.15, 0.6]
    thirds = plan_as_configured(cascade(*[{}] * 7), gpus(1)).placements
    assert {p.gpu_memory_share for p in thirds} == {0.128}  # 0.9 / 7 = 0.12857, rounded down


def test_parallel_engine_takes_its_smallest_share_on_all_its_gpus() -> None:
    config = cascade({"replicas": 2}, {"tensor_parallel_size": 3})
    plan = plan_as_configured(config, gpus(3))
    assert [(p.gpu_uuids, p.gpu_memory_share) for p in plan.placements] == [
        (("GPU-1",), 0.45),
        (("GPU-2",), 0.45),
        (("GPU-0", "GPU-1", "GPU-2"), 0.45),
    ]


@pytest.mark.parametrize("wishes", [(0.6, 0.5), (0.9, None)])
def test_shares_that_do_not_fit_are_refused_with_the_difference(
    wishes: tuple[float, float | None],
) -> None:
    config = cascade(*({"engine": {"gpu_memory_utilization": wish}} for wish in wishes))
    over = {0.5: r"lower it by 0\.200", None: r"lower it by 0\.001"}[wishes[1]]
    with pytest.raises(CannotBeDone, match=f"t0/0, t1/0 share GPU GPU-0 .* at most 0.9: {over}"):
        plan_as_configured(config, gpus(1))


def test_too_few_gpus_for_one_replica_are_refused_with_the_number() -> None:
    config = cascade({}, {"tensor_parallel_size": 4})
    with pytest.raises(CannotBeDone, match=r"t1 needs 4 GPUs .* there are 2: 2 too few"):
        plan_as_configured(config, gpus(2))


@pytest.mark.parametrize("hardware", [cores(1), gpus(1)])
def test_tiers_with_endpoints_take_nothing(hardware: Hardware) -> None:
    there = {"endpoints": ["http://a:1"], "tensor_parallel_size": 8}
    plan = plan_as_configured(cascade({}, there), hardware)
    assert [p.name for p in plan.placements] == ["t0/0"]
    assert plan.tiers[1].endpoints == ("http://a:1",)
    none = plan_as_configured(cascade(there, there), hardware)
    assert none.placements == ()


@given(
    st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4)), min_size=2, max_size=4),
    st.integers(1, 8),
    st.booleans(),
)
def test_every_plan_passes_its_check_and_places_every_replica(
    sizes: list[tuple[int, int]], n: int, on_gpus: bool
) -> None:
    assume(max(tp for _, tp in sizes) <= n)
    config = cascade(*({"replicas": r, "tensor_parallel_size": tp} for r, tp in sizes))
    plan = plan_as_configured(config, gpus(n) if on_gpus else cores(n))
    plan.check()
    assert [len(tier.placements) for tier in plan.tiers] == [r for r, _ in sizes]
