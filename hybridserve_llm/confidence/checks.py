"""Check answers before they are scored: an answer that fails gets no score, but a reason.

An answer may be fluent and sure of itself and still be unfit to take: cut off, empty, not the JSON
that was asked for, or a call of a tool that nobody offered. Log-probabilities cannot see this.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from hybridserve_llm.confidence.schema_checks import (
    answer_schema,
    expects_json,
    schema_fault,
    tool_schema,
)
from hybridserve_llm.values.answers import Answer, ToolCall, Usage
from hybridserve_llm.values.ends import End, end_of, unfit_end
from hybridserve_llm.values.requests import GenerateRequest


def failed_check(request: GenerateRequest, answer: Answer, usage: Usage) -> str | None:
    """Return why this answer may not be scored, or None when it passes every check."""
    cut = _cut(request, answer, usage)
    if cut is not None:
        return cut
    if answer.unreadable is not None:
        return f"the answer cannot be read: {answer.unreadable}"
    disobeyed = _disobeyed_tool_choice(request, answer)
    if disobeyed is not None:
        return disobeyed
    if answer.tool_calls:
        faults = (_failed_tool_check(request, call) for call in answer.tool_calls)
        return next((fault for fault in faults if fault is not None), None)
    if answer.finish_reason in ("tool_calls", "function_call"):
        return "the answer ended as a tool call, and it holds none"
    if not answer.text.strip():
        return "the answer is empty"
    return _failed_json_check(request, answer.text) if expects_json(request) else None


def _cut(request: GenerateRequest, answer: Answer, usage: Usage) -> str | None:
    """Return why the answer is not known to be whole; an answer at the client's limit is whole."""
    end = end_of(answer.finish_reason)
    if end is End.FILTERED:
        return "the answer was cut by a content filter"
    if end is End.CUT and not _cut_at_clients_limit(request, usage):
        return "the answer was cut by a limit that the client did not set"
    return unfit_end(answer.finish_reason)


def _cut_at_clients_limit(request: GenerateRequest, usage: Usage) -> bool:
    """Return True where the answer reached the client's own token limit.

    `usage` counts all choices together; for several choices the engine's count is a multiple, so
    reaching the limit in total is necessary and, for one choice, sufficient.
    """
    limit = request.max_output_tokens
    return limit is not None and (usage.completion_tokens or 0) >= limit


def _disobeyed_tool_choice(request: GenerateRequest, answer: Answer) -> str | None:
    choice = request.payload.get("tool_choice")
    if choice == "none" and answer.tool_calls:
        return "the answer calls a tool, and the client wanted none called"
    if choice == "required" and not answer.tool_calls:
        return "the answer calls no tool, and the client required one"
    if isinstance(choice, Mapping) and choice.get("type") == "function":
        function = choice.get("function")
        name = function.get("name") if isinstance(function, Mapping) else None
        if {call.name for call in answer.tool_calls} != {name}:
            return f"the answer does not call the tool that the client named: {name!r}"
    return None


def _failed_tool_check(request: GenerateRequest, call: ToolCall) -> str | None:
    if call.name not in request.tool_names:
        return f"the answer calls a tool that was not offered: {call.name!r}"
    try:
        arguments: Any = orjson.loads(call.arguments)
    except orjson.JSONDecodeError:
        return f"the arguments of tool {call.name!r} are not JSON"
    subject = f"the arguments of tool {call.name!r}"
    return schema_fault(subject, tool_schema(request, call.name), arguments)


def _failed_json_check(request: GenerateRequest, text: str) -> str | None:
    try:
        parsed: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "the answer is not the JSON that was asked for"
    return schema_fault("the answer", answer_schema(request), parsed)
