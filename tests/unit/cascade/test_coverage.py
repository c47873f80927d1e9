"""Which requests a certificate covers: those like the calibration's questions, and no others."""

from typing import Any

import pytest
from builders import chat_request

from hybridserve_llm.cascade.coverage import (
    DEMAND_FIELDS,
    HARMLESS_FIELDS,
    SAMPLING_FIELDS,
    Coverage,
    demands_of,
    rescoring_of,
    sampling_of,
    unknown_fields,
)
from hybridserve_llm.values.ledger import Gap
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, Rescoring

GREEDY = Coverage(endpoints=frozenset({Endpoint.CHAT}), sampling={"temperature": 0})


def request(payload: dict[str, Any], **changes: Any) -> GenerateRequest:
    return chat_request(payload=payload, **changes)


def gap_of(coverage: Coverage, asked: GenerateRequest) -> Gap | None:
    found = coverage.gap(asked)
    return None if found is None else found.gap


@pytest.mark.parametrize(
    ("payload", "is_covered"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.7}, False),
        ({}, False),
        ({"temperature": None}, False),
        ({"temperature": 0, "repetition_penalty": 1.1}, False),
        ({"temperature": 0, "top_p": 0.9}, False),
        ({"temperature": 0, "top_p": None}, True),
        ({"temperature": 0, "n": 1}, True),
        ({"temperature": 0, "n": 2}, False),
        ({"temperature": 0, "stop": []}, True),
        ({"temperature": 0, "stop": ["\n"]}, False),
        ({"temperature": 0, "logit_bias": {}}, True),
        ({"temperature": 0, "logit_bias": {"5": 1}}, False),
        ({"temperature": 0, "presence_penalty": 0}, False),
        ({"temperature": 0, "ignore_eos": False, "skip_special_tokens": True}, True),
        ({"temperature": 0, "chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"temperature": 0, "thinking_token_budget": 16}, False),
        # Neither changes what is written to a prompt: the one cuts it, the other picks one draw.
        ({"temperature": 0, "max_tokens": 5, "max_completion_tokens": 5}, True),
        ({"temperature": 0, "seed": 7, "user": "u"}, True),
    ],
)
def test_a_request_is_covered_with_the_certificates_settings_and_no_others(
    payload: dict[str, Any], is_covered: bool
) -> None:
    assert gap_of(GREEDY, request(payload)) is (None if is_covered else Gap.SETTING)


def test_another_setting_is_named_with_both_values() -> None:
    found = GREEDY.gap(request({"temperature": 0.7}))
    assert found is not None
    assert found.reason == "temperature is 0.7; in the calibration it was 0"


@pytest.mark.parametrize("name", ["documents", "stop", "chat_template", "a secret " * 50])
def test_no_text_of_a_client_gets_into_the_reason(name: str) -> None:
    found = GREEDY.gap(request({"temperature": 0, name: "a secret of the prompt"}))
    assert found is not None
    assert "of the prompt" not in found.reason
    assert len(found.reason) < 150


def test_a_certificate_without_settings_covers_requests_without_settings() -> None:
    plain = Coverage(endpoints=frozenset({Endpoint.CHAT}), sampling={})
    assert plain.gap(request({"messages": [], "max_tokens": 5})) is None
    assert gap_of(plain, request({"temperature": 1})) is Gap.SETTING


def test_the_other_endpoint_is_not_covered() -> None:
    completions = request({"temperature": 0}, endpoint=Endpoint.COMPLETIONS)
    assert gap_of(GREEDY, completions) is Gap.ENDPOINT
    both = Coverage(endpoints=frozenset(Endpoint), sampling={"temperature": 0})
    assert both.gap(completions) is None


@pytest.mark.parametrize(
    "field", ["regex", "ebnf", "guided_choice", "structural_tag", "json_schema", "of_next_year"]
)
def test_a_field_that_nobody_knows_covers_nothing(field: str) -> None:
    asked = {"temperature": 0, field: "x"}
    assert gap_of(GREEDY, request(asked)) is Gap.UNKNOWN_FIELD
    assert gap_of(GREEDY, request({**asked, field: None})) is None


