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
from eval.simulator.outcome import Bounds, outcome
from eval.simulator.step_table import StepTable
from eval.simulator.tier import ReplicaLife
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
    found = outcome(run, Bounds(latency_s=10.0))
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
    found = outcome(run, Bounds())
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
    found = outcome(run, Bounds())
    # The first holds its GPU until 27, when its 20 tokens are done, the second from 4 on.
    assert found.horizon_s == 27.0
    assert found.gpu_hours == pytest.approx((27 + 23) / 3600)
    assert found.parked_energy_j == pytest.approx(4.0)
    # 1 + 20 + 1 + 9 steps of 100 J; loading 4 s at 5 W; waiting 27 - 21 and 19 - 10 s at 5 W.
    assert found.tiers[0].loading_energy_j == pytest.approx(20.0)
    assert found.tiers[0].idle_energy_j == pytest.approx(75.0)
    assert found.energy_j == pytest.approx(3100 + 20 + 75 + 4)


def test_reaches_are_the_shares_of_requests_that_ask() -> None:
    visits = drawn_visits([1.0, 0.5, 0.25], 100_000, seed=0)
    assert visits.mean(axis=0) == pytest.approx([1.0, 0.5, 0.25], abs=0.005)
    assert np.all(visits[:, 1] >= visits[:, 2])


def test_who_enters_above_the_first_tier_asks_the_last_alone() -> None:
    # 0.4 of requests go to the last at once; 0.2 come up the chain.
    visits = drawn_visits([0.6, 0.3, 0.6], 100_000, seed=0)
    assert visits.mean(axis=0) == pytest.approx([0.6, 0.3, 0.6], abs=0.005)
    assert np.all(visits.any(axis=1))


@pytest.mark.parametrize(
    ("reaches", "message"),
    [
        ([0.5, 0.8, 0.9], "rise below the last tier"),
        ([1.0, 0.3, 0.5], "its reach must be 0 to 0.3"),
        ([0.5, 0.2], "its reach must be 0.5 to 1"),
    ],
)
def test_reaches_of_no_cascade_are_refused(reaches: list[float], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        drawn_visits(reaches, 10, seed=0)


STREAMS = st.lists(
    st.tuples(st.floats(0, 60), st.integers(1, 60), st.integers(1, 30)), min_size=1, max_size=30
).map(lambda rows: requests(*rows))
CASCADES = st.builds(two_tiers, st.floats(0, 1), st.just(4))


def in_system_s(run: CascadeRun, place: int) -> float:
    """Integral over time of the requests in a tier, counted from a list of who comes and goes."""
    asked = run.tiers[place]
    is_done = ~np.isnan(asked.run.finish_s)
    changes = sorted(
        [(at_s, 1) for at_s in asked.arrival_s[is_done]]
        + [(at_s, -1) for at_s in asked.run.finish_s[is_done]]
    )
    total, n, last_s = 0.0, 0, 0.0
    for at_s, change in changes:
        total += n * (at_s - last_s)
        n, last_s = n + change, at_s
    return total


@settings(max_examples=100, deadline=None)
@given(CASCADES, STREAMS, st.integers(0, 5))
def test_nothing_is_lost_or_made_up(cascade: SimulatedCascade, given_: Requests, seed: int) -> None:
    run = run_cascade(cascade, given_, seed=seed)
    found = outcome(run, Bounds())
    # Every request is answered once, by the last tier that it asked.
    assert np.all(run.answered_by >= 0)
    assert found.answer_tokens == given_.output_tokens.sum()
    for place, asked in enumerate(run.tiers):
        told = found.tiers[place]
        n = len(asked.asked)
        assert told.output_tokens == given_.output_tokens[asked.asked].sum()
        assert told.prompt_tokens == given_.prompt_tokens[asked.asked].sum()
        if n:
            # Little's law: mean in the tier = rate * mean time in it.
            assert told.latency_s is not None
            rate = n / run.horizon_s
            mean_n = in_system_s(run, place) / run.horizon_s
            assert mean_n == pytest.approx(rate * told.latency_s.mean)
        # All time of the replica is work or waiting: 100 J a second of work in both tiers, whose
        # steps are 100 J a second.
        table = cascade.tiers[place].lives[0].table
        busy_s = float(asked.run.busy_s.sum())
        assert told.energy_j == pytest.approx(
            100 * busy_s + table.idle_w * (run.horizon_s - busy_s)
        )
    assert found.energy_j == pytest.approx(
        sum(told.energy_j for told in found.tiers) + found.parked_energy_j
    )
    assert found.gpu_hours + found.parked_gpu_hours == pytest.approx(4 * run.horizon_s / 3600)


@settings(max_examples=20, deadline=None)
@given(CASCADES, STREAMS, st.integers(0, 5))
def test_the_same_seed_gives_the_same_outcome(
    cascade: SimulatedCascade, given_: Requests, seed: int
) -> None:
    bounds = Bounds(ttft_s=5.0)
    first = outcome(run_cascade(cascade, given_, seed=seed), bounds)
    again = outcome(run_cascade(cascade, given_, seed=seed), bounds)
    assert first.as_json() == again.as_json()
