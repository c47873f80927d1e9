"""Checks before any score: what is unfit to take, whatever its log-probabilities say."""

from typing import Any

import pytest
from builders import chat_request

from hybridserve_llm.confidence.checks import failed_check
from hybridserve_llm.confidence.schema_checks import answer_schema, expects_json, tool_schema
from hybridserve_llm.values.answers import Answer, ToolCall, Usage
from hybridserve_llm.values.requests import GenerateRequest

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
NOT_JSON = "the answer is not the JSON that was asked for"


def request(**payload: Any) -> GenerateRequest:
    formats = payload.get("response_format") or {}
    tools = payload.get("tools") or ()
    return chat_request(
        payload=payload,
        json_answer=formats.get("type") in ("json_object", "json_schema"),
        tool_names=frozenset(tool["function"]["name"] for tool in tools),
    )


def schema_request(schema: Any) -> GenerateRequest:
    json_schema = {"name": "answer", "schema": schema}
    return request(response_format={"type": "json_schema", "json_schema": json_schema})


def tool(name: str, parameters: Any = None) -> dict[str, Any]:
    function = {"name": name} if parameters is None else {"name": name, "parameters": parameters}
    return {"type": "function", "function": function}


def fault(asked: GenerateRequest, text: str = "", *calls: tuple[str, str]) -> str | None:
    answer = Answer(
        text=text,
        finish_reason="stop",
        tool_calls=tuple(ToolCall(name=name, arguments=arguments) for name, arguments in calls),
    )
    return failed_check(asked, answer, Usage())


ENDS = [
    ("stop", None),
    ("content_filter", "the answer was cut by a content filter"),
    ("length", "the answer was cut by a limit that the client did not set"),
    ("abort", "the engine gave the answer up (finish_reason 'abort')"),
    (None, "the engine gave the answer up (no finish_reason)"),
    ("repetition", "the answer is not known to be whole (finish_reason 'repetition')"),
    ("tool_calls", "the answer ended as a tool call, and it holds none"),
    ("function_call", "the answer ended as a tool call, and it holds none"),
]


@pytest.mark.parametrize(("finish_reason", "reason"), ENDS)
def test_only_a_whole_answer_passes(finish_reason, reason) -> None:
    answer = Answer(text="42", finish_reason=finish_reason)
    assert failed_check(request(), answer, Usage()) == reason


def test_an_answer_cut_at_the_clients_own_limit_passes() -> None:
    answer = Answer(text="42", finish_reason="length")
    asked = chat_request(max_output_tokens=2)
    assert failed_check(asked, answer, Usage(completion_tokens=2)) is None


def test_an_answer_that_cannot_be_read_fails() -> None:
    answer = Answer(text="", finish_reason="stop", unreadable="message is int, expected dict")
    reason = "the answer cannot be read: message is int, expected dict"
    assert failed_check(request(), answer, Usage()) == reason


def test_text_passes() -> None:
    assert fault(request(), "42") is None


def test_an_answer_that_fits_its_schema_passes() -> None:
    assert fault(schema_request(PERSON), '{"name": "Ada", "age": 36}') is None


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{"name": "Ada"}', "/required"),
        ('{"name": "Ada", "age": "36"}', "/properties/age/type"),
        ('{"name": "Ada", "age": -1}', "/properties/age/minimum"),
        ('{"name": "Ada", "age": 36, "x": 1}', "/additionalProperties"),
        ("[]", "/type"),
    ],
)
def test_an_answer_that_does_not_fit_its_schema_fails_and_the_place_is_told(
    text: str, place: str
) -> None:
    reason = f"the answer did not pass the JSON schema at {place}"
    assert fault(schema_request(PERSON), text) == reason


def test_an_answer_that_is_no_json_fails_before_its_schema() -> None:
    assert fault(schema_request(PERSON), "Ada, 36") == NOT_JSON


@pytest.mark.parametrize(
    "payload",
    [
        {"structured_outputs": {"json": PERSON}},
        {"structured_outputs": {"json": '{"type": "object", "required": ["name"]}'}},
        {"guided_json": PERSON},
    ],
)
def test_vllms_own_fields_name_a_schema_too(payload: dict[str, Any]) -> None:
    assert fault(request(**payload), '{"name": "Ada", "age": 36}') is None
    assert "/required" in (fault(request(**payload), "{}") or "")
    assert fault(request(**payload), "Ada") == NOT_JSON


def test_json_without_a_schema_must_only_parse() -> None:
    asked = request(response_format={"type": "json_object"})
    assert fault(asked, '{"any": 1}') is None
    assert fault(asked, "{") == NOT_JSON
    assert fault(request(structured_outputs={"json_object": True}), "{") == NOT_JSON


@pytest.mark.parametrize("text", ["123", '"a"', "[]", "null"])
def test_json_object_wants_an_object(text: str) -> None:
    reason = "the answer is JSON, and not the object that was asked for"
    assert fault(request(response_format={"type": "json_object"}), text) == reason
    assert fault(request(structured_outputs={"json_object": True}), text) == reason


