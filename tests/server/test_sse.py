"""A held answer told as a stream folds back into the answer it came from."""

import asyncio
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import orjson
import pytest

from hybridserve_llm.cascade.climb import Tier
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.policy import ScorePolicy
from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.confidence.day_zero import DayZeroScorer
from hybridserve_llm.server.sse import DONE, KEEP_ALIVE, EventStream, held_events
from hybridserve_llm.testing import FakeClock, FakeEngine
from hybridserve_llm.values.answers import Completion, Usage
from hybridserve_llm.values.ledger import Ledger, Outcome, RequestEnd
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

LEDGER = Ledger(request_id="r", attempts=(), tier="small", model="s")


def events(
    body: dict[str, Any],
    endpoint: Endpoint,
    *,
    include_usage: bool = False,
    logprobs: int | None = None,
    token_ids: bool = False,
) -> list[dict[str, Any]]:
    request = GenerateRequest(
        request_id="r",
        endpoint=endpoint,
        payload={},
        stream=True,
        include_usage=include_usage,
        client_top_logprobs=logprobs,
        wants_token_ids=token_ids,
    )
    completion = Completion(answers=(), usage=Usage(), body=body)
    *chunks, done = held_events(Outcome(completion=completion, ledger=LEDGER), request)
    assert done == DONE
    return [orjson.loads(chunk.removeprefix(b"data: ")) for chunk in chunks]


def chat(message: dict[str, Any], **choice: Any) -> dict[str, Any]:
    whole = {"index": 0, "message": message, "finish_reason": "stop", **choice}
    usage = {"prompt_tokens": 3, "completion_tokens": 2}
    return {"id": "c1", "created": 7, "model": "m", "choices": [whole], "usage": usage}


def test_chat_answer_becomes_role_content_and_end() -> None:
    chunks = events(chat({"role": "assistant", "content": "42"}), Endpoint.CHAT)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"role": "assistant", "content": ""}, {"content": "42"}, {}]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, "stop"]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["id"] for chunk in chunks} == {"c1"}


def test_the_ledger_is_on_the_last_chunk_alone() -> None:
    for include_usage in (False, True):
        body = chat({"role": "assistant", "content": "42"})
        chunks = events(body, Endpoint.CHAT, include_usage=include_usage)
        assert ["hybridserve" in chunk for chunk in chunks] == [False] * (len(chunks) - 1) + [True]


def test_usage_comes_in_a_chunk_of_its_own_where_asked_for() -> None:
    body = chat({"role": "assistant", "content": "42"})
    assert all("usage" not in chunk for chunk in events(body, Endpoint.CHAT))
    *rest, last = events(body, Endpoint.CHAT, include_usage=True)
    assert all(chunk["usage"] is None for chunk in rest)
    assert (last["choices"], last["usage"]) == ([], body["usage"])


def test_tool_calls_and_reasoning_survive() -> None:
    call = {"id": "t1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "reasoning": "hm", "tool_calls": [call, call]}
    chunks = events(chat(message, finish_reason="tool_calls"), Endpoint.CHAT)
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["reasoning"] == "hm"
    assert [delta["tool_calls"][0]["index"] for delta in deltas if "tool_calls" in delta] == [0, 1]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


def test_every_choice_is_told() -> None:
    body = chat({"role": "assistant", "content": "a"})
    body["choices"].append(
        {"index": 1, "message": {"role": "assistant", "content": "b"}, "finish_reason": "stop"}
    )
    chunks = events(body, Endpoint.CHAT)
    texts = {0: "", 1: ""}
    for chunk in chunks:
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == {0: "a", 1: "b"}


@pytest.mark.parametrize(("asked", "n_with"), [(None, 0), (0, 1)])
def test_log_probabilities_come_once_and_only_where_asked_for(
    asked: int | None, n_with: int
) -> None:
    logprobs = {"content": [{"token": "42", "logprob": -0.1, "top_logprobs": []}]}
    body = chat({"role": "assistant", "content": "42"}, logprobs=logprobs)
    chunks = events(body, Endpoint.CHAT, logprobs=asked)
    assert sum(chunk["choices"][0]["logprobs"] is not None for chunk in chunks) == n_with


def test_token_ids_come_once_and_only_where_asked_for() -> None:
    body = chat({"role": "assistant", "content": "42"}, token_ids=[4, 2])
    chunks = events({**body, "prompt_token_ids": [1]}, Endpoint.CHAT, token_ids=True)
    assert [chunk["choices"][0].get("token_ids") for chunk in chunks] == [None, [4, 2], None]
    assert [chunk.get("prompt_token_ids") for chunk in chunks] == [[1], None, None]
    assert not any("token_ids" in str(chunk) for chunk in events(body, Endpoint.CHAT))


def test_completion_is_told_in_one_piece() -> None:
    body = {
        "id": "c",
        "created": 1,
        "model": "m",
        "choices": [{"index": 0, "text": "hi", "logprobs": None, "finish_reason": "stop"}],
        "usage": {},
    }
    (chunk,) = events(body, Endpoint.COMPLETIONS)
    assert chunk["object"] == "text_completion"
    assert chunk["choices"][0]["text"] == "hi"
    assert chunk["choices"][0]["finish_reason"] == "stop"


REQUEST = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload={}, stream=True)


