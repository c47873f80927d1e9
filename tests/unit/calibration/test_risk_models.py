"""Models of confidence and risk: features, folds, which features are read, missing scores."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.risk_models import (
    N_FOLDS,
    beats,
    cross_fitted,
    feature_matrix,
    fit_state_models,
    fold_of_groups,
    score_pairs,
    states_below,
)
from hybridserve_llm.confidence.risk_models import KNOT_NAMES, state_feature_names

Make = Callable[..., Outcomes]
NAN = math.nan


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_the_two_features_of_a_score() -> None:
    # p = 1/2: log 1/2, -log(1 - 1/2); p = 3/4: log 3/4, log 4. A score of 0 is read as -1e-9, whose
    # complement is 1e-9: 9 log 10; one below -8 as -8, its complement still 1.
    pairs = score_pairs(np.array([math.log(0.5), math.log(0.75), 0.0, -1000.0]))
    expected = [
        [-math.log(2), math.log(2)],
        [-0.2876821, math.log(4)],
        [-1e-9, 9 * math.log(10)],
        [-8.0, 0.0],
    ]
    assert pairs == pytest.approx(np.array(expected), abs=1e-6)
    assert np.isnan(score_pairs(np.array([NAN]))).all()


def test_a_states_features_are_the_scores_of_all_and_who_agrees(make_table: Make) -> None:
    outcomes = make_table(
        [[1, 1, 1, 1], [1, 1, 1, 1]],
        scores=[[-1, -2, -3, -1], [-1, NAN, -3, -1]],
        answers=[[0, 0, 0, 5], [0, 1, 0, 5]],
    )
    names = state_feature_names(outcomes.tiers, (0, 1, 2), ())
    features = feature_matrix(outcomes, (0, 1, 2))
    by_name = dict(zip(names, features.T, strict=True))
    assert len(names) == len(by_name) == 9 + 4
    assert by_name["t0.logprob"].tolist() == [-1, -1]
    assert by_name["t2.logprob"].tolist() == [-3, -3]
    assert by_name["t1.logprob"][0] == -2
    assert np.isnan(by_name["t1.logprob"][1])
    assert np.isnan(by_name["t1.neg_log_complement"][1])
    # -log(1 - e^-3) = 0.05107
    assert by_name["t2.neg_log_complement"] == pytest.approx([0.0510692, 0.0510692])
    assert by_name["agree.t0.t1"].tolist() == [1, 0]
    assert by_name["agree.t0.t2"].tolist() == [1, 1]
    assert by_name["agree.t1.t2"].tolist() == [1, 0]


def test_the_own_score_is_read_as_a_spline_of_its_log_odds(make_table: Make) -> None:
    # p = 0.9 has log-odds of log 9 = 2.1972246; p = 0.01 of log(1 / 99) = -4.5951199.
    outcomes = make_table([[1, 1, 1]] * 3, scores=[[-1, math.log(p), -1] for p in (0.9, 0.01, NAN)])
    names = state_feature_names(outcomes.tiers, (0, 1), ())
    by_name = dict(zip(names, feature_matrix(outcomes, (0, 1)).T, strict=True))
    assert [name for name in names if "above" in name] == [f"t1.{name}" for name in KNOT_NAMES]
    found = np.stack([by_name[f"t1.{name}"] for name in KNOT_NAMES], axis=1)
    expected = [[4.1972246, 2.1972246, 0.1972246, 0.0], [0.0] * 4, [NAN] * 4]
    assert found == pytest.approx(np.array(expected), abs=1e-7, nan_ok=True)


def test_the_states_are_the_sets_of_tiers_below_the_last() -> None:
    assert list(states_below(1)) == [(0,)]
    assert set(states_below(3)) == {(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)}


def test_a_group_and_a_question_drawn_twice_lie_in_one_fold(make_table: Make) -> None:
    draw = np.random.default_rng(3)
    questions = draw.integers(0, 60, 200).tolist()
    # The even questions belong to 10 users, the odd ones to nobody.
    groups = [None if q % 2 else f"user{q % 10}" for q in questions]
    outcomes = make_table([[1, 1]] * 200, questions=questions, groups=groups)
    folds = fold_of_groups(outcomes, rng())
    for keys in (questions, [group for group in groups if group]):
        where = folds if keys is questions else folds[[group is not None for group in groups]]
        folds_of_key = {key: set(where[np.array(keys) == key]) for key in set(keys)}
        assert all(len(found) == 1 for found in folds_of_key.values())
    assert set(folds) == set(range(N_FOLDS))


def test_folds_are_about_equal_and_drawn_by_the_seed(make_table: Make) -> None:
    outcomes = make_table([[1, 1]] * 103)
    folds = fold_of_groups(outcomes, rng())
    assert sorted(np.bincount(folds)) == [20, 20, 21, 21, 21]
    assert folds.tolist() == fold_of_groups(outcomes, rng()).tolist()
    assert folds.tolist() != fold_of_groups(outcomes, np.random.default_rng(1)).tolist()


def test_no_row_tells_its_own_prediction() -> None:
    draw = rng()
    features, positive = draw.normal(size=(50, 1)), draw.random(50) < 0.5
    folds = np.arange(50) % N_FOLDS
    before = cross_fitted(features, positive, folds, 20.0)
    positive[folds == 2] = ~positive[folds == 2]
    after = cross_fitted(features, positive, folds, 20.0)
    changed = before != after
    assert not changed[folds == 2].any()
    assert changed[folds != 2].all()


def test_learning_among_some_rows_still_predicts_all() -> None:
    # Rows outside `among` are all positive; learnt from are the others, none of them positive.
    among = np.arange(20) % 2 == 0
    predicted = cross_fitted(np.zeros((20, 1)), ~among, np.arange(20) % 2, 20.0, among=among)
    # Fold 0 holds all the learnt rows: nothing is left for it, 1/2; for fold 1 they are 10: 1/12.
    assert predicted[among] == pytest.approx([1 / 2] * 10)
    assert predicted[~among] == pytest.approx([1 / 12] * 10)


def test_better_means_by_more_than_one_standard_error() -> None:
    positive = np.ones(4, dtype=bool)
    even = np.full(4, 0.5)
    # Gains log(0.8 / 0.5) = 0.470 three times and log(x / 0.5) once; in units of 0.470 they are
    # 1, 1, 1, g: mean (3 + g) / 4, standard error |1 - g| / 4. Better where 3 + g > 1 - g: g > -1.
    gains = {g: np.array([0.8, 0.8, 0.8, 0.5 * 1.6**g]) for g in (-0.9, -1.1)}
    assert beats(gains[-0.9], even, positive)
    assert not beats(gains[-1.1], even, positive)
    assert not beats(even, even, positive)


def paired(n: int, make_table: Make, *, agreement_tells: bool) -> Outcomes:
    """Tier 1's score tells nothing; it is right where it agrees with tier 0, or independently."""
    draw = rng()
    is_right = draw.random(n) < 0.5
    agrees = is_right ^ (draw.random(n) < (0.1 if agreement_tells else 0.5))
    last_right = draw.random(n) < 0.9
    return make_table(
        np.stack([is_right & agrees, is_right, last_right], axis=1),
        scores=np.log(draw.uniform(0.3, 0.9, (n, 3))),
        answers=np.stack([np.where(agrees, 1, 0), np.ones(n, dtype=int), np.full(n, 2)], axis=1),
    )


