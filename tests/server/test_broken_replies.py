"""Engines answer with broken replies; the outcome is a scored accept, an escalation or an error."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hybridserve_llm.config.load import parse_config
from hybridserve_llm.server.build import Serving, build_app
from hybridserve_llm.testing import chat_body

SURE = [-0.1, -0.1]
USAGE = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
CALL = {"id": "c", "type": "function", "function": {"name": "now", "arguments": "{}"}}


def good(text: str = "42", logprobs: Any = SURE, **parts: Any) -> dict[str, Any]:
    return chat_body(text, logprobs=logprobs, usage=USAGE, **parts)


def choice(**fields: Any) -> dict[str, Any]:
    """A good answer whose choice has other fields."""
    body = good()
    return {**body, "choices": [{**body["choices"][0], **fields}]}


def message(**fields: Any) -> dict[str, Any]:
    return choice(message={"role": "assistant", "content": "42", **fields})


def body(**fields: Any) -> dict[str, Any]:
    return {**good(), **fields}


def entries(*values: Any) -> dict[str, Any]:
    """A good answer whose tokens have these log-probabilities."""
    return choice(logprobs={"content": [{"token": "4", "logprob": value} for value in values]})


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in good().items() if key != name}


ENDS = ["abort", "error", None, "repetition", "content_filter", "length", "new", "", 3, {}, []]
WHOLE: dict[str, Any] = {
    **{f"end {end!r}": choice(finish_reason=end) for end in ENDS},
    "end of a call without one": choice(finish_reason="tool_calls"),
    "no end": choice(finish_reason=None),
    "error object": {"error": {"message": "no", "type": "x"}},
    "error with its code": {"error": {"message": "no", "code": 503}},
    "error text": {"error": "no"},
    "error of SGLang": {"object": "error", "message": "no", "code": 400},
    "error of TGI": {"error": "no", "error_type": "generation"},
    "error of FastAPI": {"detail": "no"},
    "error list": {"error": ["no"]},
    "error next to choices": body(error={"message": "no"}),
    "empty object": {},
    "list": [],
    "number": 3,
    "null": None,
    "no choices": without("choices"),
    "choices null": body(choices=None),
    "choices empty": body(choices=[]),
    "choices text": body(choices="x"),
    "choices object": body(choices={"0": {}}),
    "choice null": body(choices=[None]),
    "no message": choice(message=None),
    "message text": choice(message="42"),
    "content number": message(content=3),
    "content object": message(content={"text": "42"}),
    "content of an image": message(content=[{"type": "image_url"}]),
    "content null": message(content=None),
    "content empty": message(content="  "),
    "refusal": message(content=None, refusal="no"),
    "calls number": message(tool_calls=3),
    "call null": message(tool_calls=[None]),
    "call of another type": message(tool_calls=[{"type": "custom", "custom": {}}]),
    "call that nobody offered": message(tool_calls=[CALL]),
    "arguments object": message(tool_calls=[{"function": {"name": "now", "arguments": {}}}]),
    "name list": message(tool_calls=[{"function": {"name": [], "arguments": "{}"}}]),
    "no log-probabilities": choice(logprobs=None),
    "log-probabilities list": choice(logprobs=[]),
    "log-probabilities text": choice(logprobs={"content": "x"}),
    "log-probabilities of nothing": choice(logprobs={"content": []}),
    "log-probability null": entries(-0.1, None),
    "log-probability text": entries(-0.1, "-0.1"),
    "log-probability above 0": entries(-0.1, 3.0),
    "log-probability of vLLM for none": entries(-0.1, -9999.0),
    "log-probability true": entries(-0.1, True),
    "entry null": choice(logprobs={"content": [None, None]}),
    "fewer log-probabilities than tokens": body(usage={**USAGE, "completion_tokens": 40}),
}
RAW: dict[str, tuple[int, bytes]] = {
    "NaN": (200, json.dumps(entries(float("nan"))).encode()),
    "minus infinity": (200, json.dumps(entries(float("-inf"))).encode()),
    "not JSON": (200, b"<html>"),
    "empty body": (200, b""),
    "cut JSON": (200, orjson.dumps(good())[:40]),
    "not UTF-8": (200, b'{"choices": "\xff"}'),
    "status 400": (400, b'{"error": {"message": "a field of yours"}}'),  # the client has to know
    "status 401": (401, b'{"error": {"message": "sk-1"}}'),
    **{f"status {status}": (status, b"sk-1") for status in (404, 429, 500, 502, 503)},
}
HARMLESS: dict[str, Any] = {
    "usage null": body(usage=None),
    "no usage": without("usage"),
    "usage text": body(usage={"prompt_tokens": "3", "completion_tokens": "2"}),
    "usage of fractions": body(usage={"prompt_tokens": 3.0, "completion_tokens": 2.0}),
    "usage list": body(usage=[]),
    "index text": choice(index="0"),
    "id null": body(id=None),
    "content parts": message(content=[{"type": "text", "text": "42"}]),
    "unknown fields": body(of_next_year={"a": 1}),
}
REPLIES: dict[str, tuple[int, bytes]] = {
    **{name: (200, orjson.dumps(reply)) for name, reply in {**WHOLE, **HARMLESS}.items()},
    **RAW,
}
PASSED_ON_BY_THE_FINAL_TIER = {"end 'content_filter'", "end 'length'", "refusal"}


def event(data: Any) -> bytes:
    return b"data: " + (data if isinstance(data, bytes) else orjson.dumps(data)) + b"\n\n"


def delta(content: str | None = "4", end: Any = None, **fields: Any) -> bytes:
    piece = {"index": 0, "delta": {} if content is None else {"content": content}}
    return event({"choices": [{**piece, "finish_reason": end, **fields}]})


DONE, STOP = event(b"[DONE]"), delta(None, "stop")
STREAMS: dict[str, tuple[bytes, ...]] = {
    **{f"end {end!r}": (delta(), delta(None, end), DONE) for end in ENDS if end != "length"},
    "no end": (delta(), DONE),
    "no done": (delta(), STOP),
    "nothing": (),
    "done at once": (DONE,),
    "only a role": (event({"choices": [{"index": 0, "delta": {"role": "assistant"}}]}), DONE),
    "error text": (delta(), event({"error": "sk-1"}), DONE),
    "error object": (delta(), event({"error": {"message": "sk-1"}}), DONE),
    "error of SGLang": (delta(), event({"object": "error", "message": "sk-1"}), DONE),
    "error before a token": (event({"error": "sk-1"}), DONE),
    "not JSON": (delta(), event(b"{oops"), DONE),
    "number": (delta(), event(3), DONE),
    "no choices": (delta(), event({}), DONE),
    "choices text": (delta(), event({"choices": "x"}), DONE),
    "choice null": (delta(), event({"choices": [None]}), DONE),
    "second choice without an end": (delta(), delta(index=1), STOP, DONE),
}
GOOD_STREAMS: dict[str, tuple[bytes, ...]] = {
    "good": (delta(), STOP, DONE),
    "cut": (delta(), delta(None, "length"), DONE),
    "odd usage": (delta(), STOP, event({"choices": [], "usage": {"prompt_tokens": "x"}}), DONE),
    "delta null": (delta(delta=None), STOP, DONE),
    "index text": (delta(index="0"), STOP, DONE),
    "carriage returns": (delta().replace(b"\n", b"\r\n"), STOP, DONE),
    "no space": (delta().replace(b"data: ", b"data:"), STOP, DONE),
}


class Broken:
    """An engine that answers as the last message says."""

    def __init__(self, asked: Callable[[dict[str, Any]], tuple[int, tuple[bytes, ...]]]) -> None:
        self.asked = asked

    async def handle(self, http: web.Request) -> web.StreamResponse:
        status, pieces = self.asked(await http.json())
        response = web.StreamResponse(status=status)
        await response.prepare(http)
        for piece in pieces:
            await response.write(piece)
        if pieces == SLOW:
            await asyncio.Event().wait()
        return response


SLOW = (b" ",)
UNSURE = orjson.dumps(good(logprobs=[-9.0, -9.0]))
SURE_BODY = orjson.dumps(good())


@contextlib.asynccontextmanager
async def cascade(small: Broken, giant: Broken) -> AsyncIterator[httpx.AsyncClient]:
    async with contextlib.AsyncExitStack() as stack:
        endpoints = {}
        for name, engine in (("small", small), ("giant", giant)):
            app = web.Application()
            app.router.add_post("/v1/chat/completions", engine.handle)
            app.router.add_get("/health", healthy)
            server = await stack.enter_async_context(TestServer(app))
            endpoints[name] = [str(server.make_url(""))]
        tiers = [
            {"name": "small", "model": "s", "accept": {"score_at_least": -0.5}, "timeout_s": 1},
            {"name": "giant", "model": "g", "timeout_s": 1},
        ]
        app = build_app(parse_config({"tiers": tiers}, source="test"), Serving(endpoints=endpoints))
        await stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app=app)
        yield await stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://hs")
        )


async def healthy(http: web.Request) -> web.Response:
    return web.Response()


def named(asked: dict[str, Any]) -> str:
    return str(asked["messages"][-1]["content"])


async def said_of(client: httpx.AsyncClient, name: str, *, stream: bool) -> tuple[int, Any, bool]:
    """Status, the JSON with the ledger, and whether a stream ended as a whole answer does."""
    asked = {"model": "hybridserve", "messages": [{"role": "user", "content": name}]}
    response = await client.post("/v1/chat/completions", json={**asked, "stream": stream})
    assert "sk-1" not in response.text, name
    if response.headers["content-type"].startswith("application/json"):
        return response.status_code, response.json(), False
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    is_whole = events[-1] == "[DONE]"
    return response.status_code, orjson.loads(events[-2 if is_whole else -1]), is_whole


@pytest.mark.parametrize("stream", [False, True])
async def test_no_broken_reply_of_a_lower_tier_is_taken(stream: bool) -> None:
    small = Broken(lambda asked: (REPLIES[named(asked)][0], (REPLIES[named(asked)][1],)))
    final = (delta(), STOP, DONE) if stream else (SURE_BODY,)
    giant = Broken(lambda _: (200, final))
    outcomes = {}
    async with cascade(small, giant) as client:
        for name in REPLIES:
            status, body, _ = await said_of(client, name, stream=stream)
            first, last = body["hybridserve"]["attempts"][0], body["hybridserve"]["attempts"][-1]
            is_scored = first["decision"] == "accept" and first["score"] is not None
            is_passed_over = first["decision"] in ("escalate", "fail") and last["tier"] == "giant"
            outcomes[name] = (status, is_scored, is_passed_over and bool(first["reason"]))
    assert len(REPLIES) > 60
    assert outcomes == {name: (200, name in HARMLESS, name not in HARMLESS) for name in REPLIES}


async def test_a_broken_reply_of_the_final_tier_is_passed_on_or_is_an_openai_error() -> None:
    giant = Broken(lambda asked: (REPLIES[named(asked)][0], (REPLIES[named(asked)][1],)))
    statuses = {}
    async with cascade(Broken(lambda _: (200, (UNSURE,))), giant) as client:
        for name in REPLIES:
            status, body, _ = await said_of(client, name, stream=False)
            assert status == 200 or set(body["error"]) == {"message", "type", "param", "code"}
            assert [one["tier"] for one in body["hybridserve"]["attempts"]] == ["small", "giant"]
            statuses[name] = status
    assert set(statuses.values()) <= {200, 400, 429, 502, 503}
    for name in (*PASSED_ON_BY_THE_FINAL_TIER, *HARMLESS):
        assert statuses[name] == 200, name
    for end in ("abort", "error", None, "repetition", "new", ""):
        assert statuses[f"end {end!r}"] == 502, end


async def test_a_broken_stream_of_the_final_tier_never_ends_as_a_whole_answer() -> None:
    streams = {**STREAMS, **GOOD_STREAMS}
    giant = Broken(lambda asked: (200, streams[named(asked)]))
    endings = {}
    async with cascade(Broken(lambda _: (200, (UNSURE,))), giant) as client:
        for name in streams:
            _, body, is_whole = await said_of(client, name, stream=True)
            assert body["hybridserve"]["attempts"][-1]["tier"] == "giant", name
            endings[name] = (is_whole, "error" in body)
    passed_on = {*GOOD_STREAMS, "end 'content_filter'"}
    assert endings == {name: (name in passed_on, name not in passed_on) for name in streams}


@pytest.mark.parametrize("stream", [False, True])
async def test_an_engine_that_sends_a_byte_and_no_more_is_given_up(stream: bool) -> None:
    slow = Broken(lambda _: (200, SLOW))
    final = (delta(), STOP, DONE) if stream else (SURE_BODY,)
    async with cascade(slow, Broken(lambda _: (200, final))) as client:
        _, body, _ = await said_of(client, "x", stream=stream)
    verdicts = [attempt["decision"] for attempt in body["hybridserve"]["attempts"]]
    assert verdicts == ["fail", "accept"]
    async with cascade(Broken(lambda _: (200, (UNSURE,))), slow) as client:
        status, body, _ = await said_of(client, "x", stream=stream)
    assert (status, body["error"]["code"]) == (504, "deadline_exceeded")
