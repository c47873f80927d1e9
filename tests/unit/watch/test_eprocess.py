"""The e-process: hand-worked steps, its false-alarm bound by enumeration, and its state."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from eval.studies.drift_simulation import Bank, Row, Setup, delays, share_of, table
from hybridserve_llm.watch.eprocess import (
    EProcessState,
    SelectiveEProcess,
    bets,
    loss_budget,
    wald_mean_samples,
)

LOSSES = st.lists(st.sampled_from([0.0, 0.0, 0.0, 1.0]) | st.floats(0, 1), max_size=60)


def process(
    *, budget: float = 0.1, delta: float = 0.01, horizon: float = 100.0
) -> SelectiveEProcess:
    return SelectiveEProcess(budget=budget, delta=delta, horizon=horizon)


def after(losses: list[float], **settings: float) -> SelectiveEProcess:
    watched = process(**settings)
    for loss in losses:
        watched.update(loss)
    return watched


def test_the_budget_of_an_accepted_answer_is_epsilon_over_acceptance() -> None:
    assert loss_budget(0.02, 0.5) == pytest.approx(0.04)
    assert loss_budget(0.05, 0.05) == 1.0
    assert loss_budget(1.0, 0.5) == 2.0


@pytest.mark.parametrize(("epsilon", "acceptance"), [(0.0, 0.5), (1.1, 0.5), (0.1, 0.0), (0.1, 2)])
def test_a_budget_outside_its_range_is_refused(epsilon: float, acceptance: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        loss_budget(epsilon, acceptance)


def test_a_bet_grows_by_the_likelihood_ratio() -> None:
    # b = 0.1: p = 0.15, 0.25 and, as 0.6 is beyond b + (1 - b) / 3 = 0.4, 0.4.
    # Stakes (p - b) / (b (1 - b)) = (p - 0.1) / 0.09.
    stakes = [stake for stake, _ in bets(0.1)]
    assert stakes == pytest.approx([0.05 / 0.09, 0.15 / 0.09, 0.30 / 0.09])
    # A loss: 1 + stake 0.9 = p / b. None: 1 - stake 0.1 = (1 - p) / (1 - b).
    assert [1 + stake * 0.9 for stake in stakes] == pytest.approx([1.5, 2.5, 4.0])
    assert [1 - stake * 0.1 for stake in stakes] == pytest.approx([0.85 / 0.9, 0.75 / 0.9, 6 / 9])
    assert sum(share for _, share in bets(0.1)) == pytest.approx(1.0)


def test_walds_mean_sample_number() -> None:
    # p0 = .02, p1 = .06: KL = .06 ln 3 + .94 ln(.94 / .98) = .065917 - .039172 = .026745;
    # alpha = beta = .05: .95 ln 19 + .05 ln(1 / 19) = .9 * 2.944439 = 2.649995; 2.649995 / .026745.
    assert wald_mean_samples(0.02, alpha=0.05) == pytest.approx(99.08, abs=0.02)


def test_the_first_labels_by_hand() -> None:
    # Money before label 1: w_1 v + w v = (.1 + .9 / 100) v = .109 (.05, .9, .05).
    money = (0.00545, 0.0981, 0.00545)
    won, lost = after([1.0]).state.wealth, after([0.0]).state.wealth
    assert won == pytest.approx([money[0] * 1.5, money[1] * 2.5, money[2] * 4.0])
    assert lost == pytest.approx([money[0] * 0.85 / 0.9, money[1] * 0.75 / 0.9, money[2] * 6 / 9])
    # Label 2, no loss: .009 v comes in, then the factors of "no loss".
    both = after([1.0, 0.0]).state
    assert both.wealth[1] == pytest.approx((0.0981 * 2.5 + 0.0081) * 0.75 / 0.9)
    assert (both.n_labels, both.loss_sum) == (2, 1.0)


def sequences(n: int, values: tuple[float, ...] = (0.0, 1.0)) -> Iterator[tuple[float, ...]]:
    return itertools.product(values, repeat=n)


@pytest.mark.parametrize(("value", "rate"), [(1.0, 0.1), (0.5, 0.2)])
def test_wealth_keeps_its_expectation_at_the_budget(value: float, rate: float) -> None:
    """At a mean loss of exactly b, graded or not, E[M_n] = w_1 + w n = .1 + .009 n."""
    n = 9
    expected = sum(
        math.prod(rate if loss else 1 - rate for loss in losses)
        * after(list(losses), delta=1e-9).e_value
        for losses in sequences(n, (0.0, value))
    )
    assert expected == pytest.approx(0.1 + 0.009 * n, rel=1e-12)


@pytest.mark.parametrize(
    "rate_after",
    [
        pytest.param(lambda past: 0.1, id="at the budget"),
        pytest.param(lambda past: 0.06, id="below it"),
        pytest.param(lambda past: 0.1 if sum(past) else 0.02, id="at it after the first loss"),
        pytest.param(lambda past: 0.0 if past[-1:] == (1.0,) else 0.1, id="losses never in a row"),
    ],
)
def test_false_alarms_keep_to_the_bound_whatever_the_past_does(
    rate_after: Callable[[tuple[float, ...]], float],
) -> None:
    n, delta, horizon = 11, 0.3, 4.0
    p_alarm = 0.0
    for losses in sequences(n):
        p_sequence = 1.0
        for i, loss in enumerate(losses):
            rate = rate_after(losses[:i])
            p_sequence *= rate if loss else 1 - rate
        p_alarm += p_sequence * after(list(losses), delta=delta, horizon=horizon).is_alarm
    assert 0.0 < p_alarm <= delta * (0.1 + 0.9 * n / horizon)


def test_a_won_bet_ends_on_the_goal_and_stays_there() -> None:
    watched = after([1.0] * 30)
    assert watched.is_alarm
    assert watched.e_value == pytest.approx(100.0)
    assert watched.e_value <= 100.0 * (1 + 1e-9)
    watched.update(0.0)
    assert (watched.is_alarm, watched.state.n_labels) == (True, 31)
    assert watched.e_value == pytest.approx(100.0)


def test_money_that_comes_in_can_alone_reach_the_goal() -> None:
    # delta = .9: goal 1.11; income .9 a label, so label 2 finds .1 + 1.8 at most, if none is lost.
    watched = after([0.1, 0.1], budget=0.1, delta=0.9, horizon=1.0)
    assert watched.is_alarm


def test_long_safe_running_neither_blinds_nor_overflows() -> None:
    watched = process(budget=0.02, delta=1e-6, horizon=2000.0)
    for _ in range(20_000):
        watched.update(0.0)
    assert 0.0 < watched.e_value < 1.0
    # 19 losses in a row are certain to be seen: 2.5 ** 19 = 3.6e7 times the money of one label.
    for _ in range(25):
        watched.update(1.0)
    assert watched.is_alarm
    assert math.isfinite(watched.e_value)


@pytest.mark.parametrize("loss", [-0.01, 1.01, math.nan])
def test_a_loss_outside_0_to_1_is_refused(loss: float) -> None:
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        process().update(loss)


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": 0.0},
        {"budget": 1.0},
        {"delta": 0.0},
        {"delta": 1.0},
        {"horizon": 0.5},
        {"horizon": math.inf},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        process(**wrong)


@given(LOSSES, LOSSES, st.floats(0.001, 0.9), st.floats(1e-6, 0.5))
def test_a_restart_changes_nothing(
    before: list[float], later: list[float], budget: float, delta: float
) -> None:
    whole = after(before, budget=budget, delta=delta)
    text = json.dumps(whole.state.to_json(), allow_nan=False)
    state = EProcessState.from_json(json.loads(text))
    assert state == whole.state
    restarted = SelectiveEProcess.restored(state)
    for loss in later:
        whole.update(loss)
        restarted.update(loss)
    assert restarted.state == whole.state


@given(LOSSES, st.floats(0.001, 0.9), st.floats(1e-6, 0.5))
def test_wealth_stays_positive_and_within_the_goal(
    losses: list[float], budget: float, delta: float
) -> None:
    watched = after(losses, budget=budget, delta=delta)
    assert all(part > 0.0 for part in watched.state.wealth)
    # Beyond the goal comes at most what one label brings in.
    assert watched.e_value <= 1.0 / delta + 0.009


@pytest.mark.parametrize(
    "wrong",
    [
        {"wealth": [0.1, 0.1]},
        {"wealth": [0.1, 0.1, math.nan]},
        {"wealth": [0.1, 0.1, -0.1]},
        {"wealth": [0.1, 0.1, 1e9]},
        {"loss_sum": 5.0},
        {"n_labels": "many"},
    ],
)
def test_a_state_that_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not the state|invalid literal"):
        EProcessState.from_json(after([1.0, 0.0]).state.to_json() | wrong)


def test_the_simulations_bank_is_the_class() -> None:
    rng = np.random.default_rng(1)
    streams = rng.random((4, 400)) < np.array([[0.02], [0.05], [0.2], [0.5]])
    graded = np.where(streams, rng.random(streams.shape), 0.0)
    losses = np.vstack([streams, graded])
    bank = Bank.watched(0.05, delta=0.01, horizon=90.0, n_runs=len(losses))
    single = [process(budget=0.05, delta=0.01, horizon=90.0) for _ in losses]
    for column in losses.T:
        bank.update(column)
        for watched, loss in zip(single, column, strict=True):
            watched.update(float(loss))
        expected = [watched.state.wealth for watched in single]
        assert np.allclose(bank.wealth.T, expected, rtol=1e-9, atol=0.0)
        assert bank.is_alarm.tolist() == [watched.is_alarm for watched in single]
    assert 0 < bank.is_alarm.sum() < len(losses)


def test_a_late_change_is_seen_where_a_plain_mixture_is_blind() -> None:
    """Budget .1, delta .01, 2,000 safe labels; 3x Wald there is 3 * 4.18 / .1537 = 81 labels."""
    rng = np.random.default_rng(0)
    limit = int(3 * wald_mean_samples(0.1, alpha=0.01))
    assert limit == 81
    watched = Bank.watched(0.1, delta=0.01, horizon=1000.0, n_runs=400)
    plain = Bank.plain(0.1, delta=0.01, n_runs=400)
    assert share_of(delays(watched, (0.1, 0.3), 2000, limit, rng)) > 0.8
    assert share_of(delays(plain, (0.1, 0.3), 2000, limit, rng)) < 0.1


def test_at_a_delta_of_5_percent_even_a_bet_on_the_very_change_is_too_slow() -> None:
    """Why the default delta is small: all money on 3 b from the change on, and nothing to spare."""
    budget, delta, n_runs = 0.02, 0.05, 4000
    oracle = Bank(
        budget=budget,
        delta=delta,
        stakes=np.array([[2.0 / (1.0 - budget)]]),  # (3 b - b) / (b (1 - b))
        income=np.zeros((1, 1)),
        wealth=np.ones((1, n_runs)),
        is_alarm=np.zeros(n_runs, dtype=np.bool_),
    )
    limit = int(3 * wald_mean_samples(budget, alpha=delta))
    found = share_of(oracle.run(3 * budget, limit, np.random.default_rng(0)))
    assert 0.92 < found < 0.95


def test_the_table_is_readable_at_80_columns() -> None:
    row = Row(
        epsilon=0.005,
        acceptance=0.9,
        budget=0.0056,
        wald=1234.5,
        start=1.0,
        late=1.0,
        late_half=1.0,
        median_late=123456.0,
        plain_start=1.0,
        plain_late=1.0,
        false_shadowed=1.0,
        false_all=1.0,
    )
    setup = Setup(n_runs=100_000, seed=1234, delta=0.0005, share=0.02, n_safe=5000, multiple=1.5)
    assert max(map(len, table([row], setup).splitlines())) <= 80
