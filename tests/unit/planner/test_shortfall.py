from collections.abc import Callable

import pytest

from hybridserve_llm.planner.demand import Demand, Slo
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.planner.shortfall import shortfall

ALL = ("small", "medium", "giant")
MakeDemand = Callable[..., Demand]
MakePlanner = Callable[..., Planner]
GIB = 2**30


def test_a_tier_that_is_too_large_says_how_many_gib_are_missing(
    planner: MakePlanner, demand: MakeDemand
) -> None:
    found = shortfall(planner(1), demand("giant"))
    # Weights: 140e9 / 2**30 = 130.4 GiB; the engine 3 GiB; a sequence of 4096 tokens with keys and
    # values of 80 layers * 8 heads * 128 numbers * 2 bytes: 1.25 GiB. There are 81559 MiB * 0.9.
    wanted = 140e9 / GIB + 3 + 1.25
    there = 81559 / 1024 * 0.9
    assert found.missing_memory_gib == pytest.approx(wanted - there, rel=1e-6)
    assert "tier giant does not fit: TP 1 needs 134.6 GiB on each of 1 H100-80GB" in found.reason
    assert "63.0 GiB a GPU too little, 63.0 in all" in found.reason
    assert found.missing_gpus == 1
    assert found.changes == ("add 1 H100-80GB (2 GPUs in all)",)
    assert found.text == f"{found.reason}; to make it fit: add 1 H100-80GB (2 GPUs in all)"


def test_tiers_that_do_not_fit_together_say_what_all_need(
    planner: MakePlanner, demand: MakeDemand
) -> None:
    found = shortfall(planner(2), demand(*ALL))
    # On two GPUs the giant needs 130.4 + 2 * 3.375 + 1.25 = 138.4 GiB, of 143.4.
    assert "each tier fits alone, all together do not" in found.reason
    assert "giant 138.4" in found.reason
    assert found.missing_gpus == 1
    assert planner(3).best(demand(*ALL)) is not None


def test_a_load_that_is_too_much_says_what_can_be_carried(
    planner: MakePlanner, demand: MakeDemand
) -> None:
    plans = planner(4)
    found = shortfall(plans, demand(*ALL, requests_per_s=1000.0))
    assert found.missing_memory_gib is None
    assert "4 GPUs carry" in found.reason
    assert "of the 1000 requests/s with 20% head-room" in found.reason
    load, gpus = found.changes
    rate = float(load.removeprefix("lower the load to ").removesuffix(" requests/s"))
    assert plans.best(demand(*ALL, requests_per_s=rate * 0.99)) is not None
    n_more = found.missing_gpus
    assert n_more is not None
    assert gpus == f"add {n_more} H100-80GB ({4 + n_more} GPUs in all)"
    assert planner(4 + n_more).best(demand(*ALL, requests_per_s=1000.0)) is not None
    assert planner(3 + n_more).best(demand(*ALL, requests_per_s=1000.0)) is None


@pytest.mark.parametrize(
    ("slo", "reason"),
    [
        (Slo(ttft_s=1e-6), r"tier small cannot keep planner.slo.ttft_s 1e-06 s: .* takes 0\.0"),
        (Slo(itl_s=1e-6), r"tier small cannot keep planner.slo.itl_s 1e-06 s: .* takes 0\.0"),
        (Slo(p95_latency_s=1e-6), r"small cannot keep planner.slo.p95_latency_s 1e-06 s"),
        (Slo(latency_s=1e-6), r"planner.slo.latency_s 1e-06 s cannot be kept: .* take \d"),
    ],
)
def test_a_bound_that_nothing_keeps_says_what_is_reached(
    planner: MakePlanner, demand: MakeDemand, slo: Slo, reason: str
) -> None:
    found = shortfall(planner(8), demand(*ALL, slo=slo))
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(found.reason)
    assert found.missing_gpus is None
    assert len(found.changes) == 1
    assert found.changes[0].startswith("drop planner.slo (without it ")


def test_pins_that_are_in_the_way_are_named(
    planner: MakePlanner, demand: MakeDemand, tier: Callable[..., object]
) -> None:
    found = shortfall(planner(8), demand(tier("giant", memory_share=0.05)))
    assert found.changes[0].startswith("leave tensor_parallel_size, replicas and")
    odd = shortfall(planner(8), demand(tier("giant", tensor_parallel_size=3)))
    assert "tensor_parallel_size 3 must divide its 64 attention heads" in odd.reason
