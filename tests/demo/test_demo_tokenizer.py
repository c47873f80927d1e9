"""The demo tokenizer: every text can be tokenized, and comes back as it was."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launch.demo.tokenizer import MARKERS, VOCABULARY_SIZE, build_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@settings(max_examples=100, deadline=None)
@given(text=st.text())
def test_every_text_comes_back(tokenizer, text: str) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if not any(token in text for token in MARKERS):
        assert len(ids) == len(text.encode("utf-8"))
    assert tokenizer.decode(ids, skip_special_tokens=False) == text
    assert all(0 <= i < VOCABULARY_SIZE for i in ids)


def test_markers_are_single_tokens(tokenizer) -> None:
    for i, token in enumerate(MARKERS):
        assert tokenizer(token, add_special_tokens=False)["input_ids"] == [i]


def test_chat_template_writes_all_three_roles(tokenizer) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "2 + 2 = ?"},
        {"role": "assistant", "content": "4"},
        {"role": "user", "content": "3 + 3 = ?"},
    ]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert text == (
        "<|system|>Be brief.<|end|><|user|>2 + 2 = ?<|end|><|assistant|>4<|end|>"
        "<|user|>3 + 3 = ?<|end|><|assistant|>"
    )


def test_reasoning_markers_survive_where_special_tokens_are_left_out(tokenizer) -> None:
    ids = tokenizer("<think>hm</think>5<|end|>", add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think>hm</think>5"
