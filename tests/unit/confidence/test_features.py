"""The feature vector: hand-worked, finite or absent, and never without evidence."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.confidence.features import (
    ABSTENTION_OPENINGS,
    ABSTENTIONS,
    FEATURE_NAMES,
    AnswerFeatures,
    OutputType,
    answer_features,
    is_abstention,
)
from hybridserve_llm.values.answers import Answer, ToolCall, Usage
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

END_THINK = 6


def features_of(
    *, is_reasoning: bool = False, asked: dict[str, Any] | None = None, **parts: Any
) -> AnswerFeatures | str:
    values: dict[str, Any] = {"text": "42", "finish_reason": "stop", "logprobs": (-1.0,), **parts}
    request: dict[str, Any] = {"request_id": "r", "endpoint": Endpoint.CHAT, "payload": {}}
    return answer_features(
        GenerateRequest(**{**request, **(asked or {})}),
        Answer(**values),
        Usage(),
        is_reasoning=is_reasoning,
        reasoning_end_id=END_THINK if is_reasoning else None,
    )


def named(features: AnswerFeatures | str) -> dict[str, float | None]:
    assert isinstance(features, AnswerFeatures), features
    return dict(zip(FEATURE_NAMES, features.values, strict=True))


def type_of(**parts: Any) -> OutputType:
    features = features_of(**parts)
    assert isinstance(features, AnswerFeatures), features
    return features.output_type


def test_names_are_unique_and_one_for_each_value() -> None:
    assert len(set(FEATURE_NAMES)) == len(FEATURE_NAMES)
    assert len(named(features_of())) == len(FEATURE_NAMES)


def test_the_features_of_an_answer() -> None:
    # 20 tokens: -2, then 15 of -0.5, then -1, -1, -4 and 0, which sum to -15.5.
    # Sorted: -4, -2, -1, -1, 15 of -0.5, 0. Ranks: 5 % ceil(1) = 1: -4; 10 % ceil(2) = 2: -2;
    # 25 % ceil(5) = 5: -0.5; 50 % ceil(10) = 10: -0.5. Below log(1/2) = -0.69: 4 of 20.
    # Windows of 16: -2 and 15 of -0.5, sum -9.5; 15 of -0.5 and -1, -8.5; 14 of -0.5, -1 and -1,
    # -9; 13 of -0.5, -1, -1 and -4, -12.5; 12 of -0.5, -1, -1, -4 and 0, -12, which is the tail.
    logprobs = (-2.0, *(-0.5,) * 15, -1.0, -1.0, -4.0, 0.0)
    assert named(features_of(logprobs=logprobs)) == {
        "mean_logprob": -15.5 / 20,
        "min_logprob": -4.0,
        "q05_logprob": -4.0,
        "q10_logprob": -2.0,
        "q25_logprob": -0.5,
        "q50_logprob": -0.5,
        "clipped_sum_logprob": -15.5,
        "log_length": pytest.approx(3.044522, abs=1e-6),  # log 21
        "unsure_share": 0.2,
        "lowest_window_mean": -12.5 / 16,
        "tail_mean": -12.0 / 16,
        "first_logprob": -2.0,
        "null_share": 0.0,
        "mean_margin": None,
        "min_margin": None,
        "first_margin": None,
        "has_reasoning": 0.0,
        "log_reasoning_length": 0.0,
        "reasoning_lowest_window_mean": 0.0,
        "reasoning_tail_mean": 0.0,
    }


def test_the_sum_is_clipped() -> None:
    assert named(features_of(logprobs=(-30.0, -30.0)))["clipped_sum_logprob"] == -50.0


def test_margins_are_features_where_they_are_known() -> None:
    known = named(features_of(logprobs=(-1.0, -1.0), margins=(0.75, 0.25)))
    assert (known["mean_margin"], known["min_margin"], known["first_margin"]) == (0.5, 0.25, 0.75)
    unknown = named(features_of(logprobs=(-1.0, -1.0), margins=(0.75, None)))
    assert (unknown["mean_margin"], unknown["first_margin"]) == (None, None)


def test_the_features_of_reasoning() -> None:
    # 66 tokens of reasoning: -3, 64 of -1, -2. Windows of 64: (-3, 63 of -1) = -66, 64 of -1 =
    # -64, (63 of -1, -2) = -65, which is the tail too.
    logprobs = (-3.0, *(-1.0,) * 64, -2.0, -9.0, -0.25)
    ids = (*(50,) * 66, END_THINK, 51)
    values = named(features_of(is_reasoning=True, logprobs=logprobs, token_ids=ids))
    assert values["has_reasoning"] == 1.0
    assert values["log_reasoning_length"] == pytest.approx(4.204693, abs=1e-6)  # log 67
    assert values["reasoning_lowest_window_mean"] == -66 / 64
    assert values["reasoning_tail_mean"] == -65 / 64
    assert values["mean_logprob"] == -0.25


@pytest.mark.parametrize("ids", [(50, 51), (END_THINK, 51)])
def test_a_tier_that_did_not_reason_has_no_reasoning(ids: tuple[int, ...]) -> None:
    values = named(features_of(is_reasoning=True, logprobs=(-1.0, -0.5), token_ids=ids))
    assert (values["has_reasoning"], values["reasoning_tail_mean"]) == (0.0, 0.0)


def test_the_features_of_json_are_those_of_its_values() -> None:
    pieces = (b'{"a": ', b"1", b', "b": ', b"null", b"}")
    values = named(
        features_of(
            text=b"".join(pieces).decode(),
            logprobs=(-9.0, -1.0, -9.0, -0.5, -9.0),
            token_bytes=pieces,
            asked={"json_answer": True},
        )
    )
    assert values["clipped_sum_logprob"] == -1.5
    assert values["null_share"] == 0.5


def test_short_answers_and_text() -> None:
    assert type_of(logprobs=(-1.0,) * 32) is OutputType.SHORT
    assert type_of(logprobs=(-1.0,) * 33) is OutputType.TEXT


def test_json_and_tool_calls() -> None:
    assert type_of(text="{}", asked={"json_answer": True}) is OutputType.JSON
    assert type_of(text="{}", asked={"payload": {"guided_json": {}}}) is OutputType.JSON
    call = ToolCall(name="f", arguments="{}")
    asked = {"tool_names": frozenset({"f"})}
    assert type_of(text="I'm sorry", tool_calls=(call,), asked=asked) is OutputType.TOOL_CALL


def test_json_of_nulls_alone_abstains() -> None:
    pieces, asked = (b'{"a": ', b"null", b"}"), {"json_answer": True}
    parts = {"logprobs": (-1.0,) * 3, "token_bytes": pieces, "asked": asked}
    assert type_of(text='{"a": null}', **parts) is OutputType.ABSTAIN
    mixed = {**parts, "token_bytes": (b'{"a": [', b"null", b',""]}')}
    assert type_of(text='{"a": [null,""]}', **mixed) is OutputType.JSON


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("I don't know.", True),
        ("  I DON\u2019T KNOW who wrote it.", True),
        ("I'm sorry, but I can't help with that.", True),
        ("Unknown.", True),
        ("N/A", True),
        ("Unknown Pleasures", False),
        ("Paris", False),
        ("The answer is that I don't know", False),
        ("Sorrow", False),
        ("", False),
    ],
)
def test_abstentions_are_told_by_how_they_begin(text: str, expected: bool) -> None:
    assert is_abstention(text) is expected


def test_an_abstention_is_scored_as_its_own_type() -> None:
    assert type_of(text="I don't know.") is OutputType.ABSTAIN


def test_the_lists_are_written_as_they_are_compared() -> None:
    for text in (*ABSTENTION_OPENINGS, *ABSTENTIONS):
        assert text == text.lower().strip()
        assert is_abstention(text)
    assert list(ABSTENTION_OPENINGS) == sorted(ABSTENTION_OPENINGS)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ({"text": " "}, "the answer is empty"),
        ({"logprobs": None}, "the engine sent no log-probabilities"),
        ({"logprobs": (-1.0, None)}, "a token of the answer has no log-probability"),
        ({"finish_reason": "length"}, "the answer was cut by a limit that the client did not set"),
        (
            {"is_reasoning": True},
            "the engine sent no token ids, so reasoning cannot be told from the answer",
        ),
        (
            {
                "is_reasoning": True,
                "logprobs": (None, -1.0, -1.0),
                "token_ids": (50, END_THINK, 51),
            },
            "a token of the reasoning has no log-probability",
        ),
    ],
)
def test_without_evidence_there_are_no_features_but_the_reason(parts, reason: str) -> None:
    assert features_of(**parts) == reason


@given(
    st.lists(st.floats(-200.0, 0.0), min_size=1, max_size=70),
    st.lists(st.floats(-200.0, 0.0), max_size=70),
)
def test_every_feature_is_finite_and_on_its_side_of_zero(
    answer: list[float], reasoning: list[float]
) -> None:
    values = named(
        features_of(
            is_reasoning=True,
            logprobs=(*reasoning, -1.0, *answer),
            token_ids=(*(50,) * len(reasoning), END_THINK, *(51,) * len(answer)),
        )
    )
    for name, value in values.items():
        if value is None:
            assert name.endswith("margin")
            continue
        assert math.isfinite(value)
        is_logprob = name.endswith(("logprob", "_mean"))
        assert value <= 0 if is_logprob else value >= 0
