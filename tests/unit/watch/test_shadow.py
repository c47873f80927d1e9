"""The draw and the background worker: what is asked, what is counted, what is never in the way."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from builders import chat_request

from hybridserve_llm.errors import EngineUnavailable
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer
from hybridserve_llm.values.answers import Answer, Completion, ToolCall, Usage
from hybridserve_llm.values.requests import GenerateRequest, Overrides
from hybridserve_llm.watch.sampler import ShadowSampler
from hybridserve_llm.watch.settings import ShadowSettings
from hybridserve_llm.watch.shadow import (
    ShadowJob,
    ShadowOutcome,
    ShadowResult,
    ShadowWorker,
    comparable_text,
)

DAY_S = 86_400.0


def n_drawn(sampler: ShadowSampler, clock: FakeClock, n: int, *, every_s: float) -> int:
    drawn = 0
    for _ in range(n):
        clock.advance(every_s)
        drawn += sampler.picks()
    return drawn


def test_the_share_is_drawn_of_heavy_traffic() -> None:
    clock = FakeClock()
    sampler = ShadowSampler(ShadowSettings(share=0.1, floor_per_day=0), clock=clock)
    # Binomial(20,000, .1): mean 2,000, standard deviation 42.
    assert n_drawn(sampler, clock, 20_000, every_s=1.0) == pytest.approx(2000, abs=130)


def test_the_floor_is_drawn_of_light_traffic() -> None:
    clock = FakeClock()
    sampler = ShadowSampler(ShadowSettings(share=0.02, floor_per_day=20), clock=clock)
    n_drawn(sampler, clock, 1000, every_s=DAY_S / 200)  # five days, until the day's count is known
    # 200 a day: each with probability 20 / 200 where the share alone gives 4 a day. In 50 days
    # 1,000 of 10,000, standard deviation 30.
    drawn = n_drawn(sampler, clock, 10_000, every_s=DAY_S / 200)
    assert drawn == pytest.approx(1000, abs=100)


def test_everything_is_drawn_where_less_than_the_floor_is_accepted() -> None:
    clock = FakeClock()
    sampler = ShadowSampler(ShadowSettings(floor_per_day=20), clock=clock)
    assert n_drawn(sampler, clock, 50, every_s=DAY_S / 10) == 50


def test_a_start_draws_the_first_answers_and_then_ever_fewer() -> None:
    clock = FakeClock()
    sampler = ShadowSampler(ShadowSettings(share=0.02, floor_per_day=20), clock=clock)
    assert n_drawn(sampler, clock, 20, every_s=0.0) == 20
    # 20 ln(1000 / 20) = 78 of the next 980 are expected.
    assert 50 < n_drawn(sampler, clock, 980, every_s=0.0) < 110


def test_the_same_seed_draws_the_same() -> None:
    def draws(seed: int) -> list[bool]:
        settings = ShadowSettings(share=0.5, floor_per_day=0, seed=seed)
        sampler = ShadowSampler(settings, clock=FakeClock())
        return [sampler.picks() for _ in range(50)]

    assert draws(1) == draws(1)
    assert draws(1) != draws(2)


def test_a_restart_knows_the_traffic_and_repeats_no_draws() -> None:
    clock = FakeClock()
    settings = ShadowSettings(share=0.5, floor_per_day=0)
    first = ShadowSampler(settings, clock=clock)
    draws = [first.picks() for _ in range(50)]
    second = ShadowSampler(settings, clock=clock, traffic=first.traffic)
    assert second.traffic.n_accepted == 50
    assert [second.picks() for _ in range(50)] != draws


def test_wall_time_set_back_fades_nothing() -> None:
    ahead = ShadowSampler(ShadowSettings(), clock=FakeClock(wall_s=2_000_000.0))
    ahead.picks()
    behind = ShadowSampler(
        ShadowSettings(), clock=FakeClock(wall_s=1_000_000.0), traffic=ahead.traffic
    )
    behind.picks()
    assert behind.traffic.n_recent == 2.0


@pytest.mark.parametrize(
    "wrong",
    [
        {"share": 0.0},
        {"share": 1.1},
        {"floor_per_day": -1.0},
        {"timeout_s": 0.0},
        {"queue_size": 0},
        {"concurrency": 0},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ShadowSettings(**wrong)  # type: ignore[arg-type]  # ints among floats


def job(name: str = "r1", text: str | None = "42") -> ShadowJob:
    return ShadowJob(request=chat_request(name), tier="small", text=text)


def same_text(_: GenerateRequest, accepted: str, last: str) -> bool | None:
    return None if last == "who knows" else accepted == last


@dataclass
class Shadowing:
    """A worker on a fake last tier, and the results it told."""

    engine: FakeEngine
    settings: ShadowSettings = field(default_factory=ShadowSettings)
    clock: FakeClock = field(default_factory=FakeClock)
    results: list[ShadowResult] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.has_result = asyncio.Event()
        self.worker = ShadowWorker(
            last_tier=self.engine,
            agrees=same_text,
            on_result=self.take,
            clock=self.clock,
            settings=self.settings,
        )

    def take(self, result: ShadowResult) -> None:
        self.results.append(result)
        self.has_result.set()

    @property
    def outcomes(self) -> list[ShadowOutcome]:
        return [result.outcome for result in self.results]

    async def wait_for(self, n: int) -> None:
        async with asyncio.timeout(5):
            while len(self.results) < n:
                self.has_result.clear()
                await self.has_result.wait()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.worker.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        ("42", ShadowOutcome.AGREED),
        ("43", ShadowOutcome.DISAGREED),
        ("who knows", ShadowOutcome.CANNOT_TELL),
        (EngineUnavailable("down"), ShadowOutcome.FAILED),
    ],
)
async def test_the_last_tiers_answer_decides(
    last: str | EngineUnavailable, outcome: ShadowOutcome
) -> None:
    shadowing = Shadowing(FakeEngine(last))
    async with shadowing.running():
        shadowing.worker.submit(job())
        await shadowing.wait_for(1)
    assert shadowing.outcomes == [outcome]


async def test_tokens_of_the_last_tier_are_told() -> None:
    answer = Completion(
        answers=(Answer(text="42", finish_reason="stop"),),
        usage=Usage(prompt_tokens=7, completion_tokens=2),
        body={},
    )
    shadowing = Shadowing(FakeEngine(answer))
    async with shadowing.running():
        shadowing.worker.submit(job())
        await shadowing.wait_for(1)
    assert shadowing.results[0].usage == Usage(prompt_tokens=7, completion_tokens=2)


async def test_an_answer_that_is_not_one_text_is_not_asked_again() -> None:
    shadowing = Shadowing(FakeEngine())
    async with shadowing.running():
        shadowing.worker.submit(job(text=None))
        await shadowing.wait_for(1)
    assert shadowing.outcomes == [ShadowOutcome.CANNOT_TELL]
    assert shadowing.engine.requests == []


async def test_the_request_goes_out_as_its_own() -> None:
    shadowing = Shadowing(
        FakeEngine(), ShadowSettings(timeout_s=30.0, priority=9), FakeClock(monotonic_s=100.0)
    )
    asked = chat_request(stream=True, include_usage=True, overrides=Overrides(max_tier="small"))
    async with shadowing.running():
        shadowing.worker.submit(ShadowJob(request=asked, tier="small", text="42"))
        await shadowing.wait_for(1)
    (sent,) = shadowing.engine.requests
    assert sent.top_logprobs is None
    assert sent.request.request_id == "r1-shadow"
    assert sent.request.is_shadow
    assert sent.request.deadline_s == 130.0
    assert (sent.request.stream, sent.request.include_usage) == (False, False)
    assert sent.request.overrides == Overrides()
    assert sent.request.payload == {**asked.payload, "priority": 9}
    assert "priority" not in asked.payload


async def test_no_priority_is_sent_unless_configured() -> None:
    shadowing = Shadowing(FakeEngine())
    async with shadowing.running():
        shadowing.worker.submit(job())
        await shadowing.wait_for(1)
    assert "priority" not in shadowing.engine.requests[0].request.payload


async def test_a_fault_of_the_grader_is_told_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shadowing = Shadowing(FakeEngine({"good": "42", "bad": "42"}))

    def faulty(asked: GenerateRequest, *_: str) -> bool:
        if asked.request_id == "bad":
            raise ZeroDivisionError("a fault")
        return True

    shadowing.worker = ShadowWorker(
        last_tier=shadowing.engine,
        agrees=faulty,
        on_result=shadowing.take,
        clock=shadowing.clock,
        settings=ShadowSettings(concurrency=1),
    )
    async with shadowing.running():
        shadowing.worker.submit(job("bad"))
        shadowing.worker.submit(job("good"))
        await shadowing.wait_for(2)
    assert shadowing.outcomes == [ShadowOutcome.FAILED, ShadowOutcome.AGREED]
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [error.exc_info is not None for error in errors] == [True]


async def test_a_full_queue_drops_at_once_and_says_so() -> None:
    shadowing = Shadowing(FakeEngine(), ShadowSettings(queue_size=2))
    for name in ("a", "b", "c"):
        shadowing.worker.submit(job(name))
    (dropped,) = shadowing.results
    assert (dropped.job.request.request_id, dropped.outcome) == ("c", ShadowOutcome.DROPPED)


async def test_no_more_than_the_set_number_is_asked_at_a_time() -> None:
    gate = asyncio.Event()
    shadowing = Shadowing(FakeEngine(gate=gate), ShadowSettings(concurrency=2))
    async with shadowing.running():
        for name in "abcde":
            shadowing.worker.submit(job(name))
        await shadowing.engine.is_waiting.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert shadowing.engine.n_running == 2
        gate.set()
        await shadowing.wait_for(5)
    assert shadowing.outcomes == [ShadowOutcome.AGREED] * 5


async def test_a_shutdown_aborts_the_engines_work_and_drops_the_rest() -> None:
    shadowing = Shadowing(FakeEngine(gate=asyncio.Event()), ShadowSettings(concurrency=1))
    async with shadowing.running():
        for name in "abc":
            shadowing.worker.submit(job(name))
        await shadowing.engine.is_waiting.wait()
    assert (shadowing.engine.n_running, shadowing.engine.n_cancelled) == (0, 1)
    assert shadowing.outcomes == [ShadowOutcome.DROPPED] * 3


def test_the_text_of_an_answer_is_its_own_when_it_calls_no_tool() -> None:
    assert comparable_text(scripted_answer("forty-two")) == "forty-two"


def test_tool_calls_are_compared_by_value() -> None:
    def calling(arguments: str, text: str = "") -> str | None:
        call = ToolCall(name="weather", arguments=arguments)
        answer = Answer(text=text, finish_reason="tool_calls", tool_calls=(call,))
        return comparable_text(Completion(answers=(answer,), usage=Usage(), body={}))

    assert calling('{"town": "Ulm", "days": 2}') == calling('{"days":2,"town":"Ulm"}')
    assert calling('{"town": "Ulm"}', "I shall look.") == calling('{"town": "Ulm"}')
    assert calling('{"town": "Ulm"}') != calling('{"town": "Bonn"}')
    assert calling("not JSON") == calling("not JSON")
    assert calling("[" * 100_000) is not None  # deeper than Python's parser goes


@pytest.mark.parametrize("n_answers", [0, 2])
def test_several_choices_or_none_have_no_text(n_answers: int) -> None:
    answers = (Answer(text="42", finish_reason="stop"),) * n_answers
    assert comparable_text(Completion(answers=answers, usage=Usage(), body={})) is None
