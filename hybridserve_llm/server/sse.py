"""Send answers as server-sent events: one that is whole already, or one as its engine writes it."""

import asyncio
import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from hybridserve_llm.cascade.live import LiveAnswer
from hybridserve_llm.errors import HybridServeError
from hybridserve_llm.server.convert import to_response, trimmed_choice
from hybridserve_llm.server.disconnect import ClientGone, unless_client_leaves
from hybridserve_llm.server.error_responses import error_body
from hybridserve_llm.server.ledger_json import ledger_json
from hybridserve_llm.values.ledger import Outcome
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, JsonObject

DONE = b"data: [DONE]\n\n"
KEEP_ALIVE = b": waiting for an answer that is good enough\n\n"
_FRAME_FIELDS = ("id", "created", "model", "system_fingerprint")
_CHUNK_OBJECTS = {
    Endpoint.CHAT: "chat.completion.chunk",
    Endpoint.COMPLETIONS: "text_completion",
}


def event(data: JsonObject) -> bytes:
    """Return one event of the stream."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def held_events(outcome: Outcome, request: GenerateRequest) -> Iterator[bytes]:
    """Yield the events of an accepted whole answer, with the ledger on the last chunk."""
    body = to_response(outcome, request)
    ledger = body.pop("hybridserve")
    usage = body.pop("usage", None)
    frame: dict[str, Any] = {key: body[key] for key in _FRAME_FIELDS if key in body}
    frame["object"] = _CHUNK_OBJECTS[request.endpoint]
    chunks = [
        {**frame, "choices": [choice]}
        for whole in body["choices"]
        for choice in _split_choice(whole, request.endpoint)
    ]
    if "prompt_token_ids" in body:
        chunks[0]["prompt_token_ids"] = body["prompt_token_ids"]
    if request.include_usage:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**frame, "choices": [], "usage": usage})
    chunks[-1]["hybridserve"] = ledger
    yield from map(event, chunks)
    yield DONE


def _split_choice(choice: JsonObject, endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    """Yield the deltas that a client joins to the whole choice."""
    if endpoint is Endpoint.COMPLETIONS:
        yield {"index": 0, "text": "", "logprobs": None, "finish_reason": None, **choice}
        return
    index, finish_reason = choice.get("index", 0), choice.get("finish_reason")
    of_tokens = {key: choice[key] for key in ("logprobs", "token_ids") if key in choice}
    message = dict(choice.get("message") or {})
    calls = message.pop("tool_calls", None) or []
    role = message.pop("role", "assistant")
    content = _joined(message.pop("content", None))
    # Everything else in the engine's message (reasoning, refusal, …) comes before content.
    extras = {key: value for key, value in message.items() if value is not None and value != []}
    deltas: list[dict[str, Any]] = [{"role": role, "content": "", **extras}]
    if content:
        deltas.append({"content": content})
    deltas.extend({"tool_calls": [{"index": i, **call}]} for i, call in enumerate(calls))
    for i, delta in enumerate(deltas):
        chunk = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None}
        yield chunk | of_tokens if i == min(1, len(deltas) - 1) else chunk
    last = {"index": index, "delta": {}, "logprobs": None, "finish_reason": finish_reason}
    if choice.get("stop_reason") is not None:
        last["stop_reason"] = choice["stop_reason"]
    yield last


def _joined(content: Any) -> Any:
    """Return the text of content parts as one: clients join the content of deltas as text."""
    if not isinstance(content, list):
        return content
    return "".join(part["text"] for part in content)


def _passed_on(body: JsonObject, answer: LiveAnswer, request: GenerateRequest) -> dict[str, Any]:
    """Return an engine's chunk as the client gets it: it names the checkpoint."""
    sent = {**body, "model": answer.model}
    sent["choices"] = [trimmed_choice(choice, request) for choice in body.get("choices") or []]
    if not request.include_usage:
        sent.pop("usage", None)
    return sent


class EventStream(Response):
    """Send an answer as events, after comments as long as it is not decided.

    The stream owns the request: however it ends, the decision or the engine's work ends with it,
    and so does `admission`. An error of ours becomes the last event, with the ledger. No `[DONE]`
    follows it, since clients take that for the end of a whole answer.
    """

    def __init__(
        self,
        deciding: "asyncio.Task[Outcome | LiveAnswer]",
        request: GenerateRequest,
        *,
        headers: dict[str, str],
        keep_alive_s: float,
        admission: AbstractContextManager[object],
    ) -> None:
        """Take what is to be sent; a comment is sent every `keep_alive_s` seconds."""
        super().__init__(None, media_type="text/event-stream", headers=headers)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self._deciding = deciding
        self._request = request
        self._keep_alive_s = keep_alive_s
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the whole stream, unless the client leaves."""
        with self._admission, contextlib.suppress(ClientGone):
            try:
                await unless_client_leaves(receive, self._send_all(send))
            finally:
                await give_up(self._deciding)

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            while not (await asyncio.wait((self._deciding,), timeout=self._keep_alive_s))[0]:
                await send(_piece(KEEP_ALIVE))
            result = self._deciding.result()
            if isinstance(result, LiveAnswer):
                await self._send_live(result, send)
            else:
                for data in held_events(result, self._request):
                    await send(_piece(data))
        except HybridServeError as exc:
            await send(_piece(event(error_body(exc))))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_live(self, answer: LiveAnswer, send: Send) -> None:
        """Send the engine's chunks as they come, and the ledger on the last one.

        The ledger needs the usage, which the engine sends last. So a chunk that ends a choice is
        held until the next one is here.
        """
        held: dict[str, Any] | None = None
        # A client may leave while a piece is being sent: closing the chunks ends the engine's work.
        async with contextlib.aclosing(answer.chunks()) as chunks:
            async for chunk in chunks:
                choices = chunk.body.get("choices") or []
                if not choices and not self._request.include_usage:
                    continue
                if held is not None:
                    await send(_piece(event(held)))
                    held = None
                passed_on = _passed_on(chunk.body, answer, self._request)
                if not choices or any(choice.get("finish_reason") for choice in choices):
                    held = passed_on
                else:
                    await send(_piece(event(passed_on)))
        if held is not None and answer.ledger is not None:
            await send(_piece(event({**held, "hybridserve": ledger_json(answer.ledger)})))
        await send(_piece(DONE))


def _piece(data: bytes) -> Message:
    return {"type": "http.response.body", "body": data, "more_body": True}


async def give_up(deciding: "asyncio.Task[Outcome | LiveAnswer]") -> None:
    """End a decision that nobody waits for, and the stream of an answer that nobody has read."""
    if not deciding.done():
        deciding.cancel()
        await asyncio.wait((deciding,))
    if deciding.cancelled() or deciding.exception() is not None:
        return
    result = deciding.result()
    if isinstance(result, LiveAnswer):
        await result.abandon()
