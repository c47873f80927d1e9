"""Checks that come before any score: an answer that fails one gets none, and the reason is told.

An answer may be fluent and sure of itself and still be unfit to take: cut off, empty, not the JSON
that was asked for, or a call of a tool that nobody offered. Log-probabilities cannot see this.
"""

import orjson

from hybridserve_llm.records import Answer, GenerateRequest, Usage


def failed_check(request: GenerateRequest, answer: Answer, usage: Usage) -> str | None:
    """Why this answer may not be scored, or None when it passes every check."""
    if answer.finish_reason == "length" and not _cut_at_clients_limit(request, usage):
        return "the answer was cut by a limit that the client did not set"
    if answer.tool_calls:
        return _failed_tool_check(request, answer)
    if not answer.text.strip():
        return "the answer is empty"
    if request.json_answer and not _is_json(answer.text):
        return "the answer is not the JSON that was asked for"
    return None


def _cut_at_clients_limit(request: GenerateRequest, usage: Usage) -> bool:
    """Whether the client's own limit did the cutting.

    `usage` counts all choices together; for several choices the engine's count is a multiple, so
    reaching the limit in total is necessary and, for one choice, sufficient.
    """
    limit = request.max_output_tokens
    return limit is not None and (usage.completion_tokens or 0) >= limit


def _failed_tool_check(request: GenerateRequest, answer: Answer) -> str | None:
    for call in answer.tool_calls:
        if call.name not in request.tool_names:
            return f"the answer calls a tool that was not offered: {call.name!r}"
        if not _is_json(call.arguments):
            return f"the arguments of tool {call.name!r} are not JSON"
    return None


def _is_json(text: str) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
