"""A replica under a request rate: closed forms, limits and an event simulation."""

import heapq
import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.curve import BatchCurve
from hybridserve_llm.profiles.queueing import replica_load


def curve_of(step_time_s: list[float], power_w: list[float] | None = None) -> BatchCurve:
    n = len(step_time_s)
    return BatchCurve(
        batch=np.arange(1, n + 1, dtype=float),
        step_time_s=np.array(step_time_s),
        power_w=None if power_w is None else np.array(power_w),
        prefill_token_s=None,
        grade="measured",
    )


def test_one_request_at_a_time_is_m_m_1() -> None:
    # 10 tokens of 0.1 s: 1 request/s; at 0.5/s an M/M/1 queue is busy half the time and waits
    # rho / (mu - rate) = 0.5 / 0.5 = 1 s; then one step to the first token and 9 to the last.
    load = replica_load(
        curve_of([0.1], [300.0]), [0.5], output_tokens=10, prompt_tokens=0, idle_w=100
    )
    assert load.max_rate_per_s == pytest.approx(1.0)
    assert load.utilisation == pytest.approx([0.5])
    assert load.busy_share == pytest.approx([0.5])
    assert load.power_w == pytest.approx([200.0])
    assert load.ttft_s == pytest.approx([1.1])
    assert load.latency_s == pytest.approx([2.0])
    # P(wait > t) = rho exp(-(mu - rate) t) = 0.05 at t = ln(0.5 / 0.05) / 0.5
    assert load.p95_ttft_s == pytest.approx([np.log(10) / 0.5 + 0.1])


def test_steps_that_do_not_slow_down_are_m_m_c() -> None:
    # Two at a time, each 1/s, at 1/s: M/M/2 with offered load 1: pi0 = 1/3, P(wait) = 1/3 and a
    # wait of (1/3) / (2 - 1) on average; sequences running: 1.
    load = replica_load(curve_of([0.1, 0.1]), [1.0], output_tokens=10, prompt_tokens=0, idle_w=None)
    assert load.busy_share == pytest.approx([2 / 3])
    assert load.mean_batch == pytest.approx([1.0])
    assert load.ttft_s == pytest.approx([1 / 3 + 0.1])
    assert load.power_w is None


def test_an_idle_replica_draws_idle_power_and_answers_at_once() -> None:
    load = replica_load(
        curve_of([0.1, 0.15], [300.0, 400.0]), [0.0], output_tokens=10, prompt_tokens=0, idle_w=90
    )
    assert load.power_w == pytest.approx([90])
    assert load.latency_s == pytest.approx([1.0])
    assert load.mean_batch == pytest.approx([0.0])


def test_the_longest_answers_take_as_many_steps_as_they_have_tokens() -> None:
    load = replica_load(
        curve_of([0.1]), [0.0], output_tokens=10, prompt_tokens=0, idle_w=90, p95_output_tokens=30
    )
    assert load.p95_latency_s == pytest.approx([3.0])
    assert load.latency_s == pytest.approx([1.0])


def test_beyond_the_largest_rate_waiting_has_no_end() -> None:
    load = replica_load(
        curve_of([0.1, 0.15], [300.0, 400.0]), [9.0], output_tokens=10, prompt_tokens=0, idle_w=90
    )
    assert load.utilisation[0] > 1
    assert load.latency_s == pytest.approx([np.inf])
    assert load.power_w == pytest.approx([400.0])
    assert load.itl_s == pytest.approx([0.15])


@pytest.mark.parametrize(("rates", "tokens"), [([-1.0], 10.0), ([np.nan], 10.0), ([1.0], 0.0)])
def test_nonsense_is_refused(rates: list[float], tokens: float) -> None:
    with pytest.raises(ConfigError, match="must be 0 or more"):
        replica_load(curve_of([0.1]), rates, output_tokens=tokens, prompt_tokens=0, idle_w=None)


