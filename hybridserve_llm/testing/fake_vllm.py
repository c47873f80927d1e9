"""Provide an ASGI app that answers as vLLM 0.32 does, with a "model" of one token per byte.

The model answers a prompt with its text reversed, again and again up to `max_tokens`, unless an
answer was set. The chat template is that of the demo family. Log-probabilities are made from the
token alone, so they are the same in every run.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from hybridserve_llm.testing.bodies import chat_body, completion_body
from hybridserve_llm.testing.fake_generation import FakeVllm, Job, RequestFaultError, job_of
from hybridserve_llm.testing.fake_tokens import byte_tokens, token_text


def create_fake_vllm_app(
    *, model: str = "fake", max_model_len: int = 512, token_delay_s: float = 0.0
) -> Starlette:
    """Return the app; its `FakeVllm` is at `app.state.fake_vllm`.

    Args:
        model: Name under which it serves; any other answers 404.
        max_model_len: Tokens (bytes), prompt and output together.
        token_delay_s: Seconds each token takes.
    """
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", _generate, methods=["POST"]),
            Route("/v1/completions", _generate, methods=["POST"]),
            Route("/v1/models", _models),
            Route("/health", _health),
            Route("/version", _version),
            Route("/metrics", _metrics),
            Route("/tokenize", _tokenize, methods=["POST"]),
        ]
    )
    app.state.fake_vllm = FakeVllm(model, max_model_len, token_delay_s=token_delay_s)
    return app


@asynccontextmanager
async def serving(app: Starlette, socket: Path) -> AsyncIterator[str]:
    """Serve `app` on the unix socket inside the running loop; yield its engine address."""
    config = uvicorn.Config(app, uds=str(socket), log_level="error", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve())
            while not server.started:  # noqa: ASYNC110
                await asyncio.sleep(0.001)  # uvicorn reports its start by this flag alone
            try:
                yield f"unix:{socket}"
            finally:
                server.should_exit = server.force_exit = True
    finally:
        await asyncio.to_thread(socket.unlink, missing_ok=True)


async def _generate(http: Request) -> Response:
    state: FakeVllm = http.app.state.fake_vllm
    body = await http.json()
    state.bodies.append(body)
    state.headers.append(dict(http.headers))
    try:
        job = job_of(state, body, is_chat=http.url.path.endswith("chat/completions"))
    except RequestFaultError as exc:
        return JSONResponse(exc.body, status_code=exc.status)
    if body.get("stream"):
        return StreamingResponse(_events(state, job), media_type="text/event-stream")
    return await _whole_answer(state, job, http)


async def _tokens(state: FakeVllm, job: Job) -> AsyncGenerator[int]:
    """Yield the job's tokens as they come; closing it early counts as an abort."""
    state.n_running += 1
    state.n_prompt_tokens += job.n_prompt_tokens
    is_done = False
    try:
        for i, token in enumerate(job.tokens):
            if i == 1 and state.gate is not None:
                await state.gate.wait()
            await asyncio.sleep(state.token_delay_s)
            state.n_output_tokens += 1
            state.n_first_tokens += i == 0
            yield token
        is_done = True
    finally:
        state.n_running -= 1
        state.n_aborted += not is_done


async def _whole_answer(state: FakeVllm, job: Job, http: Request) -> Response:
    async def generate() -> list[int]:
        return [token async for token in _tokens(state, job)]

    generation = asyncio.ensure_future(generate())
    departure = asyncio.ensure_future(_client_left(http))
    await asyncio.wait({generation, departure}, return_when=asyncio.FIRST_COMPLETED)
    departure.cancel()
    if not generation.done():
        generation.cancel()
        return Response(status_code=499)
    make_body = chat_body if job.is_chat else completion_body
    body = make_body(
        token_text(job.tokens),
        model=state.model,
        finish_reason=job.finish_reason,
        token_ids=job.tokens if job.body.get("return_token_ids") else None,
        usage=job.usage,
    )
    body["choices"][0]["logprobs"] = job.logprobs(job.tokens)
    return JSONResponse(body)


async def _client_left(http: Request) -> None:
    while (await http.receive())["type"] != "http.disconnect":
        pass


async def _events(state: FakeVllm, job: Job) -> AsyncIterator[bytes]:
    frame = {
        "id": "chatcmpl-fake" if job.is_chat else "cmpl-fake",
        "object": "chat.completion.chunk" if job.is_chat else "text_completion",
        "created": 1_700_000_000,
        "model": state.model,
    }
    if job.is_chat:
        yield _event({**frame, "choices": [_choice(job, [], {"role": "assistant", "content": ""})]})
    n_sent = 0
    async with aclosing(_tokens(state, job)) as tokens:
        async for token in tokens:
            n_sent += 1
            choice = _choice(job, [token], {"content": token_text([token])})
            if n_sent == len(job.tokens):
                choice["finish_reason"] = job.finish_reason
            yield _event({**frame, "choices": [choice]})
    if (job.body.get("stream_options") or {}).get("include_usage"):
        yield _event({**frame, "choices": [], "usage": job.usage})
    yield b"data: [DONE]\n\n"


def _choice(job: Job, tokens: list[int], delta: dict[str, Any]) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": None}
    choice["logprobs"] = job.logprobs(tokens) if tokens else None
    if job.is_chat:
        choice["delta"] = delta
    else:
        choice["text"] = delta["content"]
    if job.body.get("return_token_ids"):
        choice["token_ids"] = tokens
    return choice


def _event(data: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(data)}\n\n".encode()


async def _models(http: Request) -> Response:
    state: FakeVllm = http.app.state.fake_vllm
    card = {"id": state.model, "object": "model", "max_model_len": state.max_model_len}
    return JSONResponse({"object": "list", "data": [card]})


async def _version(http: Request) -> Response:
    return JSONResponse({"version": "0.0.0+fake"})


async def _health(http: Request) -> Response:
    return Response(status_code=200 if http.app.state.fake_vllm.is_healthy else 503)


async def _metrics(http: Request) -> Response:
    state: FakeVllm = http.app.state.fake_vllm
    n_intervals = state.n_output_tokens - state.n_first_tokens
    # Every token takes `token_delay_s`, the first like any other.
    samples = {
        "num_requests_running": state.n_running,
        "prompt_tokens_total": state.n_prompt_tokens,
        "generation_tokens_total": state.n_output_tokens,
        "num_preemptions_total": 0,
        "time_to_first_token_seconds_count": state.n_first_tokens,
        "time_to_first_token_seconds_sum": state.n_first_tokens * state.token_delay_s,
        "inter_token_latency_seconds_count": n_intervals,
        "inter_token_latency_seconds_sum": n_intervals * state.token_delay_s,
    }
    labels = f'{{engine="0",model_name="{state.model}"}}'
    lines = [f"vllm:{name}{labels} {float(value)}" for name, value in samples.items()]
    return PlainTextResponse("\n".join(["# TYPE vllm:num_requests_running gauge", *lines, ""]))


async def _tokenize(http: Request) -> Response:
    state: FakeVllm = http.app.state.fake_vllm
    tokens = byte_tokens((await http.json())["prompt"])
    return JSONResponse(
        {
            "count": len(tokens),
            "max_model_len": state.max_model_len,
            "tokens": tokens,
            "token_strs": None,
        }
    )
