"""A request asked as a stream: seconds to its first token, and the response it folds back into."""

import asyncio
from typing import Any

import httpx
from openai import AsyncOpenAI, AsyncStream

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.values.requests import JsonObject

_TOKENS = ("content", "reasoning", "tool_calls", "text")
"""Where a chunk's tokens are; the first chunk of a chat has a role and none of them."""


async def streamed(
    client: AsyncOpenAI, path: str, body: JsonObject
) -> tuple[JsonObject, float | None]:
    """The response, as to a request that is no stream, and the seconds from sending to a token.

    These are None of a stream without tokens.

    Raises:
        openai.APIError: The server refuses, or says in the stream that it failed.
        CannotBeDone: The connection was lost, or the stream is not that of a front end.
    """
    loop, ttft_s = asyncio.get_running_loop(), None
    started_s, whole = loop.time(), _Whole()
    try:
        stream = await client.post(
            path,
            cast_to=object,
            body={**body, "stream": True},
            stream=True,
            stream_cls=AsyncStream[object],
        )
        async for chunk in stream:
            has_token = whole.add(chunk)
            if has_token and ttft_s is None:
                ttft_s = loop.time() - started_s
    except httpx.HTTPError as exc:  # openai 2 maps only those from before the first chunk
        raise CannotBeDone(f"{client.base_url}: a stream broke: {exc}") from exc
    return whole.response("messages" in body), ttft_s


class _Whole:
    """Chunks put together."""

    def __init__(self) -> None:
        self._text: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._ledger: Any = None

    def add(self, chunk: object) -> bool:
        """Takes a chunk in; whether it has a token."""
        if not isinstance(chunk, dict):
            raise CannotBeDone(f"the server's stream is not that of a HybridServe: {chunk!r:.80}")
        self._ledger = chunk.get("hybridserve", self._ledger)
        has_token = False
        for choice in chunk.get("choices") or ():
            said = choice.get("delta", choice)
            has_token |= any(said.get(name) for name in _TOKENS)
            self._text.append(said.get("content") or said.get("text") or "")
            for call in said.get("tool_calls") or ():
                whole = self._calls.setdefault(call.get("index", 0), {"name": "", "arguments": ""})
                for key, piece in (call.get("function") or {}).items():
                    whole[key] = whole.get(key, "") + (piece or "")
        return has_token

    def response(self, is_chat: bool) -> JsonObject:
        """The fields of a whole response that are read here."""
        text = "".join(self._text)
        calls = [{"function": call} for _, call in sorted(self._calls.items())]
        message = {"content": text, "tool_calls": calls}
        choice = {"message": message} if is_chat else {"text": text}
        return {"choices": [choice], "hybridserve": self._ledger}