@given(
    n=st.integers(1, 600),
    slowing=st.floats(0, 0.5),
    tokens=st.floats(1, 20_000),
    shares=st.lists(st.floats(0, 0.999), min_size=2, max_size=20),
)
def test_more_requests_never_mean_less_power_batch_or_latency(
    n: int, slowing: float, tokens: float, shares: list[float]
) -> None:
    batch = np.arange(n)
    curve = curve_of(list(0.01 * (1 + slowing * batch)), list(300.0 + 200 * batch / n))
    rates = np.sort(shares) * n / (tokens * curve.step_time_s[-1])
    load = replica_load(curve, rates, output_tokens=tokens, prompt_tokens=0, idle_w=100)
    assert load.power_w is not None
    for values in (load.power_w, load.mean_batch, load.busy_share, load.itl_s, load.ttft_s):
        assert np.all(np.isfinite(values))
        assert np.all(np.diff(values) >= -1e-9 * np.abs(values[1:]))


def test_tokens_come_out_at_the_rate_at_which_they_are_asked_for() -> None:
    # Little's law on tokens: rate * tokens * mean step time seen by tokens = mean batch.
    curve = curve_of([0.01, 0.012, 0.015, 0.02])
    rates = np.array([0.1, 0.7, 1.5])
    load = replica_load(curve, rates, output_tokens=100, prompt_tokens=0, idle_w=None)
    assert rates * 100 * load.itl_s == pytest.approx(load.mean_batch)


def test_an_event_simulation_agrees() -> None:
    step_s = [0.010, 0.011, 0.012, 0.014]
    tokens, rate = 50.0, 4.0
    load = replica_load(
        curve_of(step_s), [rate], output_tokens=tokens, prompt_tokens=0, idle_w=None
    )
    batch, busy = simulated(step_s, tokens, rate, n_arrivals=60_000)
    # 60,000 arrivals: about 1 % of noise at this utilisation.
    assert load.mean_batch[0] == pytest.approx(batch, rel=0.04)
    assert load.busy_share[0] == pytest.approx(busy, rel=0.04)


def simulated(
    step_s: list[float], tokens: float, rate: float, n_arrivals: int
) -> tuple[float, float]:
    """Mean batch and busy share where requests ask for an exponential number of tokens.

    Progress is counted in tokens that every running request has been given.
    """
    draw = random.Random(7)
    now = given_tokens = in_batch = busy = 0.0
    next_arrival, waiting, ends = draw.expovariate(rate), 0, []
    while n_arrivals:
        speed = 1 / step_s[len(ends) - 1] if ends else 0.0
        leaves_at = now + (ends[0] - given_tokens) / speed if ends else float("inf")
        at = min(next_arrival, leaves_at)
        in_batch, busy = in_batch + len(ends) * (at - now), busy + bool(ends) * (at - now)
        given_tokens, now = given_tokens + speed * (at - now), at
        if leaves_at <= next_arrival:
            heapq.heappop(ends)
        else:
            next_arrival, waiting, n_arrivals = (
                at + draw.expovariate(rate),
                waiting + 1,
                n_arrivals - 1,
            )
        if waiting and len(ends) < len(step_s):
            waiting -= 1
            heapq.heappush(ends, given_tokens + draw.expovariate(1 / tokens))
    return in_batch / now, busy / now


def test_prompts_wait_for_each_other() -> None:
    # 1000 tokens of 0.1 ms, one after the other, 2 requests/s: 0.1 s each, in use 20 %: 0.125 s.
    curve = BatchCurve(
        batch=np.array([1.0, 2.0]),
        step_time_s=np.array([0.001, 0.001]),
        power_w=None,
        prefill_token_s=1e-4,
        grade="fleet-fit",
    )
    load = replica_load(curve, [2.0], output_tokens=1, prompt_tokens=1000, idle_w=None)
    assert load.ttft_s == pytest.approx([0.125 + 0.001], rel=1e-3)


def test_figures_are_measured_where_the_table_holds_nearly_all_batches() -> None:
    curve = replace(curve_of([0.1, 0.1, 0.1]), grade="calibrated-2pt", measured_to=2)
    # M/M/3 of 1/s each: at 0.1/s three at a time are rare, at 2.7/s they are the rule.
    load = replica_load(curve, [0.1, 2.7, 9.0], output_tokens=10, prompt_tokens=0, idle_w=None)
    assert load.grades == ("measured", "calibrated-2pt", "calibrated-2pt")
