"""What easier demands cost: never more watts, and the same every time.

These hold for the fitted model, whose power and times rise with the load. A profile's need not:
where its watts fall from one point to the next, a lower load may cost more.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.planner.demand import Demand, Slo, TierDemand
from hybridserve_llm.planner.replica_table import Tables
from hybridserve_llm.planner.search import Planner, Solution

ALL = ("small", "medium", "giant")
PARKED_H100_W = 75
SAME_W = 1e-6
MakeDemand = Callable[..., Demand]
MakePlanner = Callable[..., Planner]
MakeTier = Callable[..., TierDemand]

slos = st.builds(
    Slo,
    ttft_s=st.none() | st.floats(0.02, 1),
    itl_s=st.none() | st.floats(0.005, 0.1),
    latency_s=st.none() | st.floats(1, 20),
    p95_ttft_s=st.none() | st.floats(0.05, 2),
    p95_itl_s=st.none() | st.floats(0.005, 0.2),
    p95_latency_s=st.none() | st.floats(1, 30),
)


@st.composite
def demands(draw: st.DrawFn, make: MakeDemand, tier: MakeTier) -> Demand:
    """Two tiers or three; some pin replicas or a parallel size."""
    tiers = [
        tier(
            name,
            reach=draw(st.floats(0.05, 1)),
            replicas=draw(st.none() | st.integers(1, 3)),
            tensor_parallel_size=draw(st.none() | st.sampled_from([1, 2, 4])),
        )
        for name in draw(st.sampled_from([ALL, ALL[:2], ALL[1:]]))
    ]
    return make(*tiers, requests_per_s=draw(st.floats(0.01, 60)), slo=draw(slos))


def never_more(easier: Solution | None, harder: Solution | None, extra_w: float = 0.0) -> None:
    if harder is not None:
        assert easier is not None
        assert easier.power_w <= harder.power_w + extra_w + SAME_W


@settings(max_examples=25)
@given(data=st.data(), n_gpus=st.integers(1, 20), looser=st.floats(1, 4))
def test_a_looser_bound_never_costs_more(
    planner: MakePlanner,
    demand: MakeDemand,
    tier: MakeTier,
    data: st.DataObject,
    n_gpus: int,
    looser: float,
) -> None:
    plans = planner(n_gpus)
    tight = data.draw(demands(demand, tier))
    bounds = {name: getattr(tight.slo, name) for name in Slo.__slots__}
    wider = Slo(**{name: b and b * looser for name, b in bounds.items()})
    best = plans.best(tight)
    never_more(plans.best(replace(tight, slo=wider)), best)
    never_more(plans.best(replace(tight, slo=Slo())), best)
    never_more(plans.best(replace(tight, head_room=0.1)), best)


@settings(max_examples=25)
@given(data=st.data(), n_gpus=st.integers(1, 20))
def test_one_more_gpu_never_costs_more_than_parking_it(
    planner: MakePlanner,
    demand: MakeDemand,
    tier: MakeTier,
    data: st.DataObject,
    n_gpus: int,
) -> None:
    plans = planner(n_gpus)
    grown = replace(plans, cluster=plans.cluster.grown(1))
    wish = data.draw(demands(demand, tier))
    never_more(grown.best(wish), plans.best(wish), PARKED_H100_W)


@settings(max_examples=25)
@given(data=st.data(), n_gpus=st.integers(1, 20), share=st.floats(0.01, 1))
def test_a_lower_load_never_costs_more(
    planner: MakePlanner,
    demand: MakeDemand,
    tier: MakeTier,
    data: st.DataObject,
    n_gpus: int,
    share: float,
) -> None:
    plans = planner(n_gpus)
    wish = data.draw(demands(demand, tier))
    lower = replace(wish, requests_per_s=share * wish.requests_per_s)
    never_more(plans.best(lower), plans.best(wish))


@settings(max_examples=25)
@given(
    n_gpus=st.integers(1, 16),
    requests_per_s=st.floats(0.01, 40),
    reaches=st.tuples(st.floats(0.05, 1), st.floats(0.05, 1)),
    latency_s=st.none() | st.floats(1, 20),
)
def test_equal_tiers_may_change_places(
    planner: MakePlanner,
    demand: MakeDemand,
    tier: MakeTier,
    n_gpus: int,
    requests_per_s: float,
    reaches: tuple[float, float],
    latency_s: float | None,
) -> None:
    plans = planner(n_gpus)
    twins = [tier("medium", reach=reach) for reach in reaches]
    rest = {"requests_per_s": requests_per_s, "slo": Slo(latency_s=latency_s)}
    one, other = (plans.best(demand("small", *each, **rest)) for each in (twins, twins[::-1]))
    assert (one is None) == (other is None)
    if one is not None and other is not None:
        assert one.power_w == pytest.approx(other.power_w, abs=SAME_W)
        assert one.n_gpus == other.n_gpus
        assert one.latency_s == pytest.approx(other.latency_s)


def test_tables_made_anew_give_the_same_plan(planner: MakePlanner, demand: MakeDemand) -> None:
    wish = demand(*ALL, requests_per_s=7.0, slo=Slo(itl_s=0.05))
    fresh = [replace(planner(16), tables=Tables()).best(wish) for _ in range(2)]
    found = [
        [(choice.replicas, choice.arrangement.serves, choice.n_gpus) for choice in plan.choices]
        for plan in fresh
        if plan is not None
    ]
    assert len(found) == 2
    assert found[0] == found[1]
    assert len({plan.power_w for plan in fresh if plan is not None}) == 1
