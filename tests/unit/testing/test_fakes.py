import asyncio
from typing import Any

import pytest

from hybridserve_llm.errors import EngineUnavailable
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer
from hybridserve_llm.testing.fake_tokens import byte_tokens, token_text
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest


def asking(prompt: str, endpoint: Endpoint = Endpoint.CHAT) -> EngineRequest:
    payload: dict[str, Any] = {"prompt": prompt}
    if endpoint is Endpoint.CHAT:
        payload = {"messages": [{"role": "user", "content": prompt}]}
    request = GenerateRequest(request_id="r", endpoint=endpoint, payload=payload)
    return EngineRequest(request=request, top_logprobs=0)


def test_clock_moves_only_when_told_and_never_back():
    clock = FakeClock(monotonic_s=1.0, wall_s=2.0)
    clock.advance(0.5)
    assert (clock.monotonic_s(), clock.wall_s()) == (1.5, 2.5)
    with pytest.raises(ValueError, match="cannot go back"):
        clock.advance(-1)


@pytest.mark.parametrize("endpoint", Endpoint)
async def test_engine_answers_by_prompt_and_keeps_the_requests(endpoint):
    engine = FakeEngine({"2+2?": "4", "6*7?": "42"})
    completion = await engine.complete(asking("6*7?", endpoint))
    assert completion.answers[0].text == "42"
    assert completion.answers[0].logprobs == (-0.1, -0.1)
    assert engine.requests == [asking("6*7?", endpoint)]


async def test_engine_answers_by_a_function_and_with_chosen_logprobs():
    engine = FakeEngine(lambda request: scripted_answer("x", logprobs=[-3.0, None]))
    assert (await engine.complete(asking("?"))).answers[0].logprobs == (-3.0, None)


async def test_engine_raises_what_the_script_says():
    engine = FakeEngine(EngineUnavailable("down"))
    with pytest.raises(EngineUnavailable, match="down"):
        await engine.complete(asking("?"))
    assert engine.n_running == 0


@pytest.mark.parametrize("endpoint", Endpoint)
async def test_engine_streams_one_chunk_per_character_and_the_usage_last(endpoint):
    chunks = [chunk async for chunk in FakeEngine("42").stream(asking("?", endpoint))]
    choices = [chunk.body["choices"][0] for chunk in chunks[:-1]]
    texts = [
        choice["text"] if "text" in choice else choice["delta"]["content"] for choice in choices
    ]
    assert texts == ["4", "2"]
    assert [choice["finish_reason"] for choice in choices] == [None, "stop"]
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 2


async def test_engine_waits_at_its_gate_and_counts_who_gave_up():
    engine = FakeEngine(gate=asyncio.Event())
    task = asyncio.create_task(engine.complete(asking("?")))
    await engine.is_waiting.wait()
    assert engine.n_running == 1
    task.cancel()
    await asyncio.wait({task})
    assert (engine.n_running, engine.n_cancelled) == (0, 1)


def test_tokens_are_bytes_and_whole_special_tokens():
    assert byte_tokens("a</think>é") == [97 + 7, 6, 0xC3 + 7, 0xA9 + 7]
    assert token_text(byte_tokens("a</think>é")) == "aé"