@dataclass
class KeepingJournal:
    """A RequestJournal that keeps what it gets."""

    ledgers: list[Ledger] = field(default_factory=list)

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        self.ledgers.append(ledger)


class Client:
    """An ASGI connection whose client leaves when `left` is set.

    Sending message number `stuck_at` never ends, and the client then leaves.
    """

    def __init__(self, *, stuck_at: int | None = None) -> None:
        self.left = asyncio.Event()
        self.commented = asyncio.Event()
        self.bodies: list[bytes] = []
        self.stuck_at = stuck_at

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.bodies.append(message.get("body", b""))
        if KEEP_ALIVE in self.bodies:
            self.commented.set()
        if len(self.bodies) == self.stuck_at:
            self.left.set()
            await asyncio.Event().wait()


class Admission(AbstractContextManager[None]):
    """Keeps whether it was left."""

    is_over = False

    def __exit__(self, *_: object) -> None:
        self.is_over = True


def stream_of(
    deciding: "asyncio.Future[Any]", admission: AbstractContextManager[Any]
) -> EventStream:
    return EventStream(deciding, REQUEST, headers={}, keep_alive_s=0.01, admission=admission)


async def test_a_client_that_leaves_while_comments_are_sent_ends_the_decision() -> None:
    client, ended, admission = Client(), asyncio.Event(), Admission()

    async def decide() -> Outcome:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("never decided")

    deciding = asyncio.ensure_future(decide())
    stream = stream_of(deciding, admission)
    answering = asyncio.ensure_future(stream({"type": "http"}, client.receive, client.send))
    await client.commented.wait()
    assert not admission.is_over
    client.left.set()
    await answering
    assert ended.is_set()
    assert deciding.cancelled()
    assert admission.is_over


# The first message is the head of the response, the second the first piece of its body.
@pytest.mark.parametrize("stuck_at", [1, 2])
async def test_a_client_that_leaves_while_a_piece_is_sent_ends_the_engines_work(
    stuck_at: int,
) -> None:
    client, giant, admission = Client(stuck_at=stuck_at), FakeEngine("giant says"), Admission()
    journal, clock = KeepingJournal(), FakeClock()
    tier = Tier(name="giant", model="g", engine=giant, scorer=DayZeroScorer())
    policy = ScorePolicy(rules=())
    policies = Policies(default=policy, last_only=policy)
    router = CascadeRouter([tier], policies, journal=journal, clock=clock)
    deciding = asyncio.ensure_future(router.answer(REQUEST))
    await asyncio.wait((deciding,))

    await stream_of(deciding, admission)({"type": "http"}, client.receive, client.send)
    assert (giant.n_running, giant.n_cancelled) == (0, 1)
    assert [ledger.end for ledger in journal.ledgers] == [RequestEnd.GIVEN_UP]
    assert admission.is_over