@pytest.mark.parametrize(
    "payload",
    [
        {},
        {"response_format": None},
        {"response_format": {"type": "text"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": {"type": "json_schema", "json_schema": "x"}},
        {"structured_outputs": {"choice": ["a", "b"]}},
        {"structured_outputs": 3},
    ],
)
def test_a_request_without_a_schema_has_none(payload: dict[str, Any]) -> None:
    assert answer_schema(request(**payload)) is None


def test_a_schema_alone_means_that_json_is_expected() -> None:
    assert expects_json(request(guided_json={}))
    assert not expects_json(request(response_format={"type": "text"}))


UNCHECKABLE = {
    "unknown type": {"type": "any"},
    "draft 3": {"properties": {"a": {"required": True}}},
    "not a schema": 5,
    "not JSON": '{"type": ',
    "no bytes": {"const": "\ud800"},
    "reference to nothing": {"$ref": "#/$defs/missing"},
    "reference to a host": {"$ref": "http://127.0.0.1:9/schema.json"},
    "reference to a file": {"$ref": "file:///etc/hostname"},
    "unknown dialect": {"$schema": "urn:nobody"},
    "broken pattern": {"pattern": "("},
    "look-around": {"pattern": "^(?=a)"},
}


@pytest.mark.parametrize("schema", UNCHECKABLE.values(), ids=UNCHECKABLE)
def test_a_schema_that_cannot_be_checked_lets_nothing_through(schema: Any) -> None:
    reason = "the answer cannot be checked: its JSON schema is invalid or not supported"
    assert fault(schema_request(schema), '{"a": 1}') == reason


@pytest.mark.parametrize(
    "schema", [{}, True, {"$ref": "#"}, {"$defs": {"a": {}}, "$ref": "#/$defs/a"}]
)
def test_a_schema_that_fits_everything_fits(schema: Any) -> None:
    assert fault(schema_request(schema), '{"a": 1}') is None


def test_a_clients_pattern_cannot_hold_up_the_server() -> None:
    # Exponential for an engine that backtracks.
    asked = schema_request({"type": "string", "pattern": "^(a|aa)+$"})
    assert fault(asked, '"' + "a" * 10_000 + 'b"') is not None


def test_deep_answers_and_deep_schemas_are_no_crash() -> None:
    recursive = {"properties": {"a": {"$ref": "#"}}, "type": "object"}
    deep = '{"a":' * 1000 + "{}" + "}" * 1000
    assert fault(schema_request(recursive), deep) is None
    assert fault(schema_request(PERSON), '{"a":' * 2000 + "{}" + "}" * 2000) == NOT_JSON
    nested: dict[str, Any] = {}
    for _ in range(200):
        nested = {"not": nested}
    assert "cannot be checked" in (fault(schema_request(nested), "1") or "")


def test_a_pointer_escapes_what_rfc_6901_says() -> None:
    schema = {"properties": {"a/b~c": {"type": "string"}}}
    reason = "the answer did not pass the JSON schema at /properties/a~1b~0c/type"
    assert fault(schema_request(schema), '{"a/b~c": 1}') == reason


OFFERED = request(tools=[tool("add", PERSON), tool("now")])


def test_arguments_that_fit_pass() -> None:
    assert fault(OFFERED, "", ("add", '{"name": "x", "age": 1}'), ("now", "{}")) is None


@pytest.mark.parametrize(
    ("name", "arguments", "reason"),
    [
        ("rm", "{}", "the answer calls a tool that was not offered: 'rm'"),
        ("now", "{", "the arguments of tool 'now' are not JSON"),
        ("add", "{}", "the arguments of tool 'add' did not pass the JSON schema at /required"),
        (
            "add",
            '{"name": 1, "age": 1}',
            "the arguments of tool 'add' did not pass the JSON schema at /properties/name/type",
        ),
    ],
)
def test_a_call_that_is_unfit_fails(name: str, arguments: str, reason: str) -> None:
    assert fault(OFFERED, "", ("now", "{}"), (name, arguments)) == reason


@pytest.mark.parametrize("schema", UNCHECKABLE.values(), ids=UNCHECKABLE)
def test_what_cannot_be_checked_of_a_tools_schema_is_left_out_of_the_check(schema: Any) -> None:
    asked = request(tools=[tool("odd", schema)])
    assert fault(asked, "", ("odd", '{"a": 1}')) is None
    if schema == UNCHECKABLE["no bytes"]:  # never comes from JSON
        return
    city = {"type": "object", "required": ["city"], "properties": {"odd": schema}}
    asked = request(tools=[tool("weather", city)])
    assert fault(asked, "", ("weather", '{"city": "Paris", "odd": 1}')) is None
    assert "/required" in (fault(asked, "", ("weather", '{"odd": 1}')) or "")


def test_a_tool_without_parameters_may_be_called_with_no_text() -> None:
    nothing = {"type": "object", "properties": {}}
    asked = request(tools=[tool("now"), tool("then", nothing), tool("add", PERSON)])
    assert fault(asked, "", ("now", "")) is None
    assert fault(asked, "", ("then", " ")) is None
    assert fault(asked, "", ("add", "")) == "the arguments of tool 'add' are not JSON"


MARKUP = [
    '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>',
    "Let me see. <function=now></function>",
    "<|tool_call|>now",
    "<|tool_calls_section_begin|><|tool_call_begin|>functions.now:0<|tool_call_end|>",
    "<\uff5ctool\u2581calls\u2581begin\uff5c>now",
    '[TOOL_CALLS][{"name": "now", "arguments": {}}]',
    "[TOOL_CALLS]now{}",
    "<|python_tag|>now()",
    "<minimax:tool_call><invoke name='now'></invoke></minimax:tool_call>",
    "<function_calls>",
    "<|START_ACTION|>[]",
    'functools[{"name": "now"}]',
    "<|channel|>commentary to=functions.now <|constrain|>json<|message|>{}",
    "<start_function_call>call:now{}<end_function_call>",
    '{"name": "now", "parameters": {}}',
    '```json\n{"name": "now", "arguments": {}}\n```',
    '[{"name": "now", "arguments": {}}]',
    "[now()]",
    "now(zone='UTC')",
]


@pytest.mark.parametrize("text", MARKUP)
def test_a_call_that_no_parser_found_is_no_text(text: str) -> None:
    asked = request(tools=[tool("now"), tool("add", PERSON)])
    reason = "the answer has the markup of a tool call in its text"
    assert fault(asked, text) == reason
    assert fault(asked, text, ("now", "{}")) == reason
    assert fault(request(), text) is None


@pytest.mark.parametrize(
    "text",
    [
        "It is noon now (in Paris).",
        "Call `now()` to get the time.",
        "a < b, and the function f(x) > 0",
        '{"name": "Ada", "age": 36}',
        "<b>bold</b> and <div class='x'>",
        "[1, 2, 3]",
        '{"name": ["now"], "arguments": {}}',
        "<" + "tool" * 50_000,
    ],
)
def test_text_that_only_looks_like_markup_passes_where_tools_are_offered(text: str) -> None:
    assert fault(request(tools=[tool("now")]), text) is None


def test_one_call_at_a_time_is_obeyed() -> None:
    asked = request(tools=[tool("now")], parallel_tool_calls=False)
    assert fault(asked, "", ("now", "{}")) is None
    reason = "the answer calls 2 tools, and the client wanted one call at a time"
    assert fault(asked, "", ("now", "{}"), ("now", "{}")) == reason


def test_a_tool_without_parameters_has_no_schema() -> None:
    assert tool_schema(OFFERED, "now") is None
    assert tool_schema(request(), "now") is None
    assert tool_schema(OFFERED, "add") == PERSON


UNKNOWN_FORM = "the answer cannot be checked: tool_choice has an unknown form"
NAMED = {"type": "function", "function": {"name": "now"}}


def allowed(mode: str, *tools: dict[str, Any]) -> dict[str, Any]:
    return {"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": list(tools)}}


CHOICES: list[tuple[Any, tuple[tuple[str, str], ...], str | None]] = [
    ("auto", (), None),
    ("auto", (("now", "{}"),), None),
    ("none", (), None),
    ("none", (("now", "{}"),), "the answer calls a tool, and the client wanted none called"),
    ("required", (), "the answer calls no tool, and the client required one"),
    ("required", (("now", "{}"),), None),
    (NAMED, (("now", "{}"),), None),
    (NAMED, (), "the answer does not call the tool that the client named: 'now'"),
    (
        NAMED,
        (("add", '{"name": "x", "age": 1}'),),
        "the answer does not call the tool that the client named: 'now'",
    ),
    ({"type": "function", "name": "now"}, (("now", "{}"),), None),
    (allowed("auto", NAMED), (), None),
    (allowed("auto", NAMED), (("now", "{}"),), None),
    (allowed("required", NAMED), (), "the answer calls no tool, and the client required one"),
    (
        allowed("auto", NAMED),
        (("add", '{"name": "x", "age": 1}'),),
        "the answer calls a tool that the client did not allow: 'add'",
    ),
    ({"type": "allowed_tools", "mode": "auto", "tools": [NAMED]}, (("now", "{}"),), None),
    (
        {"type": "allowed_tools"},
        (("now", "{}"),),
        "the answer calls a tool that the client did not allow: 'now'",
    ),
    ({"type": "custom"}, (), UNKNOWN_FORM),
    ({"type": ["function"]}, (), UNKNOWN_FORM),
    ("any", (), UNKNOWN_FORM),
    (3, (), UNKNOWN_FORM),
    (
        {"type": "function", "function": {"name": ["now"]}},
        (("now", "{}"),),
        "the answer does not call the tool that the client named: None",
    ),
]


@pytest.mark.parametrize(("choice", "calls", "reason"), CHOICES)
def test_the_clients_choice_of_tools_is_obeyed(choice, calls, reason) -> None:
    asked = request(tools=[tool("add", PERSON), tool("now")], tool_choice=choice)
    assert fault(asked, "text", *calls) == reason
