"""The choice of the chain, worked out by hand: costs are 1, 10, 100 unless told."""

from collections.abc import Callable

import numpy as np
import pytest

from hybridserve_llm.calibration.choice import ChainEstimate, estimate_chains
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import Risks

Make = Callable[..., Outcomes]


def three_tiers(make_table: Make, **changes: object) -> tuple[Outcomes, Risks]:
    """Of 100 questions tier 0 has none right, tier 1 60, tier 2 all; the risks are the truth."""
    helps = np.arange(100) < 60
    outcomes = make_table(
        np.stack([np.zeros(100), helps, np.ones(100)], axis=1), answers=[[0, 1, 2]] * 100, **changes
    )
    risk = np.where(helps, 0.0, 1.0)
    return outcomes, {(0,): np.ones(100), (1,): risk, (0, 1): risk}


def test_every_set_of_tiers_with_the_last_is_judged_the_best_first(make_table: Make) -> None:
    outcomes, risks = three_tiers(make_table)
    estimates = estimate_chains(outcomes, risks, {}, loss="harm", epsilon=0.02)
    assert {estimate.chain for estimate in estimates} == {(2,), (0, 2), (1, 2), (0, 1, 2)}
    judged = [estimate.judged_cost(100.0) for estimate in estimates]
    assert judged == sorted(judged)


@pytest.mark.parametrize("loss", ["net", "harm"])
def test_a_tier_that_never_helps_is_dropped(make_table: Make, loss: str) -> None:
    outcomes, risks = three_tiers(make_table)
    best, *others = estimate_chains(outcomes, risks, {}, loss=loss, epsilon=0.02)
    assert best.chain == (1, 2)
    # 10 for all, 100 for the 40 that go on; no loss, so at every level.
    assert best.mean_cost == pytest.approx(50.0)
    by_chain = {estimate.chain: estimate.mean_cost for estimate in others}
    assert by_chain[0, 1, 2] == pytest.approx(51.0)  # 1 more for all
    assert by_chain[0, 2] == by_chain[2,] == pytest.approx(100.0)  # 101 is cut at the last alone


def test_a_chain_that_cannot_pay_leaves_the_last_tier_alone(make_table: Make) -> None:
    # With the middle tier as dear as the last, 60 of 100 accepted save nothing: 100 + 40.
    outcomes, risks = three_tiers(make_table, costs=(1.0, 100.0, 100.0))
    best, *_ = estimate_chains(outcomes, risks, {}, loss="net", epsilon=0.02)
    assert best == ChainEstimate(chain=(2,), has_gate=False, mean_cost=100.0)


def test_a_further_tier_must_save_3_percent_of_the_last() -> None:
    assert ChainEstimate(chain=(2,), has_gate=False, mean_cost=100.0).judged_cost(100.0) == 100.0
    assert ChainEstimate(chain=(0, 2), has_gate=False, mean_cost=50.0).judged_cost(100.0) == 53.0
    assert ChainEstimate(chain=(0, 1, 2), has_gate=False, mean_cost=47.0).judged_cost(100.0) == 53.0


def test_a_tier_that_saves_less_than_its_surcharge_is_dropped(make_table: Make) -> None:
    # Right on 2 of 100 and perfectly judged, it saves 2 and costs 1: 99 in place of 100. With the
    # surcharge of 3 it is judged at 102.
    helps = np.arange(100) < 2
    outcomes = make_table(np.stack([helps, np.ones(100)], axis=1), costs=(1.0, 100.0))
    best, other = estimate_chains(
        outcomes, {(0,): np.where(helps, 0.0, 1.0)}, {}, loss="net", epsilon=0.02
    )
    assert (best.chain, other.chain) == ((1,), (0, 1))
    assert other.mean_cost == pytest.approx(99.0)


@pytest.mark.parametrize(
    ("loss", "mean_cost"),
    [
        # Accepting all of tier 0 costs 1, loses 10 of 100 and rescues 18. Rescues count half: a
        # loss of 0.01, within the levels 0.6, 0.8, ..., 2 of epsilon, 8 of 10; else 100.
        ("net", (8 * 1 + 2 * 100) / 10),
        ("harm", 100.0),  # 0.1 is above 0.04, the highest level
    ],
)
def test_rescues_count_half(make_table: Make, loss: str, mean_cost: float) -> None:
    kinds = {(0, 1): 10, (1, 0): 18, (1, 1): 72}
    rows = [kind for kind, count in kinds.items() for _ in range(count)]
    outcomes = make_table(rows, costs=(1.0, 100.0))
    risks = {(0,): np.full(100, 0.05)}  # all alike: all or none are accepted
    estimates = estimate_chains(outcomes, risks, {}, loss=loss, epsilon=0.02)
    assert {e.chain: e.mean_cost for e in estimates}[0, 1] == pytest.approx(mean_cost)


def test_a_loss_once_exceeded_bars_the_laxer_policies_too(make_table: Make) -> None:
    # Of 100 questions the 5 of least risk are lost and the next 50 rescued: the walk would stop at
    # the first step, a loss of 0.05, though accepting the rescued ones too gives 0.05 - 0.25.
    rows = [(0, 1)] * 5 + [(1, 0)] * 50 + [(1, 1)] * 45
    outcomes = make_table(rows, costs=(1.0, 100.0))
    risks = {(0,): np.array([0.01] * 5 + [0.1] * 50 + [0.9] * 45)}
    estimates = estimate_chains(outcomes, risks, {}, loss="net", epsilon=0.02)
    assert {e.chain: e.mean_cost for e in estimates}[0, 1] == 100.0
