"""A simulated cascade: who asks which tier, Little's law, and where tokens and joules go."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.simulator.cascade import (
    CascadeRun,
    SimulatedCascade,
    SimulatedTier,
    drawn_visits,
    run_cascade,
)
from eval.simulator.outcome import GoodputBounds, outcome
from eval.simulator.step_table import StepTable
from eval.simulator.tier import ReplicaLife, run_tier
from eval.simulator.workload import Requests, checked_requests
from hybridserve_llm.errors import ConfigError

# Every step takes 1 s and 100 J whatever is in it; a GPU draws 5 W waiting and 1 W parked.
TABLE = StepTable(
    tokens_s=(1.0,) * 65,
    tokens_j=(100.0,) * 65,
    sequence_s=0.0,
    sequence_j=0.0,
    cached_s=(0.0,) * 5,
    cached_j=0.0,
    factor=(1.0,) * 5,
    power_factor=(1.0,) * 5,
    power_limit_w=1e9,
    idle_w=5.0,
    parked_w=1.0,
    max_num_seqs=4,
    max_num_batched_tokens=32,
    kv_cache_tokens=1000,
    max_request_tokens=1000,
    n_gpus=1,
    grade="datasheet",
)
# Steps twice as long, on two GPUs.
GIANT = replace(
    TABLE.scaled(step=2.0),
    n_gpus=2,
    idle_w=10.0,
    parked_w=2.0,
    kv_cache_tokens=2000,
    max_request_tokens=2000,
)


def tier(name: str, reach: float, *lives: ReplicaLife) -> SimulatedTier:
    return SimulatedTier(name=name, reach=reach, lives=lives or (ReplicaLife(table=TABLE),))


def requests(*rows: tuple[float, int, int]) -> Requests:
    at_s, prompts, outputs = (np.array(column) for column in zip(*rows, strict=True))
    return checked_requests(at_s, prompts, outputs)


def two_tiers(reach: float = 1.0, n_gpus: int = 4) -> SimulatedCascade:
    return SimulatedCascade(
        tiers=(tier("small", 1.0), tier("giant", reach, ReplicaLife(table=GIANT))),
        n_gpus=n_gpus,
        parked_w=float(n_gpus),
    )


def test_a_request_that_asks_both_tiers_by_hand() -> None:
    run = run_cascade(two_tiers(), requests((0.0, 10, 3)), seed=0)
    # Small: a step for the prompt, two more: 3 s. Giant: three steps of 2 s. The client has the
    # giant's first token after 3 + 2 s.
    assert run.finish_s.tolist() == [9.0]
    assert run.first_token_s.tolist() == [5.0]
    found = outcome(run, GoodputBounds(latency_s=10.0))
    # Small: 3 s at 100 W, 6 s at 5 W. Giant: 3 steps of 200 J, 3 s at 10 W before them. One of
    # four GPUs is parked for 9 s: 9 J. 330 + 630 + 9 = 969.
    assert found.tiers[0].energy_j == pytest.approx(330.0)
    assert found.tiers[1].energy_j == pytest.approx(630.0)
    assert found.parked_energy_j == pytest.approx(9.0)
    assert found.energy_j == pytest.approx(969.0)
    assert found.energy_j_per_answer_token == pytest.approx(323.0)
    assert found.gpu_hours == pytest.approx(3 * 9 / 3600)
    assert found.parked_gpu_hours == pytest.approx(9 / 3600)
    assert (found.good_share, found.goodput_per_s) == (1.0, pytest.approx(1 / 9))


def test_an_answer_below_the_last_tier_is_held_until_it_is_complete() -> None:
    run = run_cascade(two_tiers(reach=0.0), requests((0.0, 10, 3)), seed=0)
    assert run.answered_by.tolist() == [0]
    assert run.first_token_s.tolist() == run.finish_s.tolist() == [3.0]


def test_a_request_too_long_for_a_tier_goes_on_to_the_next() -> None:
    run = run_cascade(two_tiers(reach=0.0), requests((0.0, 1500, 2), (0.0, 2500, 2)), seed=0)
    assert run.answered_by.tolist() == [1, -1]
    assert np.isnan(run.finish_s[1])
    found = outcome(run, GoodputBounds())
    assert (found.failed, found.goodput_per_s) == (1, None)
    assert (found.tiers[0].refused, found.tiers[1].refused) == (2, 1)
    assert found.tiers[0].latency_s is None


def test_a_replica_takes_requests_while_it_is_open_and_ends_what_it_has() -> None:
    first = ReplicaLife(table=TABLE, closes_s=10.0)
    second = ReplicaLife(table=TABLE, begins_s=4.0, ready_s=8.0)
    cascade = SimulatedCascade(tiers=(tier("only", 1.0, first, second),), n_gpus=2, parked_w=2.0)
    run = run_cascade(
        cascade, requests((0.0, 1, 1), (7.0, 1, 20), (9.0, 1, 1), (11.0, 1, 9)), seed=0
    )
    # The second is not ready at 7; at 9 it has fewer requests; at 11 the first is closed.
    assert run.tiers[0].run.replica.tolist() == [0, 0, 1, 1]
    found = outcome(run, GoodputBounds())
    # The first holds its GPU until 27, when its 20 tokens are done, the second from 4 on. The
    # window is 1.1 to 11 s, in which they hold theirs for 9.9 and for 7 s.
    assert found.horizon_s == 27.0
    assert (found.window_begins_s, found.window_ends_s) == (pytest.approx(1.1), 11.0)
    assert found.gpu_hours == pytest.approx((9.9 + 7) / 3600)
    assert found.parked_energy_j == pytest.approx(2.9)
    # In it 4 of the 20 steps, and 1, of 100 J; loading 4 s at 5 W; waiting 9.9 - 4 and 3 - 1 s at
    # 5 W. One answer of 1 token ends in it: that of the third request.
    assert found.tiers[0].loading_energy_j == pytest.approx(20.0)
    assert found.tiers[0].idle_energy_j == pytest.approx(39.5)
    assert found.energy_j == pytest.approx(500 + 20 + 39.5 + 2.9)
    assert found.window_answers == 1
    assert found.energy_j_per_request == found.energy_j_per_answer_token == found.energy_j


def test_a_backlog_is_not_paid_for_after_the_last_arrival() -> None:
    """Ten requests of 100 steps each, one at a time, a second apart: done after 1,000 s."""
    alone = tier("only", 1.0, ReplicaLife(table=replace(TABLE, max_num_seqs=1)))
    cascade = SimulatedCascade(tiers=(alone,), n_gpus=1, parked_w=1.0)
    stream = requests(*((float(i), 1, 100) for i in range(10)))
    found = outcome(run_cascade(cascade, stream, seed=0), GoodputBounds(latency_s=250.0))
    assert (found.horizon_s, found.window_ends_s) == (1000.0, 9.0)
    # From 0.9 to 9 s at 100 J a second; nothing ends in it.
    assert found.energy_j == pytest.approx(810.0)
    assert found.energy_j_per_request is None
    # Of the nine that come in the window the first ends 199 s after it came, the second 298 s.
    assert found.good_share == pytest.approx(1 / 9)
    assert found.goodput_per_s == pytest.approx(1 / 8.1)


def test_a_request_that_every_tier_refuses_takes_no_time() -> None:
    found = outcome(
        run_cascade(two_tiers(), requests((0.0, 5000, 2)), seed=0), GoodputBounds(ttft_s=1.0)
    )
    assert (found.failed, found.horizon_s, found.energy_j) == (1, 0.0, 0.0)
    assert (found.good_share, found.goodput_per_s) == (0.0, None)
    assert found.tiers[0].busy_share is None
    assert found.tiers[0].mean_batch is None


def test_reaches_are_the_shares_of_requests_that_ask() -> None:
    visits = drawn_visits([1.0, 0.5, 0.25], 100_000, seed=0)
    assert visits.mean(axis=0) == pytest.approx([1.0, 0.5, 0.25], abs=0.005)
    assert np.all(visits[:, 1] >= visits[:, 2])


def test_who_enters_above_the_first_tier_asks_the_last_alone() -> None:
    # 0.4 of requests go to the last at once; 0.2 come up the chain.
    visits = drawn_visits([0.6, 0.3, 0.6], 100_000, seed=0)
    assert visits.mean(axis=0) == pytest.approx([0.6, 0.3, 0.6], abs=0.005)
    assert np.all(visits.any(axis=1))


def test_who_enters_between_asks_the_tier_that_has_room() -> None:
    # 0.4 of requests pass the first tier: 0.3 to the last, 0.1 to the one between, whose other 0.4
    # come up the chain.
    visits = drawn_visits([0.6, 0.5, 0.3], 100_000, seed=0)
    assert visits.mean(axis=0) == pytest.approx([0.6, 0.5, 0.3], abs=0.005)
    alone = visits.sum(axis=1) == 1
    assert (alone & visits[:, 2]).mean() == pytest.approx(0.3, abs=0.005)
    assert (alone & visits[:, 1]).mean() == pytest.approx(0.1, abs=0.005)


def test_a_tier_with_a_smaller_reach_than_the_last_is_skipped() -> None:
    # 0.5 of requests ask the last tier, 0.3 of them by way of the one between.
    visits = drawn_visits([1.0, 0.3, 0.5], 100_000, seed=0)
    assert visits.mean(axis=0) == pytest.approx([1.0, 0.3, 0.5], abs=0.005)
    assert np.all(visits[:, 2] >= visits[:, 1])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=5).filter(lambda r: sum(r) >= 1))
def test_any_reaches_are_drawn_and_every_request_asks_a_tier(reaches: list[float]) -> None:
    visits = drawn_visits(reaches, 20_000, seed=1)
    assert np.all(visits.any(axis=1))
    # 4.5 standard deviations of a share of 20,000.
    assert visits.mean(axis=0) == pytest.approx(reaches, abs=0.016)


def test_reaches_that_leave_requests_without_a_tier_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"0\.5, 0\.2 come to 0\.7: every request asks"):
        drawn_visits([0.5, 0.2], 10, seed=0)


def test_a_tier_with_longer_answers_takes_longer() -> None:
    cascade = two_tiers()
    giant = replace(cascade.tiers[1], output_scale=2.0, prompt_scale=0.01)
    run = run_cascade(
        replace(cascade, tiers=(cascade.tiers[0], giant)), requests((0, 10, 3)), seed=0
    )
    # Small: 3 s. Giant: 6 tokens, 2 s each.
    assert run.finish_s.tolist() == [15.0]
    found = outcome(run, GoodputBounds())
    assert found.answer_tokens == 6
    # No prompt is shorter than a token.
    assert [tier.prompt_tokens for tier in found.tiers] == [10, 1]
    assert found.tiers[1].itl_s == pytest.approx(2.0)


STREAMS = st.lists(
    st.tuples(st.floats(0, 60), st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=30
).map(lambda rows: requests(*rows))
CASCADES = st.builds(two_tiers, st.floats(0, 1), st.just(4))


def stays_s(run: CascadeRun, place: int) -> list[tuple[float, float]]:
    """From when to when each request was in a tier."""
    asked = run.tiers[place]
    is_done = ~np.isnan(asked.run.finish_s)
    return list(zip(asked.arrival_s[is_done], asked.run.finish_s[is_done], strict=True))


def worked_s(run: CascadeRun, place: int) -> float:
    """Seconds of the window in which the only replica of a tier had a request at least."""
    found = outcome(run, GoodputBounds())
    total, until_s = 0.0, found.window_begins_s
    for begin_s, end_s in sorted(stays_s(run, place)):
        begin_s, end_s = max(begin_s, until_s), min(end_s, found.window_ends_s)
        total += max(end_s - begin_s, 0.0)
        until_s = max(until_s, end_s)
    return total


@settings(max_examples=100, deadline=None)
@given(STREAMS, st.integers(1, 3))
def test_littles_law_holds_for_what_the_replicas_count(given_: Requests, n_replicas: int) -> None:
    """Mean number = rate * mean time: the number as replicas have it in their queues and batches.

    Between two arrivals or ends it does not change, so one look into each such interval is the
    whole integral over time.
    """
    lives = (ReplicaLife(table=TABLE),) * n_replicas
    run = run_tier(lives, given_)
    events_s = np.unique([*given_.arrival_s, *run.finish_s])
    looks_s = (events_s[1:] + events_s[:-1]) / 2
    looked = run_tier(lives, given_, looks_s=looks_s.tolist())
    counts = [int(look.n_requests.sum()) for look in looked.looks]
    assert np.array_equal(looked.finish_s, run.finish_s)
    in_system_s = float((np.array(counts) * np.diff(events_s)).sum())
    assert in_system_s == pytest.approx((run.finish_s - given_.arrival_s).sum())
    # Without preemption a sequence decodes from its first token to its last.
    assert run.n_preempted == 0
    assert run.sequence_s.sum() == pytest.approx((run.finish_s - run.first_token_s).sum())


@settings(max_examples=50, deadline=None)
@given(STREAMS, st.floats(0, 100), st.floats(0, 100))
def test_looks_add_up_to_the_whole(given_: Requests, one_s: float, other_s: float) -> None:
    looks_s = sorted((one_s, other_s))
    run = run_tier((ReplicaLife(table=TABLE),), given_, looks_s=[*looks_s, 1e6])
    plain = run_tier((ReplicaLife(table=TABLE),), given_)
    assert run.energy_j.tolist() == plain.energy_j.tolist()
    first, second, last = run.looks
    assert last.n_requests.tolist() == [0]
    assert last.busy_s.tolist() == plain.busy_s.tolist()
    assert last.energy_j == pytest.approx(plain.energy_j)
    # Work is 100 W, and no more than all the time between.
    assert second.energy_j - first.energy_j == pytest.approx(100 * (second.busy_s - first.busy_s))
    assert 0 <= (second.busy_s - first.busy_s)[0] <= looks_s[1] - looks_s[0] + 1e-9


@settings(max_examples=100, deadline=None)
@given(CASCADES, STREAMS, st.integers(0, 5))
def test_nothing_is_lost_or_made_up(cascade: SimulatedCascade, given_: Requests, seed: int) -> None:
    run = run_cascade(cascade, given_, seed=seed)
    found = outcome(run, GoodputBounds())
    seconds = found.window_ends_s - found.window_begins_s
    # Every request is answered once, by the last tier that it asked.
    assert np.all(run.answered_by >= 0)
    assert found.answer_tokens == given_.output_tokens.sum()
    for place, asked in enumerate(run.tiers):
        told = found.tiers[place]
        assert told.output_tokens == given_.output_tokens[asked.asked].sum()
        assert told.prompt_tokens == given_.prompt_tokens[asked.asked].sum()
        # All time of the replica is work or waiting: 100 J a second of work in both tiers, whose
        # steps are 100 J a second.
        table = cascade.tiers[place].lives[0].table
        busy_s, waits_s = worked_s(run, place), seconds - worked_s(run, place)
        assert told.energy_j == pytest.approx(100 * busy_s + table.idle_w * waits_s)
        assert asked.run.energy_j == pytest.approx(100 * asked.run.busy_s)
    assert found.energy_j == pytest.approx(
        sum(told.energy_j for told in found.tiers) + found.parked_energy_j
    )
    assert found.gpu_hours + found.parked_gpu_hours == pytest.approx(4 * seconds / 3600)


@settings(max_examples=20, deadline=None)
@given(CASCADES, STREAMS, st.integers(0, 5))
def test_the_same_seed_gives_the_same_outcome(
    cascade: SimulatedCascade, given_: Requests, seed: int
) -> None:
    bounds = GoodputBounds(ttft_s=5.0)
    first = outcome(run_cascade(cascade, given_, seed=seed), bounds)
    again = outcome(run_cascade(cascade, given_, seed=seed), bounds)
    assert first.as_json() == again.as_json()
