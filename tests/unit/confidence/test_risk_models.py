"""Confidence and risk on the hot path: one model by hand, what is absent, the features' order."""

import math
from typing import Any

import pytest

from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES
from hybridserve_llm.confidence.risk_models import (
    KNOT_NAMES,
    KNOTS,
    LOWEST_SCORE,
    SURE,
    LinearModel,
    RiskModels,
    StateModel,
    score_pair,
    state_feature_names,
    state_features,
)
from hybridserve_llm.values.answers import Assessment, Seen
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

TIERS = ("small", "medium", "giant")


def linear(intercept: float, *terms: tuple[int, float, float]) -> LinearModel:
    """A model of (column, slope, mean) triples."""
    columns, slopes, means = zip(*terms, strict=True) if terms else ((), (), ())
    return LinearModel(intercept=intercept, columns=columns, slopes=slopes, means=means)


def seen(*scores: float | None, **known: Any) -> list[Seen]:
    """Answers of the tiers 0, 1, ...; `known` is of the last of them."""
    assessments = [Assessment(score=score) for score in scores[:-1]]
    assessments.append(Assessment(score=scores[-1], **known))
    return [Seen(tier=i, assessment=one) for i, one in enumerate(assessments)]


def test_a_probability_by_hand() -> None:
    # logit = 0.5 + 2 (0.3 - 0.1) - 1 (4 - 3) = -0.1, and 1 / (1 + e^0.1) = 0.4750208.
    model = linear(0.5, (0, 2.0, 0.1), (2, -1.0, 3.0))
    assert model.probability([0.3, 99.0, 4.0]) == pytest.approx(0.4750208, abs=1e-7)


def test_an_absent_feature_adds_nothing() -> None:
    # Without the third feature the logit is 0.9: 1 / (1 + e^-0.9) = 0.7109495; without both, 0.5.
    model = linear(0.5, (0, 2.0, 0.1), (2, -1.0, 3.0))
    assert model.probability([0.3, 99.0, None]) == pytest.approx(0.7109495, abs=1e-7)
    assert model.probability([None, None, None]) == pytest.approx(0.6224593, abs=1e-7)


@pytest.mark.parametrize(("intercept", "probability"), [(1e6, 1.0), (-1e6, 0.0)])
def test_no_logit_is_too_large(intercept: float, probability: float) -> None:
    # Logits are cut at 30, where e^-30 is 9.4e-14.
    assert linear(intercept).probability([]) == pytest.approx(probability, abs=1e-13)
    assert 0.0 < linear(intercept).probability([]) < 1.0


def test_the_two_features_of_a_score() -> None:
    # p = 1/2: log 1/2 and -log(1 - 1/2). A score of 0 is read as SURE, a very small number below 0:
    # 1 - e^SURE is then -SURE. One below -8 is read as -8, its complement still 1.
    assert score_pair(math.log(0.5)) == pytest.approx((-math.log(2), math.log(2)))
    assert score_pair(0.0) == pytest.approx((SURE, -math.log(-SURE)), rel=1e-6)
    assert score_pair(-1000.0) == (LOWEST_SCORE, 0.0)
    assert score_pair(-math.inf) == (LOWEST_SCORE, 0.0)
    assert score_pair(None) == (None, None)


def test_what_a_score_tells_may_change_at_knots() -> None:
    # p = 0.9 has log-odds of log 9 = 2.1972246: above -2, 0 and 2, below 4.
    vector = state_features(seen(math.log(0.9)))
    assert vector[2:6] == pytest.approx([4.1972246, 2.1972246, 0.1972246, 0.0], abs=1e-7)
    assert tuple(f"log_odds_above_{at}" for at in (-2, 0, 2, 4)) == KNOT_NAMES
    assert state_features(seen(None))[2:6] == [None] * 4


