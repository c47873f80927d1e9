"""Gears: when a cascade changes them, and which replicas are there meanwhile."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.simulator.cascade import SimulatedCascade, run_cascade
from eval.simulator.gears import GearChange, GearRules, SimulatedGear, gear_changes, geared_tiers
from eval.simulator.outcome import GoodputBounds, outcome
from eval.simulator.step_table import StepTable
from eval.simulator.workload import checked_requests
from hybridserve_llm.errors import CannotBeDone

# Every step takes 1 s and 100 J.
TABLE = StepTable(
    tokens_s=(1.0,) * 65,
    tokens_j=(100.0,) * 65,
    sequence_s=0.0,
    sequence_j=0.0,
    cached_s=(0.0,) * 33,
    cached_j=0.0,
    factor=(1.0,) * 33,
    power_factor=(1.0,) * 33,
    power_limit_w=1e9,
    idle_w=5.0,
    parked_w=1.0,
    max_num_seqs=32,
    max_num_batched_tokens=32,
    kv_cache_tokens=100_000,
    max_request_tokens=100_000,
    n_gpus=1,
    grade="datasheet",
)
WIDE = replace(TABLE, n_gpus=2)
RULES = GearRules(every_s=10.0, window_s=20.0, hold_s=60.0, down_share=0.9, load_s=30.0)


def arrivals(*parts: tuple[float, float]) -> np.ndarray:
    """Evenly spaced, for so many seconds at so many a second, part by part."""
    at_s, begin_s = [], 0.0
    for seconds, rate in parts:
        at_s += (begin_s + np.arange(int(seconds * rate)) / rate).tolist()
        begin_s += seconds
    return np.array(at_s)


def test_up_at_once_and_down_after_a_while() -> None:
    # 1 a second until 100 s, 4 until 200 s, then 1. Seen over 20 s: 2.5 at 110 s, above 2. At 220 s
    # it is 1, within 0.9 * 2, and so it stays for 60 s, until 280 s.
    found = gear_changes(arrivals((100, 1.0), (100, 4.0), (150, 1.0)), [2.0, 5.0], RULES)
    assert found == (
        GearChange(at_s=0.0, gear=0),
        GearChange(at_s=110.0, gear=1),
        GearChange(at_s=280.0, gear=0),
    )


def test_a_load_near_the_lower_gears_keeps_the_higher() -> None:
    # 1.9 a second is what the lower gear carries, but not within 0.9 of it.
    found = gear_changes(arrivals((100, 4.0), (300, 1.9)), [2.0, 5.0], RULES)
    assert found == (GearChange(at_s=0.0, gear=1),)


def test_no_change_while_replicas_load() -> None:
    # Above 2 a second at 60 s, above 5 at 70 s; those of the first change load until 90 s.
    found = gear_changes(arrivals((50, 1.0), (10, 4.0), (90, 8.0)), [2.0, 5.0, 9.0], RULES)
    assert found == (
        GearChange(at_s=0.0, gear=0),
        GearChange(at_s=60.0, gear=1),
        GearChange(at_s=90.0, gear=2),
    )


LOW = SimulatedGear(requests_per_s=2.0, tables=((TABLE,),))
HIGH = SimulatedGear(requests_per_s=5.0, tables=((TABLE, WIDE),))
CHANGES = (
    GearChange(at_s=0.0, gear=0),
    GearChange(at_s=100.0, gear=1),
    GearChange(at_s=300.0, gear=0),
)


def test_replicas_of_both_gears_stay_and_others_load_and_close() -> None:
    (tier,) = geared_tiers([("only", 1.0)], [LOW, HIGH], CHANGES, RULES, n_gpus=3)
    times = sorted((life.table.n_gpus, life.begins_s, life.ready_s, life.closes_s)
                   for life in tier.lives)  # fmt: skip
    assert times == [(1, 0.0, 0.0, np.inf), (2, 100.0, 130.0, 300.0)]


def test_another_shape_is_ready_before_the_old_one_closes() -> None:
    other = SimulatedGear(requests_per_s=5.0, tables=((WIDE,),))
    (tier,) = geared_tiers([("only", 1.0)], [LOW, other], CHANGES[:2], RULES, n_gpus=3)
    times = sorted((life.table.n_gpus, life.ready_s, life.closes_s) for life in tier.lives)
    assert times == [(1, 0.0, 130.0), (2, 130.0, np.inf)]
    with pytest.raises(CannotBeDone, match="at 100 s needs 3 GPUs, old and new replicas"):
        geared_tiers([("only", 1.0)], [LOW, other], CHANGES[:2], RULES, n_gpus=2)


def test_loading_is_paid_for() -> None:
    tiers = geared_tiers([("only", 1.0)], [LOW, HIGH], CHANGES, RULES, n_gpus=3)
    cascade = SimulatedCascade(tiers=tiers, n_gpus=3, parked_w=3.0)
    at_s = np.arange(0.0, 400.0, 10.0)
    requests = checked_requests(at_s, np.full(40, 1), np.full(40, 5))
    found = outcome(run_cascade(cascade, requests, seed=0), GoodputBounds())
    # 395 s in all: the last comes at 390 and takes 5 steps. The window is 39 to 390 s, 351 in all.
    # The wide replica has its two GPUs from 100 to 300 s, or until it has ended what it has; it
    # loads 30 s at 5 W.
    assert found.horizon_s == 395.0
    assert found.tiers[0].loading_energy_j == pytest.approx(150.0)
    assert found.gpu_hours * 3600 == pytest.approx(351 + 2 * 200)
    # 100 J a second of work, 35 requests of 5 steps each, from 40 to 380 s, none of them at a time.
    busy_s = 175.0
    idle_s = 351 + (200 - 30) - busy_s
    assert found.tiers[0].idle_energy_j == pytest.approx(5 * idle_s)
    # Parked: three GPUs at 1 W, less those that are held; the wide one's table says 1 W for both.
    assert found.parked_energy_j == pytest.approx(3 * 351 - 351 - 200)


STREAMS = st.lists(st.floats(0, 600), min_size=2, max_size=200).map(sorted)


@settings(max_examples=50, deadline=None)
@given(STREAMS)
def test_some_replica_takes_requests_at_any_time(at_s: list[float]) -> None:
    times = np.array(at_s)
    gears = [LOW, HIGH, SimulatedGear(requests_per_s=9.0, tables=((WIDE, WIDE),))]
    changes = gear_changes(times, [gear.requests_per_s / 20 for gear in gears], RULES)
    (tier,) = geared_tiers([("only", 1.0)], gears, changes, RULES, n_gpus=9)
    for moment in np.linspace(0, 700, 71):
        assert any(life.ready_s <= moment < life.closes_s for life in tier.lives)
    cascade = SimulatedCascade(tiers=(tier,), n_gpus=9, parked_w=9.0)
    run = run_cascade(
        cascade, checked_requests(times, np.full(len(times), 3), np.full(len(times), 4)), seed=0
    )
    assert np.all(run.answered_by == 0)
