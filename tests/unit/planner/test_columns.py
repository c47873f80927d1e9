"""Figures of one arrangement, worked out by hand from the straight lines of the fixture `table`."""

from collections.abc import Callable

import numpy as np
import pytest

from hybridserve_llm.planner.arrangements import Arrangement
from hybridserve_llm.planner.columns import columns_of, keeps_bounds, loads_of
from hybridserve_llm.planner.demand import Demand, Slo
from hybridserve_llm.planner.replica_table import ReplicaTable
from hybridserve_llm.planner.search import Planner

Make = Callable[..., Arrangement]


def test_a_replica_alone_does_what_its_table_says(arrangement: Make, table: ReplicaTable) -> None:
    (load,) = loads_of(arrangement(table), [np.array([2.5, 5.0])])
    assert load.utilisation.tolist() == [0.25, 0.5]
    assert load.power_w.tolist() == [175.0, 250.0]
    assert load.time_s("ttft_s").tolist() == [1.25, 1.5]
    assert load.time_s("itl_s") == pytest.approx([0.125, 0.15])
    assert load.latency_s.tolist() == [12.5, 15.0]


def test_tiers_that_share_pay_for_each_others_busy_time(
    arrangement: Make, table: ReplicaTable
) -> None:
    # At 2.5/s it is busy half the time, at 5/s always. So the first
    # meets a busy GPU always: twice as long, and a tenth more for turning; the second half the
    # time: 1.5 times as long, and a twentieth more.
    first, second = loads_of(arrangement(table, table), [np.array([2.5]), np.array([5.0])])
    assert first.utilisation == pytest.approx([0.25 * 1.1])
    assert second.utilisation == pytest.approx([0.5 * 1.05])
    assert first.time_s("ttft_s") == pytest.approx([1.25 * 2 * 1.1])
    assert first.time_s("p95_latency_s") == pytest.approx([25.0 * 2 * 1.1])
    assert second.latency_s == pytest.approx([15.0 * 1.5 * 1.05])
    # Above idle 75 W and 150 W; idle, 100 W, is paid once.
    assert first.power_w == pytest.approx([75 * 1.1 + 50])
    assert second.power_w == pytest.approx([150 * 1.05 + 50])


def test_power_of_a_shared_gpu_ends_at_tdp(arrangement: Make, table: ReplicaTable) -> None:
    full = [np.array([9.9])] * 3
    loads = loads_of(arrangement(table, table, table), full)
    # 3 * 297 W * 1.1 above idle is more than the 600 W there are.
    assert sum(load.power_w[0] for load in loads) == pytest.approx(700.0)


def test_head_room_counts_the_tiers_of_a_gpu_together(
    arrangement: Make, table: ReplicaTable, demand: Callable[..., Demand]
) -> None:
    wish = demand("small", "medium", head_room=0.2)
    choice = arrangement(table, table)
    # 4/s and 3/s: 0.4 and 0.3, busy 0.8 and 0.6: 0.4 * 1.06 + 0.3 * 1.08 = 0.748.
    assert keeps_bounds(wish, choice, loads_of(choice, [np.array([4.0]), np.array([3.0])])).all()
    # 4/s and 3.6/s: 0.4 * 1.072 + 0.36 * 1.08 = 0.8176.
    loads = loads_of(choice, [np.array([4.0]), np.array([3.6])])
    assert not keeps_bounds(wish, choice, loads).any()


@pytest.mark.parametrize(
    ("slo", "kept"),
    [
        (Slo(ttft_s=1.5), [True, True, False]),
        (Slo(itl_s=0.14), [True, False, False]),
        (Slo(p95_ttft_s=4.5), [True, True, False]),
        (Slo(p95_itl_s=0.26), [True, False, False]),
        (Slo(p95_latency_s=25.0, ttft_s=1.5), [True, False, False]),
        # The tier is asked by half of the requests: 15 s and 15.5 s are 7.5 and 7.75 s of each.
        (Slo(latency_s=7.6), [True, True, False]),
    ],
)
def test_bounds_on_time_are_kept(
    arrangement: Make,
    table: ReplicaTable,
    demand: Callable[..., Demand],
    tier: Callable[..., object],
    slo: Slo,
    kept: list[bool],
) -> None:
    wish = demand(tier("small", reach=0.5), slo=slo)
    choice = arrangement(table)
    loads = loads_of(choice, [np.array([2.5, 5.0, 5.5])])
    assert keeps_bounds(wish, choice, loads).tolist() == kept


def test_columns_have_as_many_replicas_as_the_load_needs_up_to_all_gpus(
    arrangement: Make,
    table: ReplicaTable,
    demand: Callable[..., Demand],
    planner: Callable[..., Planner],
) -> None:
    # 20/s on replicas of 10/s with a fifth free: 20 / 8 = 2.5, so 3 or 4 of 4 GPUs.
    wish = demand("small", requests_per_s=20.0, head_room=0.2)
    columns = columns_of(planner(4).cluster, wish, [arrangement(table)])
    assert columns.replicas.tolist() == [3, 4]
    assert columns.problem.gpus.tolist() == [3, 4]
    # 3 * (100 + 30 * 20/3) = 900 W, 4 * (100 + 30 * 5) = 1000 W, less 75 W a GPU for parking.
    assert columns.problem.power_w.tolist() == [900.0 - 3 * 75, 1000.0 - 4 * 75]


def test_pinned_replicas_are_the_only_ones(
    arrangement: Make,
    table: ReplicaTable,
    demand: Callable[..., Demand],
    tier: Callable[..., object],
    planner: Callable[..., Planner],
) -> None:
    wish = demand(tier("small", replicas=2))
    assert columns_of(planner(4).cluster, wish, [arrangement(table)]).replicas.tolist() == [2]
    assert columns_of(planner(1).cluster, wish, [arrangement(table)]).replicas.tolist() == []


def test_a_slower_world_is_the_same_state_at_a_lower_rate(table: ReplicaTable) -> None:
    slow = table.perturbed(step_factor=1.25, power_factor=2.0)
    # 5/s at the old speed is 4/s at this one: always busy, times 1.25, twice the power above idle.
    assert slow.max_rate_per_s == 8.0
    assert slow.busy_at(np.array([2.0, 4.0])).tolist() == [0.5, 1.0]
    assert slow.latency_at(np.array([4.0])).tolist() == [15.0 * 1.25]
    assert slow.time_at("p95_latency_s", np.array([4.0])).tolist() == [30.0 * 1.25]
    assert slow.power_at(np.array([4.0])).tolist() == [100 + 2 * 150]
    assert slow.power_at(np.array([8.0])).tolist() == [700.0]
    assert np.isinf(slow.latency_at(np.array([8.1]))).all()
