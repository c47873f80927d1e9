"""Check the tool calls of an answer: what the client allowed, and what the model wrote instead.

A tier's parser finds calls in the markup that the model wrote. Where it misses one, the markup is
left in the text, and the answer looks like text that is sure of itself.
"""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from hybridserve_llm.confidence.schema_checks import (
    schema_fault,
    takes_no_arguments,
    tool_schema,
)
from hybridserve_llm.values.answers import Answer, ToolCall
from hybridserve_llm.values.requests import GenerateRequest

_MARKUP = re.compile(
    # <tool_call>, </function_calls>, <function=add>, <|tool_call|>, <x:tool_call>. DeepSeek writes
    # a wide bar (U+FF5C) and a low block (U+2581) for the bar and the underscore.
    # Every repeat is bounded, so that hostile text costs its length and not its square.
    r"<[/|\uff5c]?[\w:\u2581.|-]{0,40}(?:tool|function)[\w:\u2581.-]{0,40}"
    r"(?:[= ][^<>\n]{0,200})?[|\uff5c]?>"
    r"|\[/?(?:TOOL_|END_TOOL_|AVAILABLE_TOOLS)"
    r"|<\|(?:python_tag|plugin|action_(?:start|end)|(?:START|END)_ACTION|channel)\|>"
    r"|<invoke\b|\bfunctools\[|\bto=functions\.",
    re.IGNORECASE,
)
"""The marks around tool calls in the chat formats that vLLM has parsers for
(`vllm/tool_parsers` of 0.32), and others of the same shapes."""


def failed_tool_check(request: GenerateRequest, answer: Answer) -> str | None:
    """Return why the calls of the answer, or their absence, are not what the client asked for."""
    calls = answer.tool_calls
    if not calls and answer.finish_reason in ("tool_calls", "function_call"):
        return "the answer ended as a tool call, and it holds none"
    if len(calls) > 1 and request.payload.get("parallel_tool_calls") is False:
        return f"the answer calls {len(calls)} tools, and the client wanted one call at a time"
    if request.tool_names and _is_raw_call(request, answer.text):
        return "the answer has the markup of a tool call in its text"
    disobeyed = _disobeyed_choice(request, calls)
    if disobeyed is not None:
        return disobeyed
    faults = (_failed_call(request, call) for call in calls)
    return next((fault for fault in faults if fault is not None), None)


def _is_raw_call(request: GenerateRequest, text: str) -> bool:
    """Return True where the text holds a call that was not parsed, in markup, JSON or Python."""
    if _MARKUP.search(text) is not None:
        return True
    bare = text.strip().removeprefix("```json").removeprefix("```").removesuffix("```").strip()
    names = "|".join(re.escape(name) for name in request.tool_names if name)
    if names and re.fullmatch(rf"\[?(?:{names})\(.*\)\]?", bare, re.DOTALL):
        return True
    try:
        parsed: Any = orjson.loads(bare)
    except orjson.JSONDecodeError:
        return False
    first = parsed[0] if isinstance(parsed, list) and parsed else parsed
    if not isinstance(first, dict) or first.keys().isdisjoint({"arguments", "parameters"}):
        return False
    return isinstance(first.get("name"), str) and first["name"] in request.tool_names


def _disobeyed_choice(request: GenerateRequest, calls: tuple[ToolCall, ...]) -> str | None:
    """Return how the calls go against `tool_choice`, in any form that it has."""
    choice = request.payload.get("tool_choice")
    if choice is None or choice == "auto":
        return None
    if choice == "none":
        return "the answer calls a tool, and the client wanted none called" if calls else None
    if choice == "required":
        return None if calls else "the answer calls no tool, and the client required one"
    kind = choice.get("type") if isinstance(choice, Mapping) else None
    if kind == "function":
        name = _function_name(choice)
        is_obeyed = bool(calls) and all(call.name == name for call in calls)
        reason = f"the answer does not call the tool that the client named: {name!r}"
        return None if is_obeyed else reason
    if kind == "allowed_tools":
        return _disobeyed_list(choice, calls)
    return "the answer cannot be checked: tool_choice has an unknown form"


def _disobeyed_list(choice: Mapping[str, Any], calls: tuple[ToolCall, ...]) -> str | None:
    """Return how the calls go against a list of allowed tools."""
    # Chat completions nest the list; the Responses API does not.
    nested = choice.get("allowed_tools")
    allowed = nested if isinstance(nested, Mapping) else choice
    tools = allowed.get("tools")
    names = [_function_name(tool) for tool in tools] if isinstance(tools, list) else []
    for call in calls:
        if call.name not in names:
            return f"the answer calls a tool that the client did not allow: {call.name!r}"
    if allowed.get("mode") == "required" and not calls:
        return "the answer calls no tool, and the client required one"
    return None


def _function_name(named: Any) -> str | None:
    """Return the name of a function, which is nested in chat completions only."""
    if not isinstance(named, Mapping):
        return None
    function = named.get("function")
    name = (function if isinstance(function, Mapping) else named).get("name")
    return name if isinstance(name, str) else None


def _failed_call(request: GenerateRequest, call: ToolCall) -> str | None:
    if call.name not in request.tool_names:
        return f"the answer calls a tool that was not offered: {call.name!r}"
    schema = tool_schema(request, call.name)
    # Some parsers write no arguments as no text.
    is_empty = not call.arguments.strip() and takes_no_arguments(schema)
    try:
        arguments: Any = {} if is_empty else orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        return f"the arguments of tool {call.name!r} are not JSON"
    subject = f"the arguments of tool {call.name!r}"
    return schema_fault(subject, schema, arguments, must_be_whole=False)
