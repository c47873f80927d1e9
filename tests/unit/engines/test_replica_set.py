import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest

from hybridserve_llm.engines.replica_set import Replica, ReplicaSet
from hybridserve_llm.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    HybridServeError,
)
from hybridserve_llm.testing import FakeClock, FakeEngine
from hybridserve_llm.values.answers import Chunk, Completion
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest

REQUEST = EngineRequest(
    request=GenerateRequest(
        request_id="r",
        endpoint=Endpoint.CHAT,
        payload={"messages": [{"role": "user", "content": "hi"}]},
    ),
    top_logprobs=None,
)


def unreachable() -> EngineUnavailable:
    return EngineUnavailable("no connection")


def lost() -> EngineUnavailable:
    return EngineUnavailable("connection broke", kind="lost")


def refused() -> EngineUnavailable:
    return EngineUnavailable("status 503", kind="refused")


def tier_of(*engines: Replica, clock: FakeClock | None = None) -> ReplicaSet:
    return ReplicaSet("small", engines, clock=clock or FakeClock())


def counts(engines: Sequence[FakeEngine]) -> list[int]:
    return [len(engine.requests) for engine in engines]


async def streamed_text(engine: ReplicaSet) -> str:
    bodies = [chunk.body async for chunk in engine.stream(REQUEST)]
    return "".join(body["choices"][0]["delta"]["content"] for body in bodies if body["choices"])


@asynccontextmanager
async def busy(replica_set: ReplicaSet, engine: FakeEngine) -> AsyncIterator[None]:
    """Holds one request inside `engine`, which must be the next to be chosen."""
    engine.gate, engine.is_waiting = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(replica_set.complete(REQUEST))
    await engine.is_waiting.wait()
    gate, engine.gate = engine.gate, None
    yield
    gate.set()
    await task


def test_a_tier_without_replicas_is_refused():
    with pytest.raises(ValueError, match="tier 'small' needs at least one replica"):
        tier_of()


async def test_equal_replicas_take_turns():
    engines = [FakeEngine(), FakeEngine(), FakeEngine()]
    tier = tier_of(*engines)
    for _ in range(6):
        await tier.complete(REQUEST)
    assert counts(engines) == [2, 2, 2]


async def test_the_replica_with_the_fewest_requests_outstanding_is_chosen():
    first, second = FakeEngine(), FakeEngine()
    tier = tier_of(first, second)
    async with busy(tier, first):
        assert tier.outstanding == 1
        for _ in range(3):
            await tier.complete(REQUEST)
        assert counts([first, second]) == [1, 3]
    assert tier.outstanding == 0


@pytest.mark.parametrize("failure", [unreachable, lost, refused])
async def test_an_unavailable_replica_is_replaced_by_another(failure):
    first, second = FakeEngine(failure()), FakeEngine("from the second")
    tier = tier_of(first, second)
    assert (await tier.complete(REQUEST)).answers[0].text == "from the second"
    assert tier.outstanding == 0


@pytest.mark.parametrize("failure", [unreachable, lost])
async def test_a_replica_whose_connection_failed_is_not_asked_again_at_once(failure):
    first, second = FakeEngine(failure()), FakeEngine()
    tier = tier_of(first, second)
    for _ in range(3):
        await tier.complete(REQUEST)
    assert counts([first, second]) == [1, 3]
    assert tier.n_up == 1


async def test_a_replica_that_refuses_stays_up():
    first, second = FakeEngine(), FakeEngine()
    tier = tier_of(first, second)
    await tier.check_health()
    first.script = refused()
    await tier.complete(REQUEST)
    assert tier.n_up == 2


async def test_a_replica_that_wants_to_wait_is_asked_last_until_then():
    clock = FakeClock()
    busy = FakeEngine(EngineUnavailable("busy", kind="rate_limited", retry_after_s=5.0))
    other = FakeEngine()
    tier = tier_of(busy, other, clock=clock)
    for _ in range(3):
        await tier.complete(REQUEST)
    assert counts([busy, other]) == [1, 3]
    clock.advance(5.0)
    await tier.complete(REQUEST)
    assert counts([busy, other]) == [2, 4]


async def test_a_tier_whose_replicas_all_refuse_passes_on_how_long_to_wait():
    busy = EngineUnavailable("busy", kind="rate_limited", retry_after_s=37.0, detail="key sk-1")
    with pytest.raises(EngineUnavailable) as caught:
        await tier_of(FakeEngine(busy)).complete(REQUEST)
    assert (caught.value.kind, caught.value.retry_after_s) == ("rate_limited", 37.0)
    assert (str(caught.value), caught.value.detail) == (
        "tier 'small' is unavailable: busy",
        "key sk-1",
    )


async def test_a_replica_that_fails_is_passed_over_and_then_asked_last():
    mis_set, sound = FakeEngine(EngineFailed("status 404")), FakeEngine()
    tier = tier_of(mis_set, sound)
    for _ in range(5):
        await tier.complete(REQUEST)
    assert counts([mis_set, sound]) == [1, 5]


