"""From attempts to outcomes: which questions count, what is right, and what a request costs."""

import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest

from eval.recorded.attempt_outcomes import outcomes_of_attempts
from eval.recorded.attempts import Attempts, AttemptsHeader, RecordedAttempt, RecordedTier
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES
from hybridserve_llm.errors import ConfigError

Make = Callable[..., RecordedAttempt]
CHAIN = ("small", "mid", "big")
BILLIONS = {"small": 1, "mid": 8, "big": 70}


def recorded(
    rows: Iterable[RecordedAttempt], *, labels: Any = "reference", billions: Any = BILLIONS
) -> Attempts:
    tiers = tuple(
        RecordedTier(name=name, model=f"m-{name}", active_parameters=b and b * 10**9)
        for name, b in billions.items()
    )
    header = AttemptsHeader(
        created="now",
        tiers=tiers,
        fingerprint=None,
        sampling={},
        endpoints=("/v1/chat/completions",),
        data_sha256="d",
        labels=labels,
        grader=None,
    )
    attempts = Attempts(header=header)
    for row in rows:
        attempts.add(row)
    return attempts


def test_every_field_of_the_outcomes(make_attempt: Make) -> None:
    features = dict.fromkeys(FEATURE_NAMES, 0.0) | {"mean_logprob": -2.0, "mean_margin": None}
    prompt = dict.fromkeys(PROMPT_FEATURE_NAMES, 1.0) | {"log_turns": 3.0}
    rows = [
        make_attempt(
            "q",
            "small",
            split="s",
            group="u",
            correct=False,
            score=-1.5,
            answer_key="4",
            features=features,
            prompt_features=prompt,
        ),
        make_attempt(
            "q", "mid", split="s", group="u", score=1e-9, answer_key="5", prompt_features=prompt
        ),
        make_attempt(
            "q",
            "big",
            split="s",
            group="u",
            score=None,
            answer_key="5",
            features=None,
            prompt_features=prompt,
        ),
    ]
    graded = outcomes_of_attempts(recorded(rows), CHAIN, {})
    found = graded.outcomes
    assert found.tiers == CHAIN
    assert found.questions == (("s", "q"),)
    assert found.groups == ("u",)
    assert found.is_right.tolist() == [[False, True, True]]
    assert found.scores[0, :2].tolist() == [-1.5, 0.0]  # rounding above 0 is cut off
    assert math.isnan(found.scores[0, 2])
    assert found.answers[0, 1] == found.answers[0, 2] != found.answers[0, 0]
    assert found.prompt_feature_names == PROMPT_FEATURE_NAMES
    assert found.prompt_features.shape == (1, len(PROMPT_FEATURE_NAMES))
    assert found.prompt_features[0, PROMPT_FEATURE_NAMES.index("log_turns")] == 3.0
    assert found.answer_feature_names == FEATURE_NAMES
    assert found.answer_features.shape == (1, 3, len(FEATURE_NAMES))
    assert found.answer_features[0, 0, FEATURE_NAMES.index("mean_logprob")] == -2.0
    assert math.isnan(found.answer_features[0, 0, FEATURE_NAMES.index("mean_margin")])
    assert np.isnan(found.answer_features[0, 2]).all()
    assert (graded.n_unanswered, graded.n_ungraded) == (0, 0)


def test_questions_come_in_one_order_whatever_the_files(make_attempt: Make) -> None:
    names = [("b", "1"), (None, "2"), ("a", "9"), (None, "1")]
    rows = [make_attempt(q, tier, split=s) for s, q in names for tier in CHAIN]
    for some in (rows, rows[::-1]):
        found = outcomes_of_attempts(recorded(some), CHAIN, {}).outcomes
        assert found.questions == ((None, "1"), (None, "2"), ("a", "9"), ("b", "1"))


def test_unanswered_and_ungraded_questions_are_left_out_and_counted(make_attempt: Make) -> None:
    rows = [make_attempt("whole", tier) for tier in CHAIN]
    rows += [make_attempt("not asked", tier) for tier in CHAIN[:2]]
    rows += [make_attempt("failed", tier) for tier in CHAIN[:2]]
    rows += [make_attempt("failed", "big", answer=None, correct=None)]
    rows += [make_attempt("cannot tell", "small", correct=None)]
    rows += [make_attempt("cannot tell", tier) for tier in CHAIN[1:]]
    graded = outcomes_of_attempts(recorded(rows), CHAIN, {})
    assert graded.outcomes.questions == ((None, "whole"),)
    assert (graded.n_unanswered, graded.n_ungraded) == (2, 1)
    # Without the small tier its grade does not matter.
    graded = outcomes_of_attempts(recorded(rows), CHAIN[1:], {})
    assert graded.outcomes.questions == ((None, "cannot tell"), (None, "whole"))
    assert (graded.n_unanswered, graded.n_ungraded) == (2, 0)


def test_an_answer_without_a_key_equals_none(make_attempt: Make) -> None:
    keys = {"1": (None, None, "x"), "2": ("x", None, "x")}
    rows = [
        make_attempt(query_id, tier, answer_key=key)
        for query_id, by_tier in keys.items()
        for tier, key in zip(CHAIN, by_tier, strict=True)
    ]
    answers = outcomes_of_attempts(recorded(rows), CHAIN, {}).outcomes.answers
    assert len(set(answers[0])) == 3
    assert answers[1, 0] == answers[1, 2] != answers[1, 1]


