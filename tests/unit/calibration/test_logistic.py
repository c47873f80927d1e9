"""The logistic model: cases that are solved by hand, and what it makes of absent features."""

import math

import numpy as np
import pytest

from hybridserve_llm.calibration.logistic import fit_logistic, log_losses

TINY_RIDGE = 1e-7
NAN = math.nan


def test_one_feature_of_two_values_gives_each_group_its_share() -> None:
    # 1 of 4 positive where the feature is 0, 3 of 4 where it is 1: log-odds -log 3 and log 3.
    features = np.array([[0.0]] * 4 + [[1.0]] * 4)
    positive = np.array([True, False, False, False, True, True, True, False])
    model = fit_logistic(features, positive, TINY_RIDGE)
    assert model.predict(np.array([[0.0], [1.0]])) == pytest.approx([0.25, 0.75], abs=1e-5)
    # Standardised: mean 1/2, standard deviation 1/2, so the values are -1 and 1.
    assert model.means == pytest.approx([0.5])
    assert model.scales == pytest.approx([0.5])
    assert model.weights == pytest.approx([math.log(3)], abs=1e-4)
    assert model.intercept == pytest.approx(0.0, abs=1e-4)


def test_the_ridge_weighs_half_the_squared_weights_against_the_sum_of_log_losses() -> None:
    # At the optimum sum(p - y) = 0, the intercept being free, and sum z (p - y) + ridge w = 0.
    rng = np.random.default_rng(0)
    features = rng.normal(3.0, 5.0, (60, 2))
    positive = rng.random(60) < 1 / (1 + np.exp(-0.3 * (features[:, 0] - 3)))
    model = fit_logistic(features, positive, 20.0)
    excess = model.predict(features) - positive
    standardised = (features - features.mean(axis=0)) / features.std(axis=0)
    assert excess.sum() == pytest.approx(0.0, abs=1e-3)
    assert standardised.T @ excess + 20.0 * model.weights == pytest.approx([0.0, 0.0], abs=1e-3)


def test_a_greater_ridge_gives_smaller_weights() -> None:
    features = np.arange(20.0)[:, None]
    sizes = [abs(fit_logistic(features, features[:, 0] > 9, r).weights[0]) for r in (5, 20, 80)]
    assert sizes[0] > sizes[1] > sizes[2] > 0


@pytest.mark.parametrize(
    ("positive", "expected"),
    [
        ([True] * 3, 4 / 5),  # (3 + 1) / (3 + 2)
        ([False] * 3, 1 / 5),
        ([True] * 8, 9 / 10),
        ([], 1 / 2),
    ],
)
def test_one_class_alone_gives_the_rule_of_succession(
    positive: list[bool], expected: float
) -> None:
    features = np.linspace(-9, 9, len(positive))[:, None]
    model = fit_logistic(features, np.array(positive, dtype=bool), 20.0)
    assert model.predict(np.array([[-5.0], [0.0], [NAN]])) == pytest.approx([expected] * 3)


def test_an_absent_feature_adds_nothing() -> None:
    rng = np.random.default_rng(1)
    features = rng.normal(size=(80, 2))
    positive = rng.random(80) < 1 / (1 + np.exp(-features.sum(axis=1)))
    model = fit_logistic(features, positive, 5.0)
    absent, average, other = model.predict(
        np.array([[0.7, NAN], [0.7, model.means[1]], [0.7, model.means[1] + 1]])
    )
    assert absent == average
    assert abs(other - average) > 0.01


def test_absent_values_do_not_enter_mean_and_scale() -> None:
    # The known values of the second feature are 1 and 3: mean 2, standard deviation 1.
    features = np.array([[0.0, 1.0], [1.0, NAN], [2.0, 3.0], [3.0, NAN]])
    model = fit_logistic(features, np.array([True, False, True, False]), 5.0)
    assert model.means == pytest.approx([1.5, 2.0])
    assert model.scales[1] == pytest.approx(1.0)


@pytest.mark.parametrize("value", [-0.3, NAN])
def test_a_feature_that_never_varied_tells_nothing_later(value: float) -> None:
    # -0.3 has no exact mean in binary; what rounding leaves must not be blown up by the scale.
    rng = np.random.default_rng(2)
    varying = rng.normal(size=60)
    features = np.stack([varying, np.full(60, value)], axis=1)
    model = fit_logistic(features, varying + rng.normal(size=60) > 0, 5.0)
    as_before, moved = model.predict(np.array([[0.2, -0.3], [0.2, -3.0]]))
    assert moved == pytest.approx(as_before, abs=1e-3)


def test_log_losses() -> None:
    # -log 0.8 where positive, -log(1 - 0.8) where not; a certain error is cut at -log 1e-12.
    predicted = np.array([0.8, 0.8, 0.0])
    losses = log_losses(predicted, np.array([True, False, True]))
    assert losses == pytest.approx([0.2231436, 1.6094379, 27.6310211])