async def test_a_request_that_two_replicas_fail_at_is_not_tried_on_a_third():
    engines = [FakeEngine(EngineFailed("status 500")) for _ in range(3)]
    with pytest.raises(EngineFailed, match="status 500"):
        await tier_of(*engines).complete(REQUEST)
    assert counts(engines) == [1, 1, 0]


async def test_other_errors_are_passed_on_without_asking_another():
    first, second = FakeEngine(ContextLengthExceeded("too long")), FakeEngine()
    with pytest.raises(ContextLengthExceeded):
        await tier_of(first, second).complete(REQUEST)
    assert counts([first, second]) == [1, 0]


async def test_all_down_raises_at_once_and_names_the_tier():
    engines = [FakeEngine(unreachable()), FakeEngine(unreachable())]
    tier = tier_of(*engines)
    with pytest.raises(EngineUnavailable, match="tier 'small' is unavailable: no connection"):
        await tier.complete(REQUEST)
    with pytest.raises(EngineUnavailable, match="tier 'small' is down: none of its 2 replicas"):
        await tier.complete(REQUEST)
    with pytest.raises(EngineUnavailable, match="tier 'small' is down"):
        await streamed_text(tier)
    assert counts(engines) == [1, 1]


async def test_all_refusing_says_so():
    tier = tier_of(FakeEngine(refused()), FakeEngine(refused()))
    with pytest.raises(EngineUnavailable, match="status 503") as caught:
        await tier.complete(REQUEST)
    assert caught.value.kind == "refused"


async def test_a_request_that_kills_engines_does_not_kill_them_all():
    engines = [FakeEngine(lost()) for _ in range(4)]
    with pytest.raises(EngineUnavailable) as caught:
        await tier_of(*engines).complete(REQUEST)
    assert counts(engines) == [1, 1, 0, 0]
    assert caught.value.kind == "lost"


async def test_a_down_replica_is_tried_by_one_request_after_each_longer_back_off():
    clock, engine = FakeClock(), FakeEngine(unreachable())
    tier = tier_of(engine, clock=clock)

    async def n_asked_after(seconds: float) -> int:
        clock.advance(seconds)
        for _ in range(2):
            with pytest.raises(EngineUnavailable):
                await tier.complete(REQUEST)
        return len(engine.requests)

    assert await n_asked_after(0) == 1  # and is down for 1 s
    assert await n_asked_after(0.9) == 1
    assert await n_asked_after(0.1) == 2  # tried once; 1 s more, then 2 s
    assert await n_asked_after(0.9) == 2
    assert await n_asked_after(0.1) == 3
    assert await n_asked_after(1.9) == 3
    assert await n_asked_after(0.1) == 4


async def test_many_requests_lost_at_once_back_off_once():
    clock, gate = FakeClock(), asyncio.Event()
    engine = FakeEngine(unreachable(), gate=gate)
    tier = tier_of(engine, clock=clock)
    asking = [asyncio.create_task(tier.complete(REQUEST)) for _ in range(8)]
    await engine.is_waiting.wait()
    gate.set()
    await asyncio.wait(asking)
    assert all(isinstance(task.exception(), EngineUnavailable) for task in asking)
    engine.script = "42"
    clock.advance(1.0)
    assert (await tier.complete(REQUEST)).answers[0].text == "42"


async def test_a_replica_that_answers_after_its_back_off_is_up_again():
    clock, engine = FakeClock(), FakeEngine(unreachable())
    tier = tier_of(engine, clock=clock)
    with pytest.raises(EngineUnavailable):
        await tier.complete(REQUEST)
    assert (tier.n_up, tier.is_ready) == (0, False)
    engine.script = "42"
    clock.advance(1.0)
    await tier.complete(REQUEST)
    assert (tier.n_up, tier.is_ready) == (1, True)


async def test_a_stream_comes_from_one_replica():
    assert await streamed_text(tier_of(FakeEngine("hello"))) == "hello"


async def test_a_stream_moves_to_another_replica_before_its_first_chunk():
    first = FakeEngine("nothing", error_after_chunks=lost())
    tier = tier_of(first, FakeEngine("hello"))
    assert await streamed_text(tier) == "hello"
    assert tier.outstanding == 0


class SpeaksThenFails(FakeEngine):
    """An engine whose stream names the role, and then fails."""

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        yield Chunk(body={"choices": [{"delta": {"role": "assistant"}}]}, has_tokens=False)
        raise EngineFailed("gave the answer up")


async def test_a_stream_moves_to_another_replica_after_a_chunk_without_tokens():
    tier = tier_of(SpeaksThenFails(), FakeEngine("hello"))
    assert await streamed_text(tier) == "hello"


async def test_a_stream_without_a_token_is_passed_on_whole():
    tier = tier_of(FakeEngine(""))
    assert [chunk.usage is None for chunk in [c async for c in tier.stream(REQUEST)]] == [False]


