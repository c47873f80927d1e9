"""One shape of a way of answering: its figures on four questions, worked out by hand."""

import numpy as np
import pytest

from eval.judging.baselines import done_without_risk
from eval.judging.ways import Way, count_way, spread_of
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import Replay

IS_RIGHT = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], dtype=bool)
OUTCOMES = Outcomes(
    tiers=("small", "big"),
    is_right=IS_RIGHT,
    scores=np.full((4, 2), -1.0),
    answers=np.where(IS_RIGHT, 0, 1),
    costs=np.array([1.0, 10.0]),
    prompt_features=np.zeros((4, 1)),
    prompt_feature_names=("length",),
    answer_features=np.empty((4, 2, 0)),
    answer_feature_names=(),
    questions=tuple(range(4)),
    draws=np.zeros(4),
    groups=(None,) * 4,
)


@pytest.fixture
def done() -> Replay:
    """Small answers the first three questions, big the last one, which small was asked too."""
    was_asked = np.array([[1, 0], [1, 0], [1, 0], [1, 1]], dtype=bool)
    return done_without_risk(np.array([0, 0, 0, 1]), was_asked)


def test_figures_at_mean_costs(done: Replay) -> None:
    found = count_way("x", done, OUTCOMES)
    # right at the first and the third; the second is lost, the third is rescued
    assert (found.accuracy, found.lost, found.rescued) == (0.5, 0.25, 0.25)
    assert found.cost == (1 + 1 + 1 + 11) / 4
    assert found.ratio == pytest.approx(10 / 3.5)
    assert found.asked == {"small": 1.0, "big": 0.25}
    assert (found.loss("harm"), found.loss("net")) == (0.25, 0.0)
    assert found.loss("net", shrinkage=0.5) == 0.125


def test_costs_question_by_question(done: Replay) -> None:
    costs = np.array([[1.0, 8.0], [2.0, 8.0], [3.0, 8.0], [4.0, 16.0]])
    found = count_way("x", done, OUTCOMES, costs)
    assert found.cost == (1 + 2 + 3 + 20) / 4
    assert found.ratio == pytest.approx(10 / 6.5)  # big alone: (8 + 8 + 8 + 16) / 4


def test_what_costs_nothing_has_no_ratio(done: Replay) -> None:
    assert count_way("x", done, OUTCOMES, np.zeros((4, 2))).ratio is None


def test_json_names_the_fields_and_the_cost() -> None:
    way = Way(name="x", accuracy=0.5, cost=2.0).named("y")
    assert way.as_json("name", "ratio") == {"name": "y", "ratio": None, "cost": 2.0}
    assert way.as_json("name", cost_name="energy_j") == {"name": "y", "energy_j": 2.0}


def test_spread_of_draws() -> None:
    spread = spread_of([1.0, 2.0, 6.0])
    assert (spread.mean, spread.least, spread.most, spread.interval) == (3.0, 1.0, 6.0, None)