TOOLS = [{"type": "function", "function": {"name": "f"}}]
IMAGE = [{"role": "user", "content": [{"type": "text", "text": "?"}, {"type": "image_url"}]}]
DEMANDS: list[tuple[dict[str, Any], set[str]]] = [
    ({}, set()),
    ({"response_format": {"type": "text"}}, set()),
    ({"response_format": {"type": "json_schema"}}, {"response_format.json_schema"}),
    ({"response_format": {"type": "new"}}, {"response_format.unknown"}),
    ({"response_format": {"type": ["json_object"]}}, {"response_format.unknown"}),
    ({"response_format": 3}, {"response_format.unknown"}),
    ({"structured_outputs": {"json": 0}}, {"structured_outputs.json"}),
    ({"structured_outputs": {"choice": ["a"]}}, {"structured_outputs.choice"}),
    ({"structured_outputs": {"choice": None}}, set()),
    ({"structured_outputs": {"new": "a"}}, {"structured_outputs.unknown"}),
    ({"structured_outputs": "a"}, {"structured_outputs.unknown"}),
    ({"tools": []}, set()),
    ({"tools": TOOLS}, {"tools"}),
    ({"tools": TOOLS, "tool_choice": "auto", "parallel_tool_calls": True}, {"tools"}),
    ({"tools": TOOLS, "tool_choice": "required"}, {"tools", "tool_choice.required"}),
    ({"tools": TOOLS, "tool_choice": {"type": "function"}}, {"tools", "tool_choice.function"}),
    ({"tools": TOOLS, "parallel_tool_calls": False}, {"tools", "parallel_tool_calls.false"}),
    ({"tools": [{"type": "custom"}, *TOOLS]}, {"tools", "tools.custom"}),
    ({"tools": [{"type": ["function"]}]}, {"tools", "tools.unknown"}),
    ({"tools": "x"}, {"tools", "tools.unknown"}),
    ({"tools": TOOLS, "tool_choice": {"type": {}}}, {"tools", "tool_choice.unknown"}),
    ({"tools": TOOLS, "tool_choice": 3}, {"tools", "tool_choice.unknown"}),
    ({"messages": IMAGE}, {"messages.image_url"}),
    ({"messages": [{"role": "user", "content": {"type": "image_url"}}]}, {"messages.unknown"}),
    ({"messages": [{"role": "user", "content": [3]}]}, {"messages.unknown"}),
]


@pytest.mark.parametrize(("payload", "demands"), DEMANDS)
def test_demands_on_the_form_of_the_answer_are_named(
    payload: dict[str, Any], demands: set[str]
) -> None:
    assert demands_of(payload) == demands


def test_demands_are_covered_in_the_combinations_of_the_calibration() -> None:
    choice = {"structured_outputs": {"choice": ["1", "2"]}}
    calibrated = Coverage(
        endpoints=frozenset({Endpoint.CHAT}),
        sampling={},
        demands=frozenset({frozenset({"structured_outputs.choice"})}),
    )
    assert calibrated.gap(request(choice)) is None
    assert gap_of(calibrated, request({})) is Gap.DEMAND
    assert gap_of(calibrated, request({**choice, "tools": TOOLS})) is Gap.DEMAND
    assert gap_of(GREEDY, request({"temperature": 0, **choice})) is Gap.DEMAND


RESCORED: list[tuple[dict[str, Any], Rescoring]] = [
    ({}, Rescoring.NEVER),
    ({"messages": IMAGE}, Rescoring.NEVER),
    ({"response_format": {"type": "text"}}, Rescoring.NEVER),
    ({"response_format": {"type": "json_object"}}, Rescoring.ALWAYS),
    ({"structured_outputs": {"regex": "a"}}, Rescoring.ALWAYS),
    ({"of_next_year": 1}, Rescoring.ALWAYS),
    ({"tools": TOOLS}, Rescoring.OF_CALLS),
    ({"tools": TOOLS, "parallel_tool_calls": False}, Rescoring.OF_CALLS),
    ({"tools": [{"type": "custom"}]}, Rescoring.ALWAYS),
    ({"tools": TOOLS, "tool_choice": "none"}, Rescoring.NEVER),
    ({"tools": TOOLS, "tool_choice": "required"}, Rescoring.ALWAYS),
    ({"tools": TOOLS, "tool_choice": {"type": "allowed_tools"}}, Rescoring.ALWAYS),
]


@pytest.mark.parametrize(("payload", "rescoring"), RESCORED)
def test_answers_that_a_constraint_may_have_narrowed_are_scored_anew(
    payload: dict[str, Any], rescoring: Rescoring
) -> None:
    assert rescoring_of(payload) is rescoring


def test_a_demand_that_nobody_knows_is_not_covered_even_if_the_calibration_had_one() -> None:
    asked = {"response_format": {"type": "new"}}
    calibrated = Coverage(
        endpoints=frozenset(Endpoint), sampling={}, demands=frozenset({demands_of(asked)})
    )
    assert gap_of(calibrated, request(asked)) is Gap.DEMAND


def test_no_field_is_of_two_kinds_apart_from_n() -> None:
    assert {"n"} == HARMLESS_FIELDS & SAMPLING_FIELDS
    assert not DEMAND_FIELDS & (HARMLESS_FIELDS | SAMPLING_FIELDS)


def test_sampling_settings_are_separated_from_the_rest_of_a_body() -> None:
    everything = dict.fromkeys(SAMPLING_FIELDS, "x")
    assert sampling_of({**everything, "messages": [], "tools": [], "seed": 1}) == everything
    assert sampling_of(dict.fromkeys(SAMPLING_FIELDS)) == {}
    known = [*HARMLESS_FIELDS, *SAMPLING_FIELDS, *DEMAND_FIELDS]
    assert unknown_fields(dict.fromkeys(known, "x")) == []
