"""A real vLLM scores an answer under a constraint, and the same answer without it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.values.answers import Answer
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest, Rescoring

pytestmark = pytest.mark.engine

CHOICES = ["111", "333"]


@pytest.fixture
async def engine(vllm_address: str) -> AsyncIterator[VllmHttpEngine]:
    client = VllmHttpEngine(vllm_address, model="tiny", clock=SystemClock())
    yield client
    await client.aclose()


async def answer_of(engine: VllmHttpEngine, rescoring: Rescoring, **parts: Any) -> Answer:
    messages = [{"role": "user", "content": "6*7?"}]
    payload = {"messages": messages, "temperature": 0.0, "max_tokens": 8, **parts}
    request = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload=payload)
    asked = EngineRequest(request=request, top_logprobs=2, needs_token_ids=True)
    return (await engine.complete(replace(asked, rescoring=rescoring))).answers[0]


async def test_an_answer_in_free_form_is_scored_anew_as_it_was_scored(
    engine: VllmHttpEngine,
) -> None:
    as_given = await answer_of(engine, Rescoring.NEVER)
    anew = await answer_of(engine, Rescoring.ALWAYS)
    assert anew.token_ids == as_given.token_ids
    assert anew.logprobs == pytest.approx(as_given.logprobs, abs=0.02)
    assert anew.margins == pytest.approx(as_given.margins, abs=0.02)


async def test_the_log_probabilities_under_a_list_of_choices_are_not_the_models_own(
    engine: VllmHttpEngine,
) -> None:
    constraint = {"structured_outputs": {"choice": CHOICES}}
    masked = await answer_of(engine, Rescoring.NEVER, **constraint)
    free = await answer_of(engine, Rescoring.ALWAYS, **constraint)
    assert masked.text in CHOICES
    assert free.text == masked.text
    assert masked.logprobs is not None
    assert free.logprobs is not None
    # One of two is forced after the first token, so the mask leaves no doubt. The model has much.
    assert sum(map(float, masked.logprobs[1:])) == pytest.approx(0.0, abs=1e-3)
    assert sum(map(float, free.logprobs[1:])) < -1.0
