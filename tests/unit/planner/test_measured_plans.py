"""What a measured profile changes in a plan, and which figures it makes measured ones."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from builders import profile_of

from hybridserve_llm.planner.demand import Demand, TierDemand
from hybridserve_llm.planner.forecast import planned_tiers
from hybridserve_llm.planner.replica_table import EngineShape, ReplicaTable, Tables
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.profile_file import Profile

BATCHES = (1, 8, 32, 128, 256)
STEP_S = (0.008, 0.009, 0.011, 0.020, 0.032)


def profile(*, slower: float = 1.0, batches: Sequence[int] = BATCHES) -> Profile:
    """A table of the fixtures' `medium` on one H100 at their lengths: 400 and 200 tokens."""
    points = [
        {
            "concurrency": batch,
            "step_time_s": slower * step_s,
            "output_tokens_per_s": batch / (slower * step_s),
            "power_w": 400.0 + batch,
        }
        for batch, step_s in zip(BATCHES, STEP_S, strict=True)
        if batch in batches
    ]
    return profile_of(points, model="medium", prompt_tokens=400, output_tokens=200, idle_w=130.0)


def table(tier: TierDemand, max_num_seqs: int = 256) -> ReplicaTable:
    shape = EngineShape(
        gpu_type=gpu_type("H100-80GB"),
        tensor_parallel_size=1,
        pipeline_parallel_size=1,
        max_num_seqs=max_num_seqs,
    )
    return Tables().of(tier, shape)


def test_capacity_and_idle_watts_are_those_that_were_measured(
    tier: Callable[..., TierDemand],
) -> None:
    found = table(tier("medium", profiles=[profile()]))
    # 256 at a time of 200 tokens of 32 ms.
    assert found.max_rate_per_s == pytest.approx(256 / (200 * 0.032))
    assert found.power_at(np.array([0.0])) == pytest.approx([130.0])
    assert set(found.grades) == {"measured"}


def test_figures_are_measured_up_to_the_load_that_the_table_holds(
    tier: Callable[..., TierDemand],
) -> None:
    found = table(tier("medium", profiles=[profile(batches=(1, 8, 32))]))
    # 4 requests/s of 200 tokens of some 10 ms are 8 at a time; 30/s are more than 60.
    assert found.grade_at(4.0) == "measured"
    assert found.grade_at(30.0) == "calibrated-2pt"
    two = table(tier("medium", profiles=[profile(batches=(1, 256))]))
    assert two.grade_at(4.0) == "calibrated-2pt"


def test_an_engine_that_is_twice_as_slow_gets_twice_the_replicas(
    planner: Callable[..., Planner],
    demand: Callable[..., Demand],
    tier: Callable[..., TierDemand],
) -> None:
    # One shape only, so that the number of replicas alone can give way. 60 requests/s: of 40 (256
    # at a time, 200 tokens of 32 ms) a fifth stays free: 60 / 32 is 2 replicas, of 20/s it is 4.
    pinned = tier("medium", reach=1.0, tensor_parallel_size=1)
    plans = {}
    for slower in (1.0, 2.0):
        wish = demand(replace(pinned, profiles=[profile(slower=slower)]), requests_per_s=60.0)
        solution = planner(8).best(wish)
        assert solution is not None
        (plans[slower],) = planned_tiers(solution)
    assert {slower: plan.replicas for slower, plan in plans.items()} == {1.0: 2, 2.0: 4}
    assert plans[1.0].utilisation == pytest.approx(60 / 2 / 40)
    assert plans[2.0].utilisation == pytest.approx(60 / 4 / 20)
    assert plans[2.0].power_w > plans[1.0].power_w
    assert {plan.grade for plan in plans.values()} == {"measured"}


def test_an_engine_that_is_twice_as_slow_halves_the_largest_load(
    planner: Callable[..., Planner],
    demand: Callable[..., Demand],
    tier: Callable[..., TierDemand],
) -> None:
    # Four replicas on four GPUs: no stages, which nobody measured here.
    pinned = tier("medium", reach=1.0, tensor_parallel_size=1, replicas=4)
    rates = [
        planner(4).largest_rate_per_s(demand(replace(pinned, profiles=[profile(slower=slower)])))
        for slower in (1.0, 2.0)
    ]
    # 4 replicas of 40 and of 20 requests/s, a fifth free; found to a thousandth.
    assert rates == pytest.approx([4 * 40 * 0.8, 4 * 20 * 0.8], rel=2e-3)
