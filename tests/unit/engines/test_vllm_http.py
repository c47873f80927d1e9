import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    InvalidRequest,
)
from hybridserve_llm.testing import FakeClock, FakeVllm, chat_body, create_fake_vllm_app, serving
from hybridserve_llm.values.engines import EngineInfo
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest, Rescoring

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


CHUNK = {"choices": [{"index": 0, "delta": {"content": "4"}, "finish_reason": None}]}
END = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


def event(body: Any) -> bytes:
    return b"data: " + orjson.dumps(body) + b"\n\n"


def chat(**parts: Any) -> EngineRequest:
    request = GenerateRequest(
        request_id="req-1",
        endpoint=Endpoint.CHAT,
        payload={"messages": [{"role": "user", "content": "hello"}]},
        **parts,
    )
    return EngineRequest(request=request, top_logprobs=None)


@asynccontextmanager
async def engine_over(
    *handlers: tuple[str, Handler], prefix: str = "", **options: Any
) -> AsyncIterator[VllmHttpEngine]:
    """The engine over a TCP server that answers a path as told."""
    app = web.Application()
    for path, handler in handlers:
        app.router.add_route("*", prefix + path, handler)
    options = {"model": "m", "clock": FakeClock(), **options}
    server = TestServer(app)
    await server.start_server()
    engine = VllmHttpEngine(str(server.make_url(prefix)), **options)
    try:
        yield engine
    finally:
        await engine.aclose()
        await server.close()


def answering(content: bytes, *, status: int = 200) -> tuple[str, Handler]:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=content, status=status)

    return Endpoint.CHAT, handler


def streaming(*pieces: bytes) -> tuple[str, Handler]:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        return response

    return Endpoint.CHAT, handler


