"""Rival ways to decide: the bounds, random shares, raw and calibrated scores, peers' rules."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from eval.judging.baselines import (
    JudgedPath,
    RandomShare,
    best_path,
    certified,
    laxest_empirical,
    measured,
    oracle,
    perfect_chain,
    random_paths,
)
from eval.recorded.recorded_costs import outcomes_at
from eval.rivals.calibrated_score import fit_calibrated_scores
from eval.rivals.raw_score import ScoreChain, raw_score_path, raw_score_paths
from eval.studies.peer_rules import PEER_RULES, hand_weighted_mix, linear_map
from hybridserve_llm.calibration.certify import Promise
from hybridserve_llm.calibration.outcomes import Outcomes

Make = Callable[..., Outcomes]
COSTS = (1.0, 10.0, 100.0)
HARM = Promise(loss="harm", epsilon=0.05, delta=0.1)


@pytest.fixture
def table(write_csv: Callable[..., Path], record: Callable[..., Any]) -> Make:
    """Outcomes from rows of 0 and 1, at costs of 1, 10, 100; a score of None is absent."""

    def make(
        is_right: Sequence[Sequence[int]], scores: Sequence[Sequence[float | None]] | None = None
    ) -> Outcomes:
        n_tiers = len(is_right[0])
        known = scores or [[-0.5] * n_tiers] * len(is_right)
        rows = [
            record(i, f"t{tier}", correct=right, raw_confidence="" if s is None else s)
            for i, (rights, values) in enumerate(zip(is_right, known, strict=True))
            for tier, (right, s) in enumerate(zip(rights, values, strict=True))
        ]
        costs = {f"t{tier}": COSTS[tier] for tier in range(n_tiers)}
        return outcomes_at(write_csv(rows), costs)

    return make


def test_the_oracle_asks_the_cheapest_tier_that_does_no_harm(table: Make) -> None:
    outcomes = table([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0], [0, 1, 0]])
    done = oracle(outcomes)
    # Where the last tier is wrong nothing does harm, so the cheapest answers: rows 4 and 5.
    assert done.answering.tolist() == [0, 1, 2, 0, 0]
    assert done.costs(outcomes).tolist() == [1, 10, 100, 1, 1]
    assert not done.is_lost(outcomes).any()


def test_the_perfect_chain_pays_for_every_tier_on_the_way(table: Make) -> None:
    outcomes = table([[1, 1, 1], [0, 1, 1], [0, 0, 1], [0, 0, 0]])
    done = perfect_chain(outcomes)
    assert done.answering.tolist() == [0, 1, 2, 0]
    assert done.costs(outcomes).tolist() == [1, 11, 111, 1]


def test_random_acceptance_has_the_expected_figures(table: Make) -> None:
    outcomes = table([[0, 1, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1]])
    routed = RandomShare(tier=0, share=0.25, asks_first=False, seed=0).expected(outcomes)
    # Tier 0 does harm on 2 of 4 and rescues 1 of 4; a quarter of each. 0.25 * 1 + 0.75 * 100.
    assert (routed.cost, routed.lost, routed.rescued) == (75.25, 0.125, 0.0625)
    assert routed.loss("net") == 0.0625
    assert routed.loss("harm") == 0.125
    # Asked first, tier 0 is paid for every question: 1 + 0.75 * 100.
    asked = RandomShare(tier=0, share=0.25, asks_first=True, seed=0).expected(outcomes)
    assert asked == replace(routed, cost=76.0)


@pytest.mark.parametrize("asks_first", [True, False])
def test_draws_of_a_random_share_come_near_what_is_expected(table: Make, asks_first: bool) -> None:
    outcomes = table([[0, 1, 1], [0, 1, 1], [1, 1, 0], [1, 1, 1]])
    many = outcomes.take(np.tile(np.arange(4), 5000))
    way = RandomShare(tier=0, share=0.25, asks_first=asks_first, seed=7)
    found, expected = measured(way.replay(many), many), way.expected(many)
    # Standard errors over 20,000 questions: cost 99 * 0.43 / 141 = 0.3, lost 0.0023.
    assert found.cost == pytest.approx(expected.cost, abs=1.2)
    assert found.lost == pytest.approx(expected.lost, abs=0.01)
    assert found.rescued == pytest.approx(expected.rescued, abs=0.01)


def test_a_larger_random_share_keeps_the_questions_of_a_smaller_one(table: Make) -> None:
    outcomes = table([[1, 1, 1]] * 50)
    small, large = (
        RandomShare(tier=1, share=share, asks_first=False, seed=3).replay(outcomes).answering == 1
        for share in (0.3, 0.6)
    )
    assert 0 < small.sum() < large.sum() < 50
    assert not (small & ~large).any()


def test_a_score_chain_takes_the_first_answer_that_scores_enough(table: Make) -> None:
    scores = [[-0.1, -9, -9], [-0.2, -9, -9], [-0.3, -0.4, -9], [-0.3, -0.6, 0], [None, 0, 0]]
    outcomes = table([[1, 1, 1]] * 5, scores)
    done = ScoreChain(chain=(0, 1, 2), thresholds=(-0.2, -0.5)).replay(outcomes)
    assert done.answering.tolist() == [0, 0, 1, 2, 1]  # the last has no score of tier 0
    assert done.costs(outcomes).tolist() == [1, 1, 11, 111, 11]
    skipping = ScoreChain(chain=(1, 2), thresholds=(inf,)).replay(outcomes)
    assert skipping.costs(outcomes).tolist() == [110] * 5


def test_the_raw_path_of_two_tiers_is_every_threshold(table: Make) -> None:
    scores = [[-0.1, 0], [-0.4, 0], [-0.2, 0], [-0.2, 0], [None, 0], [-0.3, 0]]
    path = raw_score_path((0, 1), table([[1, 1]] * 6, scores), "harm")
    # Strict to lax; equal scores are taken together, and no threshold takes an absent one.
    assert [way.thresholds for way in path] == [(inf,), (-0.1,), (-0.2,), (-0.3,), (-0.4,)]


def test_the_raw_path_takes_a_tier_that_is_always_wrong_last_or_never(table: Make) -> None:
    # Tier 0 is right where it is sure; tier 1 is always sure and always wrong.
    rows, scores = (
        [[1, 0, 1]] * 10 + [[0, 0, 1]] * 10,
        [[-0.1, -0.1, 0]] * 10 + [[-1, -0.1, 0]] * 10,
    )
    path = raw_score_path((0, 1, 2), table(rows, scores), "harm")
    # At the lowest price, 75 for a harm, even a wrong answer of tier 0 is worth its saving of 110.
    assert [way.thresholds for way in path] == [(inf, inf), (-0.1, inf), (-1.0, inf)]


def test_the_raw_score_reads_no_agreement(cascade_csv: Path) -> None:
    outcomes = outcomes_at(cascade_csv, {"small-1b": 1.0, "mid-8b": 8.0, "big-70b": 70.0})
    other_answers = replace(outcomes, answers=np.zeros_like(outcomes.answers))
    for fit in (outcomes, other_answers):
        assert [path.ways for path in raw_score_paths(fit, "net")] == [
            path.ways for path in raw_score_paths(outcomes, "net")
        ]


def test_raw_paths_get_laxer_and_cheaper_chains_are_found(cascade_csv: Path) -> None:
    outcomes = outcomes_at(cascade_csv, {"small-1b": 1.0, "mid-8b": 8.0, "big-70b": 70.0})
    fit, certify = outcomes.take(np.arange(300)), outcomes.take(np.arange(300, 900))
    path = best_path(raw_score_paths(fit, "harm"), fit, 0.05, saving_per_tier=0.05)
    assert path is not None
    for stricter, laxer in zip(path.ways, path.ways[1:], strict=False):
        assert all(np.array(laxer.thresholds) <= np.array(stricter.thresholds))
    way = certified(path.ways, certify, HARM)
    assert way is not None
    assert measured(way.replay(certify), certify).cost < 70 / 1.5


def test_one_calibrated_score_reads_no_agreement_and_certifies(cascade_csv: Path) -> None:
    outcomes = outcomes_at(cascade_csv, {"small-1b": 1.0, "mid-8b": 8.0, "big-70b": 70.0})
    fit, certify = outcomes.take(np.arange(300)), outcomes.take(np.arange(300, 900))
    chosen = []
    for seen in (fit, replace(fit, answers=np.zeros_like(fit.answers))):
        scores = fit_calibrated_scores(seen, seed=0)
        path = best_path(scores.paths("harm"), seen, 0.05, saving_per_tier=0.02)
        assert path is not None
        way = certified(scores.to_walk(path), certify, HARM)
        assert way is not None
        chosen.append(way)
    assert chosen[0].policy.shape() == chosen[1].policy.shape()
    assert measured(chosen[0].replay(certify), certify).cost < 70 / 1.5


@pytest.mark.parametrize(("n", "is_certified"), [(44, False), (45, True)])
def test_a_way_is_certified_by_the_exact_test(table: Make, n: int, is_certified: bool) -> None:
    # No harm in n questions: p = 0.95^n, which is 0.1047 for 44 and 0.0994 for 45.
    certify = table([[1, 1]] * n)
    everything = ScoreChain(chain=(0, 1), thresholds=(-1.0,))
    assert (certified([everything], certify, HARM) is everything) == is_certified


def test_the_walk_stops_at_the_first_way_that_is_not_certified(table: Make) -> None:
    certify = table([[0, 1]] * 50 + [[1, 1]] * 50, [[-0.1, 0]] * 50 + [[-0.9, 0]] * 50)
    harmful = ScoreChain(chain=(0, 1), thresholds=(-0.5,))
    harmless = RandomShare(tier=0, share=0.0, asks_first=False, seed=0)
    assert certified([harmful], certify, HARM) is None
    assert certified([harmless, harmful], certify, HARM) is None  # it holds but saves nothing


def test_plain_empirical_takes_the_laxest_way_within_epsilon_on_all_rows(table: Make) -> None:
    scores = [[-0.1, 0], [-0.2, 0], [-0.3, 0], [-0.4, 0]]
    first = table([[1, 1], [0, 1], [1, 1], [0, 1]], scores)
    second = table([[1, 1], [1, 1], [1, 0], [1, 1]], scores)
    ways = [ScoreChain(chain=(0, 1), thresholds=(t,)) for t in (-0.1, -0.2, -0.3, -0.4)]
    # Lost of 8, by way: 0, 1, 1, 2. One rescue comes with the third.
    assert laxest_empirical(ways, (first, second), "harm", 0.13) is ways[2]
    assert laxest_empirical(ways, (first, second), "harm", 0.12) is ways[0]
    assert laxest_empirical(ways, (first, second), "net", 0.13) is ways[3]
    assert laxest_empirical(ways, (first,), "harm", 0.6) is ways[3]
    assert laxest_empirical([], (first,), "harm", 0.6) is None


def judged_path(costs: list[float], losses: list[float], n_tiers: int = 2) -> JudgedPath[Any]:
    return JudgedPath(
        ways=tuple(costs), n_tiers=n_tiers, costs=np.array(costs), losses=np.array(losses)
    )


def test_a_path_is_judged_by_its_mean_cost_over_losses(table: Make) -> None:
    path = judged_path([100.0, 50.0, 10.0], [0.0, 0.009, 0.019])
    # Levels of 0.002 to 0.020 by 0.002: four allow 100, five allow 50, one allows 10.
    assert path.mean_cost(0.01, last_cost=100.0) == pytest.approx(66.0)
    # A way behind a worse one is not reached, and the last tier alone is always there.
    assert judged_path([120.0, 10.0], [0.5, 0.0]).mean_cost(0.01, 100.0) == 100.0


def test_the_best_path_must_save_its_surcharge(table: Make) -> None:
    fit = table([[1, 1, 1]])
    short, long = judged_path([60.0], [0.0]), judged_path([56.0], [0.0], n_tiers=3)
    assert best_path([long, short], fit, 0.01, saving_per_tier=0.05) is short  # 65 and 66 of 100
    assert best_path([long, short], fit, 0.01, saving_per_tier=0.02) is long  # 62 and 60
    assert best_path([judged_path([97.0], [0.0])], fit, 0.01, saving_per_tier=0.05) is None


def test_random_paths_are_one_for_each_tier_below_the_last(table: Make) -> None:
    paths = random_paths(table([[0, 1, 1], [1, 1, 1]]), "harm", asks_first=False, seed=0)
    assert [path.ways[0].tier for path in paths] == [0, 1]
    assert [path.ways[-1].share for path in paths] == [1.0, 1.0]
    # Tier 0 does harm on half the questions, tier 1 on none; all to it costs 1 and 10.
    assert (paths[0].losses[-1], paths[0].costs[-1]) == (0.5, 1.0)
    assert (paths[1].losses[-1], paths[1].costs[-1]) == (0.0, 10.0)


def test_rescues_count_half_when_paths_are_judged(table: Make) -> None:
    fit = table([[1, 0], [0, 1], [1, 1], [1, 1]])
    by_loss = {
        loss: random_paths(fit, loss, asks_first=True, seed=0)[0] for loss in ("net", "harm")
    }
    assert by_loss["net"].losses[-1] == pytest.approx(0.125)  # 1/4 lost - half of 1/4
    assert by_loss["harm"].losses[-1] == pytest.approx(0.25)


def test_the_linear_map_is_clipped() -> None:
    assert linear_map(np.array([0.0, -1.5, -3.0, -9.0])).tolist() == [1.0, 0.5, 0.0, 0.0]


def test_the_hand_weighted_mix_of_one_token() -> None:
    found = hand_weighted_mix(np.log([1.0, 0.5]))
    # p = 1: signal 0.85 + 0.15 = 1, so 0.5 + 0.25 + 0.05. p = 1/2: the entropy term is
    # 0.15 (1 - 0.5 ln 2) = 0.09801, signal 0.52301, so 0.26151 + 0.3.
    assert found.tolist() == pytest.approx([0.8, 0.56151], abs=1e-5)
    # p = 0: signal 0.15, so 0.075 + 0.3.
    assert hand_weighted_mix(np.array([-1e6])).tolist() == pytest.approx([0.375])


def test_peer_rules_ask_the_whole_chain_and_take_no_absent_score(table: Make) -> None:
    scores = [[-0.2, -9, -9], [-0.9, -0.1, -9], [None, -8, -9]]
    outcomes = table([[1, 1, 1]] * 3, scores)
    answering = {rule.name: rule.replay(outcomes).answering.tolist() for rule in PEER_RULES}
    # (lp + 3) / 3 >= 0.9 is lp >= -0.3.
    assert answering["linear map, default (-1)"] == [0, 0, 1]
    assert answering["linear map, 0.9"] == [0, 1, 2]
    # At -0.2 the mix is 0.70, at -0.9 0.52 and at -0.1 0.75.
    assert answering["weighted mix, 0.55"] == [0, 1, 2]
    assert answering["weighted mix, 0.73"] == [2, 1, 2]
