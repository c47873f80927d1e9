"""Server-sent events: a held answer told as a stream, a live answer passed on, and the frame."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from hybridserve_llm.cascade.live import LiveAnswer
from hybridserve_llm.errors import HybridServeError
from hybridserve_llm.server.convert import ledger_json, to_response, trimmed_choice
from hybridserve_llm.server.disconnect import ClientGone, unless_client_leaves
from hybridserve_llm.server.error_responses import error_body
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
    """One event of the stream."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


def held_events(outcome: Outcome, request: GenerateRequest) -> Iterator[bytes]:
    """An accepted whole answer as the events of a stream; the ledger is on the last chunk."""
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
    if request.include_usage:
        chunks = [{**chunk, "usage": None} for chunk in chunks]
        chunks.append({**frame, "choices": [], "usage": usage})
    chunks[-1]["hybridserve"] = ledger
    yield from map(event, chunks)
    yield DONE


def _split_choice(choice: JsonObject, endpoint: Endpoint) -> Iterator[dict[str, Any]]:
    """A whole choice as the deltas that a client folds back into it."""
    index, finish_reason = choice.get("index", 0), choice.get("finish_reason")
    logprobs = choice.get("logprobs")
    if endpoint is Endpoint.COMPLETIONS:
        text = {"index": index, "text": choice.get("text", ""), "logprobs": logprobs}
        yield {**text, "finish_reason": finish_reason}
        return
    message = dict(choice.get("message") or {})
    calls = message.pop("tool_calls", None) or []
    role = message.pop("role", "assistant")
    content = message.pop("content", None)
    # Everything else the engine said of the message (reasoning, refusal, …) comes before content.
    extras = {key: value for key, value in message.items() if value is not None and value != []}
    deltas: list[dict[str, Any]] = [{"role": role, "content": "", **extras}]
    if content:
        deltas.append({"content": content})
    deltas.extend({"tool_calls": [{"index": i, **call}]} for i, call in enumerate(calls))
    for i, delta in enumerate(deltas):
        carries_logprobs = i == min(1, len(deltas) - 1)
        yield {
            "index": index,
            "delta": delta,
            "logprobs": logprobs if carries_logprobs else None,
            "finish_reason": None,
        }
    last = {"index": index, "delta": {}, "logprobs": None, "finish_reason": finish_reason}
    if choice.get("stop_reason") is not None:
        last["stop_reason"] = choice["stop_reason"]
    yield last


async def live_events(answer: LiveAnswer, request: GenerateRequest) -> AsyncGenerator[bytes]:
    """The engine's chunks as they come, each naming the checkpoint; the ledger on the last one.

    A chunk that ends a choice is held until the next one is here, because the ledger, which needs
    the usage that the engine sends last, belongs on the last chunk the client gets.
    """
    held: dict[str, Any] | None = None
    async with contextlib.aclosing(answer.chunks()) as chunks:
        async for chunk in chunks:
            choices = chunk.body.get("choices") or []
            if not choices and not request.include_usage:
                continue
            if held is not None:
                yield event(held)
                held = None
            sent = _passed_on(chunk.body, answer, request)
            if not choices or any(choice.get("finish_reason") for choice in choices):
                held = sent
            else:
                yield event(sent)
    if held is not None and answer.ledger is not None:
        yield event({**held, "hybridserve": ledger_json(answer.ledger)})
    yield DONE


def _passed_on(body: JsonObject, answer: LiveAnswer, request: GenerateRequest) -> dict[str, Any]:
    sent = {**body, "model": answer.model}
    sent["choices"] = [trimmed_choice(choice, request) for choice in body.get("choices") or []]
    if not request.include_usage:
        sent.pop("usage", None)
    return sent


class EventStream(Response):
    """An SSE response that may begin with comments while the answer is still being decided.

    When the client leaves, the events' generator is closed, which ends the engine's work.
    """

    def __init__(self, events: AsyncGenerator[bytes], headers: dict[str, str]) -> None:
        super().__init__(None, media_type="text/event-stream", headers=headers)
        del self.headers["content-length"]
        self.headers["cache-control"] = "no-cache"
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream; an error of ours inside it becomes an error event."""
        with contextlib.suppress(ClientGone):
            await unless_client_leaves(receive, self._send_all(send))

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        try:
            # A client may leave while a piece is being sent: the events then wait at a yield.
            async with contextlib.aclosing(self._events) as events:
                async for data in events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
        except HybridServeError as exc:
            data = event(error_body(exc)) + DONE
            await send({"type": "http.response.body", "body": data, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def keeping_alive(
    deciding: "asyncio.Task[Outcome | LiveAnswer]", request: GenerateRequest, interval_s: float
) -> AsyncGenerator[bytes]:
    """Comments every `interval_s` until the answer is decided, then its events."""
    try:
        while not (await asyncio.wait((deciding,), timeout=interval_s))[0]:
            yield KEEP_ALIVE
        result = deciding.result()
    except (GeneratorExit, asyncio.CancelledError):
        await give_up(deciding)
        raise
    async with contextlib.aclosing(events_of(result, request)) as events:
        async for data in events:
            yield data


async def give_up(deciding: "asyncio.Task[Outcome | LiveAnswer]") -> None:
    """Ends a decision that nobody waits for any more, and the stream it may just have opened."""
    deciding.cancel()
    await asyncio.wait((deciding,))
    if deciding.cancelled() or deciding.exception() is not None:
        return
    result = deciding.result()
    if isinstance(result, LiveAnswer):
        await result.abandon()


async def events_of(
    result: Outcome | LiveAnswer, request: GenerateRequest
) -> AsyncGenerator[bytes]:
    """The events of a decided answer, held or live."""
    if isinstance(result, Outcome):
        for data in held_events(result, request):
            yield data
        return
    async with contextlib.aclosing(live_events(result, request)) as events:
        async for data in events:
            yield data
