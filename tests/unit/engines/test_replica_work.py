"""What a replica set tells its observer: every replica's work, retries and broken streams too."""

import asyncio
from contextlib import aclosing
from dataclasses import replace

import pytest

from hybridserve_llm.engines.replica_set import ReplicaSet
from hybridserve_llm.errors import EngineUnavailable
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer
from hybridserve_llm.values.answers import Usage
from hybridserve_llm.values.engines import Work
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest

REQUEST = EngineRequest(
    request=GenerateRequest(
        request_id="r",
        endpoint=Endpoint.CHAT,
        payload={"messages": [{"role": "user", "content": "hi"}]},
    ),
    top_logprobs=None,
)


class Observer:
    """Keeps what it was told."""

    def __init__(self) -> None:
        self.works: list[Work] = []

    def observe(self, work: Work) -> None:
        assert (work.request_id, work.tier, work.start_s) == ("r", "small", 1000)
        self.works.append(work)

    @property
    def running(self) -> list[str]:
        return [work.replica for work in self.works if work.end_s is None]

    @property
    def ended(self) -> list[tuple[str, Usage, float | None]]:
        return [
            (work.replica, work.usage, work.first_token_s)
            for work in self.works
            if work.end_s is not None
        ]


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


async def test_a_replicas_works_are_told_apart_by_their_number():
    tier, observer = tier_of(FakeEngine(), FakeEngine())
    for _ in range(4):
        await tier.complete(REQUEST)
    assert len({(work.replica, work.number) for work in observer.works}) == 4


async def test_a_shadow_and_a_question_for_calibration_say_so():
    tier, observer = tier_of(FakeEngine())
    for kind in ({"is_shadow": True}, {"assess": True}, {}):
        await tier.complete(replace(REQUEST, request=replace(REQUEST.request, **kind)))
    kinds = [(work.is_shadow, work.is_calibration) for work in observer.works]
    assert kinds == [(True, False), (False, True), (False, False)]
