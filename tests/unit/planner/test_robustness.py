from collections.abc import Callable

import pytest

from hybridserve_llm.planner.demand import Demand, Slo
from hybridserve_llm.planner.forecast import planned_tiers
from hybridserve_llm.planner.robustness import off_profiles
from hybridserve_llm.planner.search import Planner

ALL = ("small", "medium", "giant")


def test_a_profile_that_is_off_leaves_the_plan_worse_than_one_made_for_it(
    planner: Callable[..., Planner], demand: Callable[..., Demand]
) -> None:
    plans = planner(16)
    solution = plans.best(demand(*ALL, requests_per_s=10.0))
    assert solution is not None
    slower, quicker, higher, lower = off_profiles(plans, solution)
    assert [off.what for off in (slower, quicker, higher, lower)] == [
        "steps 20 % slower",
        "steps 20 % quicker",
        "power 20 % higher",
        "power 20 % lower",
    ]
    fullest = max(tier.utilisation for tier in planned_tiers(solution))
    assert slower.utilisation == pytest.approx(1.2 * fullest)
    assert quicker.utilisation == pytest.approx(0.8 * fullest)
    assert lower.power_w_total < solution.power_w < higher.power_w_total
    for off in (slower, quicker, higher, lower):
        assert off.broken == ()  # the head-room of a fifth holds 20 % slower steps
        if off.best_power_w_total is not None:
            assert off.best_power_w_total <= off.power_w_total + 1e-6


def test_bounds_that_slower_steps_break_are_named(
    planner: Callable[..., Planner], demand: Callable[..., Demand]
) -> None:
    plans = planner(8)
    plain = plans.best(demand(*ALL))
    assert plain is not None
    found = planned_tiers(plain)
    # Bounds just above what this plan reaches: a fifth slower breaks each.
    slo = Slo(
        ttft_s=1.01 * max(tier.ttft_s for tier in found),
        itl_s=1.01 * max(tier.itl_s for tier in found),
        latency_s=1.01 * plain.latency_s,
    )
    bounded = plans.best(demand(*ALL, slo=slo))
    assert bounded is not None
    slower, quicker, *_ = off_profiles(plans, bounded)
    assert quicker.broken == ()
    assert {text.removeprefix("giant: ").split()[0] for text in slower.broken} >= {
        "itl_s",
        "latency_s",
    }


def test_without_head_room_slower_steps_do_not_keep_up(
    planner: Callable[..., Planner], demand: Callable[..., Demand]
) -> None:
    plans = planner(8)
    solution = plans.best(demand(*ALL, objective="throughput", head_room=0.02))
    assert solution is not None
    slower = off_profiles(plans, solution)[0]
    assert slower.utilisation > 1
    assert slower.best_power_w_total is None
    assert any("does not keep up" in text for text in slower.broken)