async def test_a_stream_that_breaks_after_its_first_chunk_is_not_begun_again():
    first = FakeEngine("hello", n_chunks_before_gate=2, error_after_chunks=lost())
    second = FakeEngine()
    tier = tier_of(first, second)
    with pytest.raises(EngineUnavailable, match="connection broke"):
        await streamed_text(tier)
    assert counts([first, second]) == [1, 0]
    await tier.complete(REQUEST)
    assert counts([first, second]) == [1, 1]  # the first is down


async def test_closing_a_stream_ends_it_in_the_replica_and_in_the_count():
    engine = FakeEngine("hello")
    tier = tier_of(engine)
    async with aclosing(tier.stream(REQUEST)) as chunks:
        await anext(chunks)
        assert tier.outstanding == 1
    assert tier.outstanding == 0
    assert engine.n_cancelled == 1


async def test_cancelling_a_request_ends_it_in_the_replica_and_in_the_count():
    engine = FakeEngine(gate=asyncio.Event())
    tier = tier_of(engine)
    asking = asyncio.create_task(tier.complete(REQUEST))
    await engine.is_waiting.wait()
    assert tier.outstanding == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert tier.outstanding == 0
    assert engine.n_cancelled == 1


async def test_is_ready_only_after_a_probe_or_an_answer():
    tier = tier_of(FakeEngine(), FakeEngine(is_healthy=False))
    assert (tier.n_replicas, tier.n_up, tier.is_ready) == (2, 0, False)
    assert await tier.check_health() is True
    assert (tier.n_replicas, tier.n_up, tier.is_ready) == (2, 1, True)


class Hangs(FakeEngine):
    """An engine whose answers run out of time after `takes_s`, though it is healthy."""

    def __init__(self, clock: FakeClock, takes_s: float = 5.0) -> None:
        super().__init__()
        self.clock, self.takes_s, self.is_hanging = clock, takes_s, True

    async def complete(self, request: EngineRequest) -> Completion:
        if not self.is_hanging:
            return await super().complete(request)
        self.requests.append(request)
        self.clock.advance(self.takes_s)
        raise DeadlineExceeded("no answer before the deadline")


async def asked(tier: ReplicaSet) -> str:
    try:
        await tier.complete(REQUEST)
    except HybridServeError as exc:
        return type(exc).__name__
    return "answered"


async def test_a_replica_that_hangs_is_passed_over_until_a_request_that_tries_it_succeeds():
    clock = FakeClock()
    hanging = Hangs(clock)
    tier = tier_of(hanging, clock=clock)
    assert [await asked(tier) for _ in range(3)] == [
        "DeadlineExceeded",
        "DeadlineExceeded",
        "EngineUnavailable",
    ]
    await tier.check_health()
    assert not tier.is_ready  # its probe succeeds, and says nothing
    clock.advance(1.0)
    assert await asked(tier) == "DeadlineExceeded"
    hanging.is_hanging = False
    clock.advance(2.0)
    assert [await asked(tier), await asked(tier)] == ["answered", "answered"]
    assert tier.is_ready


async def test_a_replica_that_times_out_and_answers_others_is_slow_and_does_not_hang():
    clock = FakeClock()
    slow = Hangs(clock)
    tier = tier_of(slow, clock=clock)
    for _ in range(3):
        slow.is_hanging = True
        assert await asked(tier) == "DeadlineExceeded"
        slow.is_hanging = False
        assert await asked(tier) == "answered"
    assert tier.is_ready


async def test_a_request_that_came_with_no_time_left_is_no_hang():
    clock = FakeClock()
    tier = tier_of(Hangs(clock, takes_s=0.5), clock=clock)
    assert [await asked(tier) for _ in range(4)] == ["DeadlineExceeded"] * 4


async def test_one_late_probe_of_a_replica_that_was_up_is_forgiven_and_two_are_not():
    engine = FakeEngine()
    tier = tier_of(engine)
    await tier.check_health()
    engine.is_healthy = False
    assert await tier.check_health() is True
    assert await tier.check_health() is False
    engine.is_healthy = True
    assert await tier.check_health() is True


async def test_a_request_avoids_a_replica_that_failed_its_probe():
    first, second = FakeEngine(is_healthy=False), FakeEngine()
    tier = tier_of(first, second)
    await tier.check_health()
    for _ in range(3):
        await tier.complete(REQUEST)
    assert counts([first, second]) == [0, 3]


async def test_a_replica_that_hangs_holds_up_no_others_probe():
    class Probed(FakeEngine):
        n_probes = 0
        is_probed_often = asyncio.Event()

        async def check_health(self) -> bool:
            self.n_probes += 1
            if self.n_probes == 5:
                self.is_probed_often.set()
            return await super().check_health()

    hanging, other = FakeEngine(is_healthy=None), Probed()
    tier = tier_of(hanging, other)
    watching = asyncio.create_task(tier.watch_health(0))
    await asyncio.wait_for(other.is_probed_often.wait(), 5)
    assert tier.n_up == 1
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_a_failure_names_its_cause():
    failure: Any = unreachable()
    with pytest.raises(HybridServeError) as caught:
        await tier_of(FakeEngine(failure)).complete(REQUEST)
    assert caught.value.__cause__ is failure
