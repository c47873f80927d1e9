"""Bodies become requests: what passes to engines, what is refused, what is read for the checks."""

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError

from hybridserve_llm.errors import InvalidRequest
from hybridserve_llm.server.protocol import ChatBody, CompletionBody, GenerationBody
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, Overrides

CHAT: dict[str, Any] = {"model": "hybridserve", "messages": [{"role": "user", "content": "hi"}]}


def converted(
    raw: dict[str, Any], kind: type[GenerationBody] = ChatBody, only_tier: str | None = None
) -> GenerateRequest:
    body = kind.model_validate(raw)
    return body.to_request(raw, request_id="r1", deadline_s=9.0, only_tier=only_tier)


def test_engine_parameters_that_we_do_not_know_pass_as_they_are() -> None:
    request = converted({**CHAT, "top_k": 5, "seed": 1, "chat_template_kwargs": {"x": True}})
    assert request.payload["top_k"] == 5
    assert request.payload["chat_template_kwargs"] == {"x": True}
    assert request.payload["messages"] == CHAT["messages"]


@pytest.mark.parametrize("field", ["n", "stream", "stream_options", "hybridserve", "tools"])
def test_null_in_a_chat_means_left_out(field: str) -> None:
    nulled = converted({**CHAT, field: None})
    assert dataclasses.replace(nulled, payload=CHAT) == dataclasses.replace(
        converted(CHAT), payload=CHAT
    )


@pytest.mark.parametrize("field", ["n", "stream", "echo", "logprobs", "hybridserve"])
def test_null_in_a_completion_means_left_out(field: str) -> None:
    body = CompletionBody.model_validate({"model": "hybridserve", "prompt": "hi", field: None})
    assert body == CompletionBody(model="hybridserve", prompt="hi")


def test_fields_named_like_our_own_attributes_pass_too() -> None:
    extra = {"endpoint": "x", "to_request": 1, "_payload": 2, "_tool_names": ["y"]}
    request = converted({**CHAT, **extra})
    assert request.payload == {"messages": CHAT["messages"], **extra}
    assert (request.endpoint, request.tool_names) == (Endpoint.CHAT, frozenset())


def test_null_in_a_field_that_is_required_is_a_field_that_is_missing() -> None:
    with pytest.raises(ValidationError, match="Field required"):
        ChatBody.model_validate({**CHAT, "messages": None})


@pytest.mark.parametrize(
    ("given", "limit"), [({}, 16), ({"max_tokens": None}, 16), ({"max_tokens": 5}, 5)]
)
def test_a_completion_without_a_limit_has_the_apis_own(given: dict[str, Any], limit: int) -> None:
    request = converted({"model": "hybridserve", "prompt": "hi", **given}, CompletionBody)
    assert (request.max_output_tokens, request.payload["max_tokens"]) == (limit, limit)


def test_a_chat_without_a_limit_has_none() -> None:
    request = converted(CHAT)
    assert request.max_output_tokens is None
    assert "max_tokens" not in request.payload


def test_what_is_set_per_attempt_does_not_pass() -> None:
    raw = {
        **CHAT,
        "stream": True,
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "top_logprobs": 3,
        "hybridserve": {"min_tier": "medium"},
    }
    request = converted(raw)
    assert set(request.payload) == {"messages"}
    assert (request.stream, request.include_usage) == (True, True)
    assert request.client_top_logprobs == 3
    assert request.overrides.min_tier == "medium"


def test_a_tier_named_as_model_is_the_only_one_asked() -> None:
    request = converted(CHAT, only_tier="giant")
    assert (request.only_tier, request.overrides) == ("giant", Overrides())


def test_overrides_make_no_sense_with_a_tiers_own_name() -> None:
    with pytest.raises(InvalidRequest, match="overrides are for the cascade"):
        converted({**CHAT, "hybridserve": {"min_tier": "giant"}}, only_tier="small")


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 7}, 7),
        ({"max_tokens": 5, "max_completion_tokens": 7}, 7),
    ],
)
def test_the_clients_limit_under_either_name(fields: dict[str, int], limit: int | None) -> None:
    assert converted({**CHAT, **fields}).max_output_tokens == limit


def test_tools_and_json_format_are_read_for_the_checks() -> None:
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    request = converted({**CHAT, "tools": [tool], "response_format": {"type": "json_object"}})
    assert request.tool_names == {"add"}
    assert request.json_answer


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": [1, 2], "echo": True, "logprobs": 1}, "echo"),  # as lm-evaluation-harness asks
        ({"prompt": "a", "prompt_logprobs": 0}, "prompt_logprobs"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": [[1], [2]]}, "prompt"),
        ({"prompt": ["a", "b"]}, "prompt"),
    ],
)
def test_what_only_a_single_tier_can_honour_is_refused_by_the_cascade(
    fields: dict[str, Any], parameter: str
) -> None:
    raw = {"model": "hybridserve", **fields}
    with pytest.raises(InvalidRequest) as caught:
        converted(raw, CompletionBody)
    assert caught.value.parameter == parameter
    assert converted(raw, CompletionBody, only_tier="small").endpoint is Endpoint.COMPLETIONS


def test_a_log_likelihood_is_refused_with_what_to_do_instead() -> None:
    raw = {"model": "hybridserve", "prompt": "a", "echo": True}
    with pytest.raises(InvalidRequest, match=r"is one model's.*ask one tier, by its own name"):
        converted(raw, CompletionBody)
    with pytest.raises(InvalidRequest, match="prompt_logprobs: the log-likelihood"):
        converted({**CHAT, "prompt_logprobs": 1})
    # In a chat `echo` repeats the last message, and no log-likelihood is asked for.
    assert converted({**CHAT, "echo": True}).payload["echo"] is True