class Hanging:
    """Sends `pieces` and then nothing, until the client leaves."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = pieces
        self.is_asked = asyncio.Event()
        self.is_left = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        if self.pieces:
            await response.prepare(request)
        for piece in self.pieces:
            await response.write(piece)
        self.is_asked.set()
        try:
            await asyncio.Event().wait()
        finally:  # the server cancels a handler whose client left
            self.is_left.set()
        return response

    @property
    def route(self) -> tuple[str, Handler]:
        return Endpoint.CHAT, self.handle


@asynccontextmanager
async def engine_over_fake(
    folder: Path, *, model: str = "fake", **options: Any
) -> AsyncIterator[tuple[VllmHttpEngine, FakeVllm]]:
    app = create_fake_vllm_app()
    async with serving(app, folder / "s") as address:
        engine = VllmHttpEngine(address, model=model, clock=FakeClock(), **options)
        try:
            yield engine, app.state.fake_vllm
        finally:
            await engine.aclose()


async def bodies_of(engine: VllmHttpEngine, request: EngineRequest) -> list[Any]:
    return [chunk.body async for chunk in engine.stream(request)]


async def test_answers_over_a_unix_socket(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, _):
        completion = await engine.complete(chat())
    assert completion.answers[0].text == "ollehollehollehol"[:16]


async def test_sends_the_request_id_and_the_served_model_name(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, fake):
        await engine.complete(chat())
    assert fake.headers[0]["x-request-id"] == "req-1"
    assert fake.bodies[0]["model"] == "fake"
    assert "authorization" not in fake.headers[0]


async def test_sends_the_api_key_as_bearer_token(tmp_path):
    async with engine_over_fake(tmp_path, api_key="k") as (engine, fake):
        await engine.complete(chat())
    assert fake.headers[0]["authorization"] == "Bearer k"


@pytest.mark.parametrize("prefix", ["", "/some/prefix", "/v1", "/some/prefix/v1"])
async def test_keeps_a_path_prefix_and_folds_a_final_v1(prefix):
    served = answering(orjson.dumps(chat_body("hi")))
    path = Endpoint.CHAT.removeprefix("/v1") if prefix.endswith("/v1") else Endpoint.CHAT
    async with engine_over((path, served[1]), prefix=prefix) as engine:
        assert (await engine.complete(chat())).answers[0].text == "hi"


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://x", "unix:relative", ""])
def test_refuses_an_address_of_no_known_form(address):
    with pytest.raises(ValueError, match="must be http"):
        VllmHttpEngine(address, model="m", clock=FakeClock())


async def test_stream_gives_chunks_as_they_come_and_usage_last(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, fake):
        chunks = [chunk async for chunk in engine.stream(chat())]
    text = "".join(
        chunk.body["choices"][0]["delta"]["content"] for chunk in chunks if chunk.body["choices"]
    )
    assert text == "ollehollehollehol"[:16]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert fake.bodies[0]["stream_options"] == {"include_usage": True}


async def test_a_stream_that_ends_without_done_is_the_engines_failure():
    async with engine_over(streaming(event(CHUNK))) as engine:
        chunks = engine.stream(chat())
        assert (await anext(chunks)).body == CHUNK
        with pytest.raises(EngineFailed, match=r"ended its stream before \[DONE\]"):
            await anext(chunks)


async def test_what_follows_done_is_not_read():
    async with engine_over(
        streaming(event(CHUNK), event(END), b"data: [DONE]\n\ndata: nonsense\n\n")
    ) as engine:
        assert await bodies_of(engine, chat()) == [CHUNK, END]


@pytest.mark.parametrize(
    ("code", "expected"),
    [(400, InvalidRequest), (500, EngineFailed), (503, EngineUnavailable)],
)
async def test_an_error_in_mid_stream_raises_the_mapped_error(code, expected):
    error = b'data: {"error": {"message": "it broke", "code": %d}}\n\n' % code
    async with engine_over(streaming(event(CHUNK), error)) as engine:
        chunks = engine.stream(chat())
        await anext(chunks)
        with pytest.raises(expected) as caught:
            await anext(chunks)
    assert "it broke" in (str(caught.value), getattr(caught.value, "detail", None))


SHAPES_OF_ERRORS = [
    {"error": {"message": "it broke", "type": "server_error"}},
    {"error": "it broke"},
    {"error": "it broke", "error_type": "generation"},
    {"object": "error", "message": "it broke", "code": 500},
    {"type": "error", "error": {"type": "overloaded_error", "message": "it broke"}},
    {"detail": "it broke"},
    {"message": "it broke"},
    {"choices": [], "error": {"message": "it broke"}},
]


@pytest.mark.parametrize("error", SHAPES_OF_ERRORS)
async def test_an_error_inside_a_200_is_the_engines_failure_in_any_shape(error):
    async with engine_over(answering(orjson.dumps(error))) as engine:
        with pytest.raises(EngineFailed) as caught:
            await engine.complete(chat())
        assert caught.value.detail == "it broke"
    async with engine_over(streaming(event(CHUNK), event(error), b"data: [DONE]\n\n")) as engine:
        with pytest.raises(EngineFailed) as caught:
            await bodies_of(engine, chat())
        assert caught.value.detail == "it broke"


async def test_a_null_error_is_none():
    async with engine_over(answering(orjson.dumps({**chat_body("hi"), "error": None}))) as engine:
        assert (await engine.complete(chat())).answers[0].text == "hi"


@pytest.mark.parametrize("pieces", [(), (event(CHUNK),)])
async def test_a_stream_that_is_done_before_its_answer_ended_is_the_engines_failure(pieces):
    async with engine_over(streaming(*pieces, b"data: [DONE]\n\n")) as engine:
        with pytest.raises(EngineFailed, match=r"without a choice|did not end its answer"):
            await bodies_of(engine, chat())


async def test_a_choice_that_the_engine_gives_up_is_its_failure_and_not_passed_on():
    given_up = {"choices": [{"index": 0, "delta": {}, "finish_reason": "abort"}]}
    pieces = (event(CHUNK), event(given_up), b"data: [DONE]\n\n")
    async with engine_over(streaming(*pieces)) as engine:
        chunks = engine.stream(chat())
        assert (await anext(chunks)).body == CHUNK
        with pytest.raises(EngineFailed, match="finish_reason 'abort'"):
            await anext(chunks)


async def test_every_choice_of_a_stream_has_to_end():
    second = {"choices": [{"index": 1, "delta": {"content": "5"}, "finish_reason": None}]}
    pieces = (event(CHUNK), event(second), event(END), b"data: [DONE]\n\n")
    async with engine_over(streaming(*pieces)) as engine:
        with pytest.raises(EngineFailed, match="no finish_reason"):
            await bodies_of(engine, chat())


async def test_a_chunk_that_is_no_json_is_the_engines_failure():
    async with engine_over(streaming(b"data: {oops\n\n")) as engine:
        with pytest.raises(EngineFailed, match="sent invalid JSON"):
            await bodies_of(engine, chat())


async def test_error_statuses_raise_from_both_methods():
    too_long = b'{"error": {"message": "maximum context length is 8 tokens"}}'
    async with engine_over(answering(too_long, status=400)) as engine:
        with pytest.raises(ContextLengthExceeded):
            await engine.complete(chat())
        with pytest.raises(ContextLengthExceeded):
            await bodies_of(engine, chat())


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"{", "sent invalid JSON"), (b"[1]", "sent list, expected"), (b"{}", "no list of choices")],
)
async def test_an_answer_that_is_not_the_api_is_the_engines_failure(content, told):
    async with engine_over(answering(content)) as engine:
        with pytest.raises(EngineFailed, match=told):
            await engine.complete(chat())


async def test_no_socket_is_engine_unavailable(tmp_path):
    engine = VllmHttpEngine(f"unix:{tmp_path}/none", model="m", clock=FakeClock())
    with pytest.raises(EngineUnavailable, match="no connection to engine") as caught:
        await engine.complete(chat())
    assert caught.value.kind == "unreachable"
    with pytest.raises(EngineUnavailable, match="no connection to engine"):
        await bodies_of(engine, chat())
    assert await engine.check_health() is False
    await engine.aclose()


async def test_an_engine_that_dies_while_it_works_is_engine_unavailable():
    async def dies(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async with engine_over((Endpoint.CHAT, dies)) as engine:
        with pytest.raises(EngineUnavailable, match="broke the connection") as caught:
            await engine.complete(chat())
    assert caught.value.kind == "lost"


async def test_an_engine_that_dies_in_mid_stream_is_engine_unavailable():
    async def dies(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(event(CHUNK))
        assert request.transport is not None
        request.transport.close()
        return response

    async with engine_over((Endpoint.CHAT, dies)) as engine:
        chunks = engine.stream(chat())
        assert (await anext(chunks)).body == CHUNK
        with pytest.raises(EngineUnavailable) as caught:
            await anext(chunks)
    assert caught.value.kind == "lost"


async def test_a_deadline_that_has_passed_sends_nothing(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, fake):
        with pytest.raises(DeadlineExceeded, match="deadline passed before"):
            await engine.complete(chat(deadline_s=FakeClock().monotonic_s()))
        with pytest.raises(DeadlineExceeded):
            await bodies_of(engine, chat(deadline_s=1.0))
    assert fake.bodies == []


async def test_a_deadline_that_passes_closes_the_connection():
    hanging = Hanging()
    async with engine_over(hanging.route) as engine:
        with pytest.raises(DeadlineExceeded, match="no answer before the deadline"):
            await engine.complete(chat(deadline_s=FakeClock().monotonic_s() + 0.02))
        await asyncio.wait_for(hanging.is_left.wait(), 5)


def constrained(**parts: Any) -> EngineRequest:
    asked = chat(**parts)
    return replace(asked, rescoring=Rescoring.ALWAYS, top_logprobs=1)


def written(**parts: Any) -> bytes:
    body = chat_body("42", logprobs=[0.0, 0.0], token_ids=[7, 8], **parts)
    return orjson.dumps({**body, "prompt_token_ids": [1, 2, 3]})


def scoring(scores: Any, *, status: int = 200, asked: list[Any] | None = None) -> Any:
    async def handler(request: web.Request) -> web.Response:
        if asked is not None:
            asked.append(await request.json())
        return web.Response(body=orjson.dumps(scores), status=status)

    return Endpoint.COMPLETIONS, handler


def logprob(token_id: int, value: float, other: float) -> dict[str, Any]:
    return {str(token_id): {"logprob": value, "rank": 1}, "99": {"logprob": other, "rank": 2}}


SCORES = {
    "choices": [
        {
            "index": 0,
            "prompt_logprobs": [None, {}, {}, logprob(7, -3.0, -0.1), logprob(8, -0.5, -2.0)],
        }
    ],
    "usage": {"prompt_tokens": 5, "completion_tokens": 1},
}


async def test_an_answer_under_a_constraint_is_scored_as_it_would_have_been_written_freely():
    asked: list[Any] = []
    async with engine_over(answering(written()), scoring(SCORES, asked=asked)) as engine:
        completion = await engine.complete(constrained())
    (answer,) = completion.answers
    assert answer.logprobs == (-3.0, -0.5)
    # exp(-0.1) - exp(-3) = 0.9048 - 0.0498; exp(-0.5) - exp(-2) = 0.6065 - 0.1353
    assert answer.margins == pytest.approx((0.8550, 0.4712), abs=1e-4)
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (15, 2)
    assert asked == [
        {
            "model": "m",
            "prompt": [[1, 2, 3, 7, 8]],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": 1,
        }
    ]


async def test_calls_alone_are_scored_anew_where_a_constraint_holds_inside_calls_alone():
    asked = replace(chat(), rescoring=Rescoring.OF_CALLS)
    call = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    async with engine_over(answering(written()), scoring(SCORES)) as engine:
        assert (await engine.complete(asked)).answers[0].logprobs == (0.0, 0.0)
    async with engine_over(answering(written(tool_calls=[call])), scoring(SCORES)) as engine:
        assert (await engine.complete(asked)).answers[0].logprobs == (-3.0, -0.5)


UNSCORED = {
    "the engine refuses": (written(), {"error": {"message": "no"}}, 400),
    "the engine fails": (written(), {"error": {"message": "no"}}, 500),
    "no prompt ids": (orjson.dumps(chat_body("42", token_ids=[7, 8])), SCORES, 200),
    "no answer ids": (orjson.dumps({**chat_body("42"), "prompt_token_ids": [1]}), SCORES, 200),
    "no scores": (written(), {"choices": [{"index": 0}]}, 200),
    "no choices": (written(), {"choices": None}, 200),
    "too few": (written(), {"choices": [{"prompt_logprobs": [None, {}]}]}, 200),
}


@pytest.mark.parametrize(("answer", "scores", "status"), UNSCORED.values(), ids=UNSCORED)
async def test_without_an_honest_score_an_answer_has_none(answer, scores, status):
    async with engine_over(answering(answer), scoring(scores, status=status)) as engine:
        (found,) = (await engine.complete(constrained())).answers
    assert found.logprobs is None
    assert (
        found.unscorable == "what the model would have written without the constraint is not known"
    )


async def test_a_prompt_that_is_more_than_text_cannot_be_scored_anew():
    image = [{"role": "user", "content": [{"type": "image_url"}]}]
    request = replace(constrained().request, payload={"messages": image})
    async with engine_over(answering(written()), scoring(SCORES)) as engine:
        completion = await engine.complete(replace(constrained(), request=request))
    assert completion.answers[0].unscorable is not None


async def test_the_deadline_of_the_attempt_counts_where_it_is_the_earlier_one():
    hanging = Hanging()
    now_s = FakeClock().monotonic_s()
    asked = replace(chat(deadline_s=now_s + 60), attempt_deadline_s=now_s + 0.02)
    async with engine_over(hanging.route) as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.complete(asked)
        await asyncio.wait_for(hanging.is_left.wait(), 5)


async def test_a_deadline_that_passes_in_mid_stream_closes_the_connection():
    hanging = Hanging(event(CHUNK))
    async with engine_over(hanging.route) as engine:
        chunks = engine.stream(chat(deadline_s=FakeClock().monotonic_s() + 0.1))
        await anext(chunks)
        with pytest.raises(DeadlineExceeded):
            await anext(chunks)
        await asyncio.wait_for(hanging.is_left.wait(), 5)


async def test_cancelling_complete_closes_the_connection():
    hanging = Hanging()
    async with engine_over(hanging.route) as engine:
        asking = asyncio.create_task(engine.complete(chat()))
        await hanging.is_asked.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.wait_for(hanging.is_left.wait(), 5)


async def test_closing_the_stream_closes_the_connection():
    hanging = Hanging(event(CHUNK))
    async with engine_over(hanging.route) as engine:
        async with aclosing(engine.stream(chat())) as chunks:
            await anext(chunks)
            assert not hanging.is_left.is_set()
        await asyncio.wait_for(hanging.is_left.wait(), 5)


async def test_cancelling_the_streams_reader_closes_the_connection():
    hanging = Hanging(event(CHUNK))
    async with engine_over(hanging.route) as engine:
        reading = asyncio.create_task(bodies_of(engine, chat()))
        await hanging.is_asked.wait()
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading
        await asyncio.wait_for(hanging.is_left.wait(), 5)


async def test_more_than_a_hundred_requests_run_side_by_side():
    # 100 is aiohttp's own limit, which would make requests wait for each other in silence.
    all_here, n_here = asyncio.Event(), 0

    async def waits_for_all(request: web.Request) -> web.Response:
        nonlocal n_here
        n_here += 1
        if n_here == 120:
            all_here.set()
        await all_here.wait()
        return web.json_response(chat_body("hi"))

    async with engine_over((Endpoint.CHAT, waits_for_all)) as engine, asyncio.timeout(20):
        await asyncio.gather(*(engine.complete(chat()) for _ in range(120)))


async def test_answers_one_after_the_other_share_a_connection():
    transports = []

    async def answers(request: web.Request) -> web.Response:
        transports.append(request.transport)
        return web.json_response(chat_body("hi"))

    async with engine_over((Endpoint.CHAT, answers)) as engine:
        await engine.complete(chat())
        await engine.complete(chat())
    assert transports[0] is transports[1]


def answering_but_for(*dying: int) -> tuple[list[int], Handler]:
    """A server that breaks the connection at the requests with the given numbers, from 1."""
    asked: list[int] = []

    async def handler(request: web.Request) -> web.Response:
        asked.append(len(asked) + 1)
        if asked[-1] in dying:
            assert request.transport is not None
            request.transport.abort()
        return web.json_response(chat_body("hi"))

    return asked, handler


async def test_a_kept_connection_that_breaks_is_replaced_by_a_fresh_one_once():
    asked, handler = answering_but_for(2)
    async with engine_over((Endpoint.CHAT, handler)) as engine:
        await engine.complete(chat())
        await engine.complete(chat())
        await engine.complete(chat())
    assert asked == [1, 2, 3, 4]


async def test_an_engine_that_breaks_the_fresh_connection_too_is_lost():
    asked, handler = answering_but_for(2, 3)
    async with engine_over((Endpoint.CHAT, handler)) as engine:
        await engine.complete(chat())
        with pytest.raises(EngineUnavailable, match="broke the connection") as caught:
            await engine.complete(chat())
    assert caught.value.kind == "lost"
    assert asked == [1, 2, 3]


async def test_a_closed_client_is_unavailable(tmp_path):
    engine = VllmHttpEngine("http://localhost:1", model="m", clock=FakeClock())
    await engine.open()
    await engine.aclose()
    await engine.aclose()
    with pytest.raises(EngineUnavailable, match="is closed"):
        await engine.complete(chat())
    with pytest.raises(EngineUnavailable, match="is closed"):
        await engine.open()


async def test_health_is_what_the_server_says(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, fake):
        assert await engine.check_health() is True
        fake.is_healthy = False
        assert await engine.check_health() is False


async def test_a_server_without_a_health_path_is_healthy():
    async with engine_over() as engine:
        assert await engine.check_health() is True


async def test_a_server_that_hangs_is_not_healthy():
    async with engine_over(("/health", Hanging().handle), probe_timeout_s=0.02) as engine:
        assert await engine.check_health() is False


async def test_version_is_what_the_server_tells(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, _):
        assert await engine.version() == "0.0.0+fake"


async def test_describe_tells_the_context_length(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, _):
        assert await engine.describe() == EngineInfo(model="fake", max_model_len=512)


async def test_describe_names_what_is_served_instead(tmp_path):
    async with engine_over_fake(tmp_path, model="x") as (engine, _):
        with pytest.raises(EngineFailed, match="does not serve model 'x'; it serves: fake"):
            await engine.describe()


async def test_describe_without_max_model_len_is_none():
    async def models(request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "m"}]})

    async with engine_over(("/v1/models", models)) as engine:
        assert (await engine.describe()).max_model_len is None


async def test_describe_raises_on_an_error_status():
    async with engine_over() as engine:
        with pytest.raises(EngineFailed, match="status 404"):
            await engine.describe()


async def test_token_id_is_given_for_exactly_one_token(tmp_path):
    async with engine_over_fake(tmp_path) as (engine, _):
        assert await engine.token_id_of("</think>") == 6
        assert await engine.token_id_of("ab") is None


async def test_token_id_is_none_without_a_tokenizer_path():
    async with engine_over() as engine:
        assert await engine.token_id_of("x") is None


@pytest.mark.parametrize(("status", "told"), [(500, "status 500"), (200, "sent no tokens")])
async def test_token_id_raises_when_the_tokenizer_fails(status, told):
    async def tokenize(request: web.Request) -> web.Response:
        return web.json_response({}, status=status)

    async with engine_over(("/tokenize", tokenize)) as engine:
        with pytest.raises(EngineFailed, match=told):
            await engine.token_id_of("x")


async def test_metrics_raise_on_an_error_status():
    async with engine_over() as engine:
        with pytest.raises(EngineFailed, match="status 404"):
            await engine.metrics()