def test_features_come_in_the_order_of_their_names() -> None:
    # Every feature of the answer on the table has the number of its place.
    own = {name: float(place) for place, name in enumerate(FEATURE_NAMES)}
    answers = [
        Seen(tier=0, assessment=Assessment(score=-1.0, answer_key="a", features={})),
        Seen(tier=1, assessment=Assessment(score=-2.0, answer_key="b")),
        Seen(tier=2, assessment=Assessment(score=-3.0, answer_key="a", features=own)),
    ]
    names = state_feature_names((*TIERS, "huge"), (0, 1, 2))
    vector = state_features(answers)
    assert len(names) == len(set(names)) == len(vector) == 6 + 3 + 4 + len(FEATURE_NAMES)
    by_name = dict(zip(names, vector, strict=True))
    assert [by_name[f"{tier}.logprob"] for tier in TIERS] == [-1.0, -2.0, -3.0]
    # -log(1 - e^-2) = 0.1454135
    assert by_name["medium.neg_log_complement"] == pytest.approx(0.1454135, abs=1e-7)
    assert by_name["agree.small.medium"] == 0.0
    assert by_name["agree.small.giant"] == 1.0
    assert by_name["agree.medium.giant"] == 0.0
    # The log-odds of e^-3 are -3 + 0.0510692 = -2.9489308, below all knots.
    assert [by_name[f"giant.{name}"] for name in KNOT_NAMES] == [0.0, 0.0, 0.0, 0.0]
    assert [by_name[f"giant.{name}"] for name in FEATURE_NAMES] == list(own.values())


def test_answers_that_nobody_read_do_not_agree() -> None:
    names = state_feature_names(TIERS, (0, 1))
    by_name = dict(zip(names, state_features(seen(-1.0, -1.0)), strict=True))
    assert by_name["agree.small.medium"] == 0.0


def test_an_answer_without_features_has_them_all_absent() -> None:
    vector = state_features(seen(-1.0))
    assert vector[:2] == list(score_pair(-1.0))
    assert vector[2 + len(KNOTS) :] == [None] * len(FEATURE_NAMES)


def models(**gate: Any) -> RiskModels:
    """For state (0,): wrong = sigmoid(-1 - (logprob + 2)); half of the wrong answers do harm."""
    state = StateModel(wrong=linear(-1.0, (0, -1.0, -2.0)), last_right=linear(0.0))
    return RiskModels(states={(0,): state}, **gate)


def test_confidence_and_risk_by_hand() -> None:
    # At a score of -1: logit -1 - 1 = -2, wrong = 1 / (1 + e^2) = 0.1192029, risk half of it.
    features = dict.fromkeys(FEATURE_NAMES, 0.0)
    known = {"answer_key": "k", "features": features, "output_type": "short"}
    judged = models().judge(seen(-1.0, **known))
    assert judged.confidence == pytest.approx(0.8807971, abs=1e-7)
    assert judged.risk == pytest.approx(0.0596015, abs=1e-7)
    assert judged.score == -1.0
    assert (judged.answer_key, judged.features, judged.output_type) == ("k", features, "short")


def test_an_answer_without_a_score_has_no_confidence() -> None:
    (answer,) = seen(None, reason="the answer is empty")
    assert models().judge([answer]) == answer.assessment
    assert models().judge([answer]).risk is None


def test_an_answer_of_a_state_without_a_model_stays_as_it_is() -> None:
    answers = seen(-1.0, -0.5)
    assert models().judge(answers) == answers[-1].assessment
    assert models().judge([Seen(tier=2, assessment=Assessment(score=-1.0))]).confidence is None


def test_the_gate_reads_the_prompt_alone() -> None:
    # "abc" has log(1 + 3) = 1.3863 as its first feature: logit 1.3863 - 1 = 0.3863, so 0.5954.
    request = GenerateRequest(
        request_id="r", endpoint=Endpoint.COMPLETIONS, payload={"prompt": "abc"}
    )
    assert PROMPT_FEATURE_NAMES[0] == "log_characters"
    gated = models(gate=linear(0.0, (0, 1.0, 1.0)))
    assert gated.entry_risk(request) == pytest.approx(0.5953904, abs=1e-7)
    assert models().entry_risk(request) is None
