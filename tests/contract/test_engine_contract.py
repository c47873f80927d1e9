"""What the project relies on in an engine: one body, for the fake and for a real vLLM."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from hybridserve_llm.errors import ContextLengthExceeded, EngineFailed, InvalidRequest
from hybridserve_llm.load.engine_counters import counters_of
from hybridserve_llm.values.answers import Completion
from hybridserve_llm.values.engines import EngineInfo
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest

GREEDY = {"temperature": 0.0, "max_tokens": 20, "ignore_eos": True}
LONG = {"max_tokens": 500, "n": 128, "temperature": 1.0}  # not over before anybody looked
POLL_S = 0.02
PATIENCE_S = 30.0


def chat(prompt: str = "6*7?", *, top_logprobs: int | None = None, **parts: Any) -> EngineRequest:
    needs_token_ids = parts.pop("needs_token_ids", False)
    payload = {**GREEDY, "messages": [{"role": "user", "content": prompt}], **parts}
    request = GenerateRequest(request_id="contract", endpoint=Endpoint.CHAT, payload=payload)
    return EngineRequest(
        request=request, top_logprobs=top_logprobs, needs_token_ids=needs_token_ids
    )


def text_completion(prompt: str = "6*7?", *, top_logprobs: int | None = None) -> EngineRequest:
    payload = {**GREEDY, "prompt": prompt}
    request = GenerateRequest(request_id="contract", endpoint=Endpoint.COMPLETIONS, payload=payload)
    return EngineRequest(request=request, top_logprobs=top_logprobs, needs_token_ids=True)


def assert_every_token_has_a_logprob(completion: Completion) -> None:
    logprobs = completion.answers[0].logprobs
    assert logprobs is not None
    assert len(logprobs) == completion.usage.completion_tokens == GREEDY["max_tokens"]
    assert all(logprob is not None and logprob <= 0 for logprob in logprobs)


async def wait_until_it_works(subject, *, is_working: bool) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while (await subject.n_running() > 0) != is_working:  # noqa: ASYNC110 - a server's gauge
            await asyncio.sleep(POLL_S)


@pytest.mark.parametrize("top_logprobs", [0, 5])
async def test_chat_gives_a_logprob_for_every_token(subject, top_logprobs):
    completion = await subject.engine.complete(chat(top_logprobs=top_logprobs))
    assert_every_token_has_a_logprob(completion)
    entries = completion.body["choices"][0]["logprobs"]["content"]
    assert [len(entry["top_logprobs"]) for entry in entries] == [top_logprobs] * len(entries)


@pytest.mark.parametrize("top_logprobs", [0, 5])
async def test_completions_gives_a_logprob_for_every_token(subject, top_logprobs):
    completion = await subject.engine.complete(text_completion(top_logprobs=top_logprobs))
    assert_every_token_has_a_logprob(completion)


async def test_without_asking_there_are_neither_logprobs_nor_token_ids(subject):
    answer = (await subject.engine.complete(chat())).answers[0]
    assert answer.logprobs is None
    assert answer.token_ids is None
    assert answer.finish_reason == "length"


async def test_token_ids_come_one_for_one_with_logprobs(subject):
    for request in (chat(top_logprobs=0, needs_token_ids=True), text_completion(top_logprobs=0)):
        answer = (await subject.engine.complete(request)).answers[0]
        assert answer.logprobs is not None
        assert answer.token_ids is not None
        assert len(answer.token_ids) == len(answer.logprobs) == GREEDY["max_tokens"]


async def test_usage_counts_prompt_and_completion(subject):
    usage = (await subject.engine.complete(chat("6*7?"))).usage
    # <|user|> 6 * 7 ? <|end|> <|assistant|>: 4 bytes and 3 special tokens
    assert usage.prompt_tokens == 7
    assert usage.completion_tokens == GREEDY["max_tokens"]


async def test_streamed_chat_says_what_the_whole_answer_says(subject):
    request = chat(top_logprobs=0, needs_token_ids=True)
    whole = await subject.engine.complete(request)
    chunks = [chunk async for chunk in subject.engine.stream(request)]
    choices = [choice for chunk in chunks for choice in chunk.body["choices"]]
    text = "".join(choice["delta"].get("content") or "" for choice in choices)
    logprobs = [
        entry["logprob"]
        for choice in choices
        if choice.get("logprobs")
        for entry in choice["logprobs"]["content"]
    ]
    token_ids = [i for choice in choices for i in choice.get("token_ids") or ()]
    assert text == whole.answers[0].text
    assert token_ids == list(whole.answers[0].token_ids)
    assert logprobs == pytest.approx(list(whole.answers[0].logprobs), abs=0.05)
    assert chunks[-1].usage == whole.usage


async def test_streamed_completions_says_what_the_whole_answer_says(subject):
    whole = await subject.engine.complete(text_completion())
    chunks = [chunk async for chunk in subject.engine.stream(text_completion())]
    choices = [choice for chunk in chunks for choice in chunk.body["choices"]]
    assert "".join(choice["text"] for choice in choices) == whole.answers[0].text
    assert chunks[-1].usage == whole.usage


@pytest.mark.parametrize("n_characters", [512, 600, 50_000])
async def test_a_prompt_that_is_too_long_is_context_length_exceeded(subject, n_characters):
    with pytest.raises(ContextLengthExceeded):
        await subject.engine.complete(chat("x" * n_characters))
    with pytest.raises(ContextLengthExceeded):
        await anext(subject.engine.stream(chat("x" * n_characters)))


async def test_a_prompt_that_fills_the_context_is_context_length_exceeded(subject):
    with pytest.raises(ContextLengthExceeded):
        await subject.engine.complete(text_completion("x" * 512))


async def test_more_output_than_the_context_holds_is_context_length_exceeded(subject):
    with pytest.raises(ContextLengthExceeded, match="max_tokens"):
        await subject.engine.complete(chat(max_tokens=600))


async def test_a_negative_temperature_is_an_invalid_request(subject):
    with pytest.raises(InvalidRequest, match="temperature") as caught:
        await subject.engine.complete(chat(temperature=-1.0))
    assert caught.value.parameter == "temperature"


async def test_a_model_that_is_not_served_is_the_engines_failure(subject):
    engine = subject.other(model="nobody")
    try:
        with pytest.raises(EngineFailed) as caught:
            await engine.complete(chat())
        assert "nobody" in caught.value.with_detail
        with pytest.raises(EngineFailed, match="it serves: tiny"):
            await engine.describe()
    finally:
        await engine.aclose()


async def test_closing_a_stream_ends_the_work_in_the_engine(subject):
    async with aclosing(subject.engine.stream(chat(**LONG))) as chunks:
        await anext(chunks)
        await wait_until_it_works(subject, is_working=True)
    await wait_until_it_works(subject, is_working=False)


async def test_cancelling_a_whole_answer_ends_the_work_in_the_engine(subject):
    asking = asyncio.create_task(subject.engine.complete(chat(**LONG)))
    await wait_until_it_works(subject, is_working=True)
    asking.cancel()
    await asyncio.wait({asking})
    assert asking.cancelled()
    await wait_until_it_works(subject, is_working=False)


async def test_special_tokens_have_one_id(subject):
    assert await subject.engine.token_id_of("</think>") == 6
    assert await subject.engine.token_id_of("two tokens") is None


async def test_describes_itself(subject):
    assert await subject.engine.describe() == EngineInfo(model="tiny", max_model_len=512)


async def test_is_healthy(subject):
    assert await subject.engine.check_health() is True


async def test_a_prompt_of_token_ids_is_as_long_as_they_are(subject):
    token_ids = await subject.engine.token_ids_of("6*7? 6*8?")
    assert token_ids is not None
    assert len(token_ids) == 9  # both tokenizers have a token per byte
    payload = {**GREEDY, "prompt": list(token_ids)}
    request = GenerateRequest(request_id="ids", endpoint=Endpoint.COMPLETIONS, payload=payload)
    completion = await subject.engine.complete(EngineRequest(request=request, top_logprobs=None))
    assert completion.usage.prompt_tokens == 9
    assert completion.usage.completion_tokens == GREEDY["max_tokens"]


async def test_metrics_count_what_a_profile_is_made_of(subject):
    before = counters_of(await subject.engine.metrics())
    completion = await subject.engine.complete(text_completion())
    counted = counters_of(await subject.engine.metrics()).since(before)
    n_tokens = GREEDY["max_tokens"]
    assert counted.prompt_tokens == completion.usage.prompt_tokens
    assert counted.output_tokens == n_tokens
    assert counted.n_first_tokens == 1
    assert counted.n_intervals == n_tokens - 1
    assert counted.ttft_s > 0
    assert counted.itl_s > 0
