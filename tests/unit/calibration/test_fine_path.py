"""The fine steps of a path, by hand: two tiers, costs 1 and 10."""

import numpy as np

from hybridserve_llm.calibration.path import finely_stepped
from hybridserve_llm.calibration.policies import NEVER, Band, StateRule, WholePolicy


def up_to(bound: float) -> WholePolicy:
    rule = StateRule(accept_at_most=bound, bands=(Band(risk_above=bound, to_tier=1),))
    return WholePolicy(chain=(0, 1), rules={(0,): rule})


def accepted(path: list[WholePolicy], risk: np.ndarray) -> list[int]:
    return [int((risk <= policy.rules[0,].accept_at_most).sum()) for policy in path]


def test_it_begins_by_accepting_nothing_and_takes_one_answer_more_at_a_time() -> None:
    risk = np.array([0.4, 0.1, 0.3, 0.2])
    path = finely_stepped([up_to(0.25), up_to(0.5)], {(0,): risk}, {(0,): risk}, n_steps=9)
    assert path[0].rules[0,].accept_at_most == NEVER
    assert accepted(path, risk) == [0, 1, 2, 3, 4]


def test_bounds_go_to_the_serving_models_scale_by_rank() -> None:
    # Two of four are at most 0.25 where the path was made; the models that serve call them 0.01 and
    # 0.02, the next 0.08: the bound is just above 0.02, not halfway.
    made_from, served = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.01, 0.02, 0.08, 0.09])
    path = finely_stepped([up_to(0.25)], {(0,): made_from}, {(0,): served}, n_steps=2)
    assert [policy.rules[0,].accept_at_most for policy in path] == [NEVER, 0.02 * (1 + 1e-9)]


def test_answers_that_tie_are_accepted_together_and_with_no_others() -> None:
    # Out of fold the ties got different risks; the models that serve give them one.
    made_from, served = np.array([0.10, 0.12, 0.11, 0.4]), np.array([0.1, 0.1, 0.1, 0.4])
    path = finely_stepped([up_to(0.2)], {(0,): made_from}, {(0,): served}, n_steps=20)
    assert accepted(path, served) == [0, 3]
    assert accepted(path, np.array([0.1, 0.1001])) == [0, 1]


def test_answers_without_a_risk_count_for_nothing() -> None:
    risk = np.array([np.nan, 0.1, np.nan, 0.2])
    path = finely_stepped([up_to(0.15), up_to(0.3)], {(0,): risk}, {(0,): risk}, n_steps=5)
    assert accepted(path, risk[[1, 3]]) == [0, 1, 2]
