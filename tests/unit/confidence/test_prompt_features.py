"""Features of a prompt alone: small prompts by hand, and bodies that are not as they should be."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES, prompt_features

EMPTY = dict.fromkeys(PROMPT_FEATURE_NAMES, 0.0)


def features(payload: dict[str, Any]) -> dict[str, float]:
    return dict(zip(PROMPT_FEATURE_NAMES, prompt_features(payload), strict=True))


def counts(**counted: float) -> dict[str, float]:
    """Features of these values, all others 0."""
    assert counted.keys() <= EMPTY.keys()
    return {**EMPTY, **counted}


def log1p(count: int) -> float:
    """How counts are told."""
    return math.log(1 + count)


def test_a_question_by_hand() -> None:
    # 15 characters; the words "What", "is", "47", "*", "6?" have 4 + 2 + 2 + 1 + 2 = 11; the
    # numbers 47 and 6 have 3 digits, the longer one 2; one operator.
    assert features({"prompt": "What is 47 * 6?"}) == pytest.approx(
        counts(
            log_characters=log1p(15),
            log_last_turn_characters=log1p(15),
            log_turns=log1p(1),
            log_digits=log1p(3),
            longest_number=2,
            log_numbers=log1p(2),
            mean_word_length=11 / 5,
            operator_count=log1p(1),
        )
    )


def test_a_chat_by_hand() -> None:
    # Turns of 2, 4 and 3 characters: 9 in all. Joined by line ends: "Hi\n1+23\nA=b", so two line
    # ends, three words of 2 + 4 + 3 characters, the numbers 1 and 23, the operators + and =.
    turns = [("system", "Hi"), ("user", "1+23"), ("user", "A=b")]
    payload = {"messages": [{"role": role, "content": text} for role, text in turns]}
    assert features(payload) == pytest.approx(
        counts(
            log_characters=log1p(9),
            log_last_turn_characters=log1p(3),
            log_turns=log1p(3),
            log_digits=log1p(3),
            longest_number=2,
            log_numbers=log1p(2),
            log_lines=log1p(2),
            mean_word_length=3,
            operator_count=log1p(2),
        )
    )


def test_of_a_turn_in_parts_the_text_counts() -> None:
    image = {"type": "image_url", "image_url": {"url": "http://a/1234"}}
    parts = [{"type": "text", "text": "ab"}, image, {"type": "text", "text": "cd"}]
    in_parts = features({"messages": [{"role": "user", "content": parts}]})
    assert in_parts == features({"messages": [{"role": "user", "content": "abcd"}]})


def test_a_prompt_in_a_list_is_that_prompt() -> None:
    assert features({"prompt": ["one two"]}) == features({"prompt": "one two"})
    assert features({"prompt": [1, 2, 3]}) == EMPTY  # token ids are no text


def test_what_is_not_ascii_is_a_share() -> None:
    # Two of four characters.
    assert features({"prompt": "a\u00e9\u00e8b"})["non_ascii_share"] == pytest.approx(0.5)
    assert features({"prompt": "abcd"})["non_ascii_share"] == 0.0


@pytest.mark.parametrize("text", ["```x```", "def f():", "#include <a>"])
def test_code_is_seen(text: str) -> None:
    assert features({"prompt": text})["has_code"] == 1.0
    assert features({"prompt": "a definition"})["has_code"] == 0.0


def test_json_and_tools_are_seen_in_the_body() -> None:
    found = features({"prompt": "", "response_format": {"type": "json_object"}, "tools": [{}]})
    assert (found["asks_for_json"], found["has_tools"]) == (1.0, 1.0)
    without = features({"prompt": "", "response_format": None, "tools": []})
    assert (without["asks_for_json"], without["has_tools"]) == (0.0, 0.0)


def test_a_long_prompt_counts_as_long_and_only_its_beginning_is_looked_at() -> None:
    found = features({"prompt": "x" * 20_000 + "7" * 30_000})
    assert found["log_characters"] == pytest.approx(log1p(50_000))
    assert found["log_last_turn_characters"] == pytest.approx(log1p(20_000))
    assert found["log_digits"] == 0.0


def test_numbers_longer_than_twenty_digits_count_as_twenty() -> None:
    assert features({"prompt": "1" * 19})["longest_number"] == 19
    assert features({"prompt": "1" * 50})["longest_number"] == 20


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"prompt": None},
        {"prompt": 5},
        {"messages": None},
        {"messages": 5},
        {"messages": "hello"},
        {"messages": {"content": "hello"}},
        {"messages": ["hello", None, {}, {"content": None}, {"content": {"text": "x"}}]},
    ],
)
def test_a_body_without_text_has_none(payload: dict[str, Any]) -> None:
    assert features(payload) == EMPTY


def test_parts_that_are_no_parts_are_empty() -> None:
    content = [None, 5, "text", {"text": 5}, {"type": "text"}]
    found = features({"messages": [{"content": content}]})
    assert found == pytest.approx(counts(log_turns=log1p(1)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
MESSAGES = st.lists(st.dictionaries(st.sampled_from(["role", "content", "text"]), JSON, max_size=3))
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "prompt": JSON,
        "messages": JSON | MESSAGES,
        "response_format": JSON,
        "tools": JSON,
    },
)


@given(BODIES)
def test_no_body_is_too_odd_and_every_feature_is_finite(payload: dict[str, Any]) -> None:
    values = prompt_features(payload)
    assert len(values) == len(PROMPT_FEATURE_NAMES)
    assert all(isinstance(value, float) and math.isfinite(value) for value in values)
