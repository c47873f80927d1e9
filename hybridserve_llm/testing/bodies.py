"""Make the JSON bodies that vLLM answers with from their parts."""

from collections.abc import Sequence
from typing import Any

_CREATED_S = 1_700_000_000


def chat_body(
    text: str | None,
    *,
    model: str = "fake",
    logprobs: Sequence[float | None] | None = None,
    tokens: Sequence[str] | None = None,
    finish_reason: str = "stop",
    reasoning: str | None = None,
    tool_calls: Sequence[tuple[str, str]] = (),
    token_ids: Sequence[int] | None = None,
    usage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a `chat.completion` with one choice.

    Args:
        text: Content of the message; None where the model wrote none.
        model: Name of the served model.
        logprobs: Of every generated token; an entry of None leaves the field out.
        tokens: Texts of the same tokens; made up when absent.
        finish_reason: Why the model stopped.
        reasoning: Text of the reasoning, which has its own field.
        tool_calls: Name and arguments (JSON text) of each call.
        token_ids: Ids of the generated tokens.
        usage: In place of the counts made from `logprobs`.
    """
    message: dict[str, Any] = {"role": "assistant", "content": text, "reasoning": reasoning}
    message["tool_calls"] = [
        {
            "id": f"call-{i}",
            "type": "function",
            "function": {"name": name, "arguments": arguments},
        }
        for i, (name, arguments) in enumerate(tool_calls)
    ]
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "logprobs": None if logprobs is None else chat_logprobs(logprobs, tokens),
        "finish_reason": finish_reason,
        "token_ids": None if token_ids is None else list(token_ids),
    }
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": _CREATED_S,
        "model": model,
        "choices": [choice],
        "usage": usage or usage_of(logprobs),
    }


def completion_body(
    text: str,
    *,
    model: str = "fake",
    logprobs: Sequence[float | None] | None = None,
    tokens: Sequence[str] | None = None,
    finish_reason: str = "stop",
    token_ids: Sequence[int] | None = None,
    usage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return a `text_completion` with one choice; the arguments are those of `chat_body`."""
    choice: dict[str, Any] = {
        "index": 0,
        "text": text,
        "logprobs": None if logprobs is None else text_logprobs(logprobs, tokens),
        "finish_reason": finish_reason,
        "token_ids": None if token_ids is None else list(token_ids),
    }
    return {
        "id": "cmpl-fake",
        "object": "text_completion",
        "created": _CREATED_S,
        "model": model,
        "choices": [choice],
        "usage": usage or usage_of(logprobs),
    }


def chat_logprobs(
    logprobs: Sequence[float | None],
    tokens: Sequence[str] | None = None,
    *,
    n_alternatives: int = 0,
) -> dict[str, Any]:
    """Return the `logprobs` object of a chat choice.

    Alternatives are 1 nat apart, the choice's own token first.
    """
    entries: list[dict[str, Any]] = []
    for logprob, token in zip(logprobs, tokens or _made_up(logprobs), strict=True):
        entry: dict[str, Any] = {"token": token, "bytes": list(token.encode()), "top_logprobs": []}
        if logprob is not None:
            entry["logprob"] = logprob
            entry["top_logprobs"] = [
                {"token": token if i == 0 else f"alt{i}", "logprob": logprob - i, "bytes": None}
                for i in range(n_alternatives)
            ]
        entries.append(entry)
    return {"content": entries}


def text_logprobs(
    logprobs: Sequence[float | None],
    tokens: Sequence[str] | None = None,
    *,
    n_alternatives: int = 0,
) -> dict[str, Any]:
    """Return the `logprobs` object of a completions choice; alternatives as in `chat_logprobs`."""
    tokens = tokens or _made_up(logprobs)
    return {
        "tokens": list(tokens),
        "token_logprobs": list(logprobs),
        "text_offset": [sum(map(len, tokens[:i])) for i in range(len(tokens))],
        "top_logprobs": [
            None
            if logprob is None
            # vLLM adds the sampled token to the alternatives, so there is always one entry.
            else {
                (token if i == 0 else f"alt{i}"): logprob - i for i in range(max(1, n_alternatives))
            }
            for logprob, token in zip(logprobs, tokens, strict=True)
        ],
    }


def usage_of(logprobs: Sequence[float | None] | None, *, prompt_tokens: int = 10) -> dict[str, Any]:
    """Return the `usage` object for as many tokens as there are `logprobs` (3 without any)."""
    n_tokens = 3 if logprobs is None else len(logprobs)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": n_tokens,
        "total_tokens": prompt_tokens + n_tokens,
    }


def _made_up(logprobs: Sequence[float | None]) -> list[str]:
    return [f"t{i}" for i in range(len(logprobs))]
