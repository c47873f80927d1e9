"""A simulated engine: by hand, and against a simulation that goes step by step."""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eval.simulator.replica import SimulatedReplica
from eval.simulator.step_table import StepTable
from eval.simulator.tier import ReplicaLife, run_tier
from eval.simulator.workload import checked_requests

# A step: 1 s, 0.01 s a token computed, 0.1 s a sequence, 0.001 s a cached token. 100 W while it
# works and 1 J a cached token more; the limit is never reached.
N_TOKENS = 64
TABLE = StepTable(
    tokens_s=tuple(1 + 0.01 * n for n in range(N_TOKENS + 1)),
    tokens_j=tuple(100 + n for n in range(N_TOKENS + 1)),
    sequence_s=0.1,
    sequence_j=10.0,
    cached_s=(0.001,) * 5,
    cached_j=1.0,
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


def alone(
    table: StepTable, *requests: tuple[float, int, int]
) -> tuple[SimulatedReplica, list[float]]:
    """One replica after all its requests, and when each was done."""
    first_token_s, finish_s = [-1.0] * len(requests), [-1.0] * len(requests)
    replica = SimulatedReplica(table, first_token_s, finish_s)
    for place, (at_s, prompt_tokens, output_tokens) in enumerate(requests):
        while replica.next_s <= at_s:
            replica.end_stretch()
        replica.arrive(place, prompt_tokens, output_tokens, at_s)
    while replica.next_s < math.inf:
        replica.end_stretch()
    replica.close_window()
    return replica, finish_s


def test_one_request_takes_its_prompt_and_a_step_for_every_further_token() -> None:
    replica, finish_s = alone(TABLE, (2.0, 10, 3))
    # Prompt: 1 + 0.01 * 10 + 0.1 = 1.2 s. Two steps of one token each: 2 * (1.01 + 0.1) = 2.22 s,
    # and 10, then 11 tokens cached: 0.021 s. 2 + 1.2 + 2.22 + 0.021 = 5.441.
    assert replica.first_token_s == pytest.approx([3.2])
    assert finish_s == pytest.approx([5.441])
    # Joules: prompt 110 + 10; two steps of 101 + 10; 21 tokens cached. 120 + 222 + 21 = 363.
    assert replica.energy_j == pytest.approx(363.0)
    assert replica.busy_s == pytest.approx(3.441)
    assert (replica.n_prompt_tokens, replica.n_output_tokens) == (10, 3)


def test_an_arrival_waits_for_the_end_of_the_step_it_falls_into() -> None:
    replica, finish_s = alone(TABLE, (0.0, 10, 100), (2.0, 20, 1))
    # First prompt until 1.2, first step 1.11 + 0.010 = until 2.32; the second prompt's step has one
    # sequence that decodes and 11 tokens cached: 1 + 0.01 * 21 + 0.1 * 2 + 0.011 = 1.421.
    assert replica.first_token_s[1] == pytest.approx(2.32 + 1.421)
    assert finish_s[1] == replica.first_token_s[1]


def test_a_prompt_longer_than_a_step_holds_is_computed_in_parts() -> None:
    replica, _ = alone(TABLE, (0.0, 70, 1))
    # 32 + 32 + 6 tokens: 3 + 0.7 + 3 * 0.1.
    assert replica.first_token_s == pytest.approx([4.0])
    assert replica.n_events == 3


def test_a_full_cache_puts_the_newest_out_which_is_computed_anew() -> None:
    table = replace(TABLE, kv_cache_tokens=30)
    replica, finish_s = alone(table, (0.0, 10, 12), (0.0, 10, 12))
    # The second's prompt is computed beside the first's first step: 11 and 10 tokens cached. Four
    # steps later it is 29, and no room for two more: the second, with 5 tokens made, is put out,
    # and its 15 tokens are computed anew when the first is done.
    assert replica.n_preempted == 1
    assert replica.n_prompt_tokens == 10 + 10 + 15
    assert replica.n_output_tokens == 24
    assert finish_s[0] < finish_s[1]


def test_power_is_kept_to_the_limit() -> None:
    table = replace(TABLE, power_limit_w=50.0)
    replica, _ = alone(table, (0.0, 10, 3))
    assert replica.energy_j == pytest.approx(50.0 * replica.busy_s)


def test_profiles_correct_time_and_power() -> None:
    plain, plain_finish = alone(TABLE, (0.0, 10, 30))
    table = replace(TABLE, factor=(2.0,) * 5, power_factor=(3.0,) * 5)
    corrected, finish_s = alone(table, (0.0, 10, 30))
    assert finish_s[0] == pytest.approx(2 * plain_finish[0])
    assert corrected.energy_j == pytest.approx(6 * plain.energy_j)


@dataclass
class Sequence:
    """A request in the simulation step by step; `cached` are tokens in the cache."""

    place: int
    prompt: int
    output: int
    cached: int = 0
    made: int = 0
    redone: int = 0

    @property
    def to_compute(self) -> int:
        """Tokens of the prompt, and of the answer where it was put out, that are not cached."""
        return max(0, self.prompt + self.redone - self.cached)


@dataclass
class Steps:
    """Steps one by one, sequence by sequence, by the rules that the replica's docstring names."""

    table: StepTable
    waiting: list[Sequence] = field(default_factory=list)
    running: list[Sequence] = field(default_factory=list)
    now_s: float = -1.0
    energy_j: float = 0.0
    finish_s: dict[int, float] = field(default_factory=dict)

    def held(self) -> int:
        return sum(max(s.cached, s.prompt + s.redone) for s in self.running)

    def decoding(self) -> list[Sequence]:
        return [s for s in self.running if not s.to_compute]

    def step(self) -> None:
        table = self.table
        is_full = False
        while self.held() + len(self.decoding()) > table.kv_cache_tokens:
            is_full = True
            newest = self.running.pop()
            newest.redone = newest.made
            newest.cached = 0
            self.waiting.insert(0, newest)
        decoding = self.decoding()
        budget = table.max_num_batched_tokens - len(decoding)
        parts: list[tuple[Sequence, int]] = []
        for s in [] if is_full else [s for s in self.running if s.to_compute]:
            parts.append((s, min(budget, s.to_compute)))
            budget -= parts[-1][1]
        while not is_full and self.waiting and budget > 0:
            s = self.waiting[0]
            room = table.kv_cache_tokens - self.held() - len(decoding)
            if len(self.running) >= table.max_num_seqs or s.prompt + s.redone > room:
                break
            self.running.append(self.waiting.pop(0))
            parts.append((s, min(budget, s.to_compute)))
            budget -= parts[-1][1]
        self._pass(decoding, parts)

    def _pass(self, decoding: list[Sequence], parts: list[tuple[Sequence, int]]) -> None:
        table = self.table
        tokens = len(decoding) + sum(part for _, part in parts)
        cached = sum(s.cached for s in decoding)
        b = len(decoding)
        self.now_s += table.factor[b] * (
            table.tokens_s[tokens]
            + table.sequence_s * (b + len(parts))
            + table.cached_s[b] * cached
        )
        self.energy_j += (
            table.factor[b]
            * table.power_factor[b]
            * (
                table.tokens_j[tokens]
                + table.sequence_j * (b + len(parts))
                + table.cached_j * cached
            )
        )
        for s in decoding:
            s.cached += 1
            s.made += 1
        for s, part in parts:
            s.cached += part
            s.made += 0 if s.to_compute else 1
        for s in [s for s in self.running if s.made == s.output]:
            self.running.remove(s)
            self.finish_s[s.place] = self.now_s


def step_by_step(table: StepTable, requests: list[tuple[float, int, int]]) -> Steps:
    steps = Steps(table)
    left = [(at_s, Sequence(i, p, o)) for i, (at_s, p, o) in enumerate(requests)]
    while left or steps.waiting or steps.running:
        if not steps.waiting and not steps.running and left[0][0] > steps.now_s:
            # An engine that waits begins with the first alone, even where others come with it.
            at_s, first = left.pop(0)
            steps.now_s = max(steps.now_s, at_s)
            steps.waiting.append(first)
            steps.step()
        while left and left[0][0] <= steps.now_s:
            steps.waiting.append(left.pop(0)[1])
        if steps.waiting or steps.running:
            steps.step()
    return steps


REQUESTS = st.lists(
    st.tuples(st.floats(0, 40), st.integers(1, 60), st.integers(1, 40)), min_size=1, max_size=12
).map(sorted)
TABLES = st.builds(
    lambda kv, factors: replace(TABLE, kv_cache_tokens=kv, factor=tuple(factors)),
    st.sampled_from([100, 130, 1000]),
    st.lists(st.floats(0.5, 2), min_size=5, max_size=5),
)


@settings(max_examples=300, deadline=None)
@given(TABLES, REQUESTS)
def test_stretches_are_worth_their_steps(
    table: StepTable, requests: list[tuple[float, int, int]]
) -> None:
    expected = step_by_step(table, requests)
    replica, finish_s = alone(table, *requests)
    assert finish_s == pytest.approx([expected.finish_s[i] for i in range(len(requests))])
    assert replica.energy_j == pytest.approx(expected.energy_j)
    assert replica.n_output_tokens == sum(output for _, _, output in requests)


@settings(max_examples=100, deadline=None)
@given(TABLES, REQUESTS, st.integers(1, 3))
def test_a_tier_answers_every_request_once(
    table: StepTable, requests: list[tuple[float, int, int]], n_replicas: int
) -> None:
    at_s, prompts, outputs = (np.array(column) for column in zip(*requests, strict=True))
    given_ = checked_requests(at_s, prompts, outputs)
    run = run_tier([ReplicaLife(table=table)] * n_replicas, given_)
    assert np.all(run.finish_s >= run.first_token_s)
    assert np.all(run.first_token_s > given_.arrival_s)
    assert run.n_output_tokens == outputs.sum()
    assert run.n_prompt_tokens >= prompts.sum()
    assert (run.n_prompt_tokens == prompts.sum()) == (run.n_preempted == 0)
    assert np.all(run.busy_s <= run.finish_s.max() + 1e-9)


def test_a_request_that_no_cache_holds_is_not_taken() -> None:
    requests = checked_requests(np.array([0.0, 0.0]), np.array([999, 10]), np.array([2, 2]))
    run = run_tier([ReplicaLife(table=TABLE)], requests)
    assert np.isnan(run.finish_s[0])
    assert run.replica.tolist() == [-1, 0]
    assert run.n_output_tokens == 2


def test_replicas_take_turns_among_equals() -> None:
    requests = checked_requests(np.array([0.0, 100.0, 200.0]), np.full(3, 5), np.full(3, 2))
    assert run_tier([ReplicaLife(table=TABLE)] * 2, requests).replica.tolist() == [0, 1, 0]
