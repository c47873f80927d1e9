"""A stream folded back into the response that the same request would have had whole."""

import json
from typing import Any

import httpx
import openai
import pytest

from eval.asking.ledger import answer_text
from eval.asking.streamed_answer import streamed
from hybridserve_llm.errors import CannotBeDone

CHAT = {"model": "m", "messages": []}


def event(value: object) -> str:
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n"


def delta(**said: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": said, "finish_reason": None}]}


async def asked(
    *chunks: object, body: dict[str, Any] = CHAT
) -> tuple[dict[str, Any], float | None, list[Any]]:
    """The response, the seconds to its first token, and the bodies that were sent."""
    sent: list[Any] = []
    text = ": waiting\n\n" + "".join(map(event, (*chunks, "[DONE]")))

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(json.loads(request.content))
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        client = openai.AsyncOpenAI(
            base_url="http://hs/v1", api_key="k", http_client=http, max_retries=0
        )
        response, ttft_s = await streamed(client, "/chat/completions", body)
    return dict(response), ttft_s, sent


async def test_a_chat_is_folded_with_the_ledger_of_its_last_chunk() -> None:
    ledger = {"tier": "giant"}
    response, ttft_s, sent = await asked(
        delta(role="assistant", content=""),
        delta(content="4"),
        delta(content="2"),
        {"choices": [{"index": 0, "delta": {}}], "hybridserve": ledger},
    )
    assert answer_text(response["choices"][0]) == "42"
    assert response["hybridserve"] == ledger
    assert ttft_s is not None
    assert ttft_s >= 0
    assert sent == [{**CHAT, "stream": True}]


async def test_a_completion_is_folded() -> None:
    response, ttft_s, _ = await asked(
        {"choices": [{"index": 0, "text": "4"}]},
        {"choices": [{"index": 0, "text": "2"}], "hybridserve": {}},
        body={"model": "m", "prompt": "?"},
    )
    assert response["choices"] == [{"text": "42"}]
    assert ttft_s is not None


async def test_tool_calls_are_put_together_by_their_index() -> None:
    response, ttft_s, _ = await asked(
        delta(role="assistant", content=""),
        delta(tool_calls=[{"index": 0, "function": {"name": "weather", "arguments": '{"city'}}]),
        delta(tool_calls=[{"index": 1, "function": {"name": "time", "arguments": "{}"}}]),
        delta(tool_calls=[{"index": 0, "function": {"arguments": '": "Paris"}'}}]),
    )
    assert json.loads(answer_text(response["choices"][0])) == [
        ["weather", {"city": "Paris"}],
        ["time", {}],
    ]
    assert ttft_s is not None


async def test_a_stream_without_a_token_has_no_first_one() -> None:
    response, ttft_s, _ = await asked(delta(role="assistant", content=""), delta())
    assert answer_text(response["choices"][0]) == ""
    assert ttft_s is None


async def test_an_error_in_the_stream_is_the_servers() -> None:
    fault = {"error": {"message": "the deadline passed", "type": "t", "param": None, "code": None}}
    with pytest.raises(openai.APIError, match="the deadline passed"):
        await asked(delta(role="assistant", content=""), fault)


async def test_a_stream_of_something_else_is_no_front_ends() -> None:
    with pytest.raises(CannotBeDone, match=r"stream is not that of a HybridServe: \['x'\]"):
        await asked(["x"])