def test_without_labels_right_is_who_agrees_with_the_last_tier(make_attempt: Make) -> None:
    keys = {"1": ("x", "y", "x"), "2": ("x", "y", None), "3": (None, "z", "z")}
    rows = [
        make_attempt(query_id, tier, correct=None, answer_key=key)
        for query_id, by_tier in keys.items()
        for tier, key in zip(CHAIN, by_tier, strict=True)
    ]
    attempts = recorded(rows, labels="agreement")
    graded = outcomes_of_attempts(attempts, CHAIN, {})
    assert graded.outcomes.is_right.tolist() == [
        [True, False, True],
        [False, False, True],  # nothing agrees with what cannot be compared
        [False, True, True],
    ]
    assert graded.n_ungraded == 0
    shorter = outcomes_of_attempts(attempts, CHAIN[:2], {})
    assert shorter.outcomes.is_right.tolist() == [[False, True]] * 3


def test_costs_are_joules_where_all_are_known(make_attempt: Make) -> None:
    joules = {"1": (1.0, 4.0, 20.0), "2": (2.0, 6.0, 40.0)}
    rows = [
        make_attempt(query_id, tier, energy_j=energy_j, energy_source="nvml")
        for query_id, by_tier in joules.items()
        for tier, energy_j in zip(CHAIN, by_tier, strict=True)
    ]
    # An attempt at a question that is left out does not count.
    rows += [make_attempt("3", "small", energy_j=100.0, energy_source="other")]
    graded = outcomes_of_attempts(recorded(rows), CHAIN, {})
    assert graded.outcomes.costs.tolist() == [1.5, 5.0, 30.0]
    assert graded.cost_source == "joules per request (nvml)"


def test_else_costs_are_tokens_times_active_parameters(make_attempt: Make) -> None:
    tokens = {"1": (10, 10), "2": (20, 0)}
    rows = [
        make_attempt(q, tier, prompt_tokens=p, completion_tokens=c, energy_j=energy_j)
        for q, (p, c) in tokens.items()
        for tier, energy_j in zip(CHAIN, (1.0, 1.0, None), strict=True)
    ]
    graded = outcomes_of_attempts(recorded(rows), CHAIN, {})
    assert graded.outcomes.costs.tolist() == [20.0, 160.0, 1400.0]  # 20 tokens by 1, 8 and 70
    assert graded.cost_source == "tokens x active parameters (1e9), as the cascade reports them"


def test_unknown_tokens_do_not_count_as_none(make_attempt: Make) -> None:
    rows = [
        make_attempt(q, tier, prompt_tokens=10, completion_tokens=10)
        for q in "12"
        for tier in CHAIN
    ]
    rows += [make_attempt("3", tier, prompt_tokens=None) for tier in CHAIN]
    graded = outcomes_of_attempts(recorded(rows), CHAIN, {})
    assert graded.outcomes.costs.tolist() == [20.0, 160.0, 1400.0]


def test_given_costs_come_first(make_attempt: Make) -> None:
    rows = [make_attempt("1", tier, energy_j=1.0) for tier in CHAIN]
    given = {"small": 1.0, "mid": 2.0, "big": 3.0}
    graded = outcomes_of_attempts(recorded(rows), CHAIN, given)
    assert graded.outcomes.costs.tolist() == [1.0, 2.0, 3.0]
    assert graded.cost_source == "as given, per request"


@pytest.mark.parametrize(
    ("changes", "billions", "given", "words"),
    [
        ({}, BILLIONS | {"mid": None}, {}, "no --cost for 'mid', .* its active parameters are unk"),
        ({"completion_tokens": None}, BILLIONS, {}, "no --cost for 'small', .* its tokens are unk"),
        ({}, BILLIONS, {"small": 1.0}, "no --cost for 'mid'; give one for every tier or for none"),
    ],
)
def test_costs_that_cannot_be_told(
    make_attempt: Make, changes: Any, billions: Any, given: Any, words: str
) -> None:
    rows = [make_attempt("1", tier, **changes) for tier in CHAIN]
    with pytest.raises(ConfigError, match=words):
        outcomes_of_attempts(recorded(rows, billions=billions), CHAIN, given)


def test_nothing_left_says_why(make_attempt: Make) -> None:
    rows = [make_attempt("1", tier) for tier in CHAIN[:2]]
    rows += [make_attempt("1", "big", answer=None, correct=None, reason="HTTP 502: no")]
    words = "no question was answered by all of small, mid, big; big failed first with: HTTP 502"
    with pytest.raises(ConfigError, match=words):
        outcomes_of_attempts(recorded(rows), CHAIN, {})
    rows = [make_attempt("1", tier, correct=None) for tier in CHAIN]
    with pytest.raises(
        ConfigError, match=r"1 questions were answered by all of .*, and none could"
    ):
        outcomes_of_attempts(recorded(rows), CHAIN, {})


@pytest.mark.parametrize("field", ["features", "prompt_features"])
def test_features_of_another_version_are_refused(make_attempt: Make, field: str) -> None:
    rows = [make_attempt("1", tier, **{field: {"older": 1.0}}) for tier in CHAIN]
    with pytest.raises(ConfigError, match=f"{field} are those of another version"):
        outcomes_of_attempts(recorded(rows), CHAIN, {})