def test_agreement_is_read_where_it_tells_more_than_the_own_score(make_table: Make) -> None:
    model = fit_state_models(paired(300, make_table, agreement_tells=True), rng())[0, 1]
    assert model.columns.tolist() == list(range(4 + 1 + 4))  # scores, agreement, knots
    # P(wrong) is 0.1 where they agree and 0.9 where not; shrunk a little towards 1/2.
    outcomes = make_table(
        [[1, 1, 1]] * 2, scores=[[-0.5, -0.5, -0.5]] * 2, answers=[[1, 1, 2], [0, 1, 2]]
    )
    assert model.judge(outcomes).confidence == pytest.approx([0.9, 0.1], abs=0.1)


def test_only_the_own_score_is_read_where_agreement_tells_nothing(make_table: Make) -> None:
    models = fit_state_models(paired(300, make_table, agreement_tells=False), rng())
    assert models[0, 1].columns.tolist() == [2, 3, 5, 6, 7, 8]  # the second pair, its knots
    assert models[0,].columns.tolist() == [0, 1, 2, 3, 4, 5]


def test_confidence_and_risk_are_near_the_truth(make_world: Make) -> None:
    # Calibration in the large: on fresh questions, the means are the shares.
    models = fit_state_models(make_world(600, seed=1), rng())
    fresh = make_world(20_000, seed=2)
    judged = models[0,].judge(fresh)
    sure = judged.confidence > np.median(judged.confidence)
    for half in (sure, ~sure):
        assert judged.confidence[half].mean() == pytest.approx(
            fresh.is_right[half, 0].mean(), abs=0.05
        )
        assert judged.risk[half].mean() == pytest.approx(fresh.harmful(0)[half].mean(), abs=0.05)
    assert fresh.is_right[sure, 0].mean() > fresh.is_right[~sure, 0].mean() + 0.3


def test_without_a_score_there_is_neither_confidence_nor_risk(make_world: Make) -> None:
    outcomes = make_world(200, seed=0, skills=(0.4, 0.7, 0.95), costs=(1, 10, 100))
    outcomes.scores[:50, 1] = NAN
    models = fit_state_models(outcomes, rng())
    for state, model in models.items():
        for judged in (model.judge(outcomes), model.out_of_fold):
            # The answer on the table counts: an earlier tier's missing score is read as average.
            expected = np.arange(200) < (50 if state[-1] == 1 else 0)
            assert np.isnan(judged.confidence).tolist() == expected.tolist()
            assert np.isnan(judged.risk).tolist() == expected.tolist()


def test_risk_is_at_most_the_chance_of_being_wrong(make_world: Make) -> None:
    outcomes = make_world(300, seed=4, skills=(0.4, 0.7, 0.95), costs=(1, 10, 100))
    fresh = make_world(500, seed=5, skills=(0.4, 0.7, 0.95), costs=(1, 10, 100))
    for model in fit_state_models(outcomes, rng()).values():
        for judged in (model.judge(fresh), model.out_of_fold):
            assert (judged.risk <= 1 - judged.confidence + 1e-12).all()
            assert (judged.risk >= 0).all()
            assert (judged.confidence <= 1).all()


def test_a_tier_that_is_never_wrong_has_the_risk_of_the_rule_of_succession(
    make_table: Make,
) -> None:
    outcomes = make_table([[1, 1]] * 98)
    judged = fit_state_models(outcomes, rng())[0,].judge(outcomes)
    # P(wrong) = (0 + 1) / (98 + 2); of the last tier nothing was seen where it is wrong: 1/2.
    assert judged.confidence == pytest.approx([0.99] * 98)
    assert judged.risk == pytest.approx([0.005] * 98)
