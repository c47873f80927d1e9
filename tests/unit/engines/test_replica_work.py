"""What a replica set tells its observer: every replica's work, retries and broken streams too."""

import asyncio
from contextlib import aclosing

import pytest

from hybridserve_llm.engines.replica_set import ReplicaSet
from hybridserve_llm.errors import EngineUnavailable
from hybridserve_llm.interfaces import WorkEnd
from hybridserve_llm.records import Endpoint, EngineRequest, GenerateRequest, Usage
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer

REQUEST = EngineRequest(
    request=GenerateRequest(
        request_id="r",
        endpoint=Endpoint.CHAT,
        payload={"messages": [{"role": "user", "content": "hi"}]},
    ),
    top_logprobs=None,
)


class Observer:
    """Keeps what it was told; `running` is what has begun and not ended."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ended: list[tuple[str, Usage, float | None]] = []

    def observe(self, request: GenerateRequest, tier: str, replica: str) -> WorkEnd:
        assert (request.request_id, tier) == ("r", "small")
        self.running.append(replica)

        def end(usage: Usage, first_token_s: float | None) -> None:
            self.running.remove(replica)
            self.ended.append((replica, usage, first_token_s))

        return end


def tier_of(*engines: FakeEngine) -> tuple[ReplicaSet, Observer]:
    observer = Observer()
    return ReplicaSet("small", engines, clock=FakeClock(), observer=observer), observer


async def test_a_whole_answers_tokens_are_told_at_its_end():
    tier, observer = tier_of(FakeEngine(scripted_answer("42")))
    completion = await tier.complete(REQUEST)
    assert completion.usage.completion_tokens is not None
    assert observer.ended == [("small/0", completion.usage, None)]


async def test_a_replica_that_failed_worked_too():
    tier, observer = tier_of(FakeEngine(EngineUnavailable("broke", kind="lost")), FakeEngine())
    await tier.complete(REQUEST)
    assert [replica for replica, _, _ in observer.ended] == ["small/0", "small/1"]
    assert observer.ended[0][1] == Usage()


async def test_a_stream_tells_when_its_first_token_came_and_its_usage():
    tier, observer = tier_of(FakeEngine("hello"))
    async with aclosing(tier.stream(REQUEST)) as chunks:
        assert [chunk async for chunk in chunks]
    ((replica, usage, first_token_s),) = observer.ended
    assert (replica, first_token_s) == ("small/0", 1000)
    assert usage.completion_tokens is not None


async def test_a_cancelled_request_ends_without_tokens():
    engine = FakeEngine(gate=asyncio.Event())
    engine.is_waiting = asyncio.Event()
    tier, observer = tier_of(engine)
    task = asyncio.create_task(tier.complete(REQUEST))
    await engine.is_waiting.wait()
    assert observer.running == ["small/0"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert observer.running == []
    assert observer.ended == [("small/0", Usage(), None)]


async def test_a_stream_that_is_closed_early_ends_its_work():
    tier, observer = tier_of(FakeEngine("hello"))
    async with aclosing(tier.stream(REQUEST)) as chunks:
        await anext(chunks)
        assert observer.running == ["small/0"]
    assert observer.running == []
