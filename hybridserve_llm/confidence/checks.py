"""Check answers before they are scored: an answer that fails gets no score, but a reason.

An answer may be fluent and sure of itself and still be unfit to take: cut off, empty, not the JSON
that was asked for, or a call of a tool that nobody offered. Log-probabilities cannot see this.
"""

from typing import Any

import orjson

from hybridserve_llm.confidence.schema_checks import (
    answer_schema,
    expects_json,
    expects_object,
    schema_fault,
)
from hybridserve_llm.confidence.tool_checks import failed_tool_check
from hybridserve_llm.values.answers import Answer, Usage
from hybridserve_llm.values.ends import End, end_of, unfit_end
from hybridserve_llm.values.requests import GenerateRequest


def failed_check(request: GenerateRequest, answer: Answer, usage: Usage) -> str | None:
    """Return why this answer may not be scored, or None when it passes every check."""
    cut = _cut(request, answer, usage)
    if cut is not None:
        return cut
    if answer.unreadable is not None:
        return f"the answer cannot be read: {answer.unreadable}"
    unfit = failed_tool_check(request, answer)
    if unfit is not None or answer.tool_calls:
        return unfit
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


def _failed_json_check(request: GenerateRequest, text: str) -> str | None:
    try:
        parsed: Any = orjson.loads(text)
    except orjson.JSONDecodeError:
        return "the answer is not the JSON that was asked for"
    if expects_object(request) and not isinstance(parsed, dict):
        return "the answer is JSON, and not the object that was asked for"
    return schema_fault("the answer", answer_schema(request), parsed)
