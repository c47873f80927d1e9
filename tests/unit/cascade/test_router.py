"""The cascade's loop, on scripted engines: who is asked, what is accepted, what the ledger says."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from builders import chat_request

from hybridserve_llm.cascade.climb import Tier
from hybridserve_llm.cascade.live import LiveAnswer
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.policy import ScorePolicy, SkipRule, TierRule
from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.confidence.day_zero import DayZeroScorer
from hybridserve_llm.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    HybridServeError,
    InvalidRequest,
)
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer
from hybridserve_llm.values.answers import Chunk, Completion
from hybridserve_llm.values.ledger import Attempt, Ledger, Outcome, RequestEnd, RequestKind, Verdict
from hybridserve_llm.values.requests import EngineRequest, Overrides

SURE, UNSURE, LOST = (-0.1, -0.1), (-1.0, -1.0), (-9.0, -9.0)


@dataclass
class KeepingJournal:
    """A RequestJournal that keeps what it gets."""

    ledgers: list[Ledger] = field(default_factory=list)

    @property
    def attempts(self) -> list[Attempt]:
        return [attempt for ledger in self.ledgers for attempt in ledger.attempts]

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        self.ledgers.append(ledger)


@dataclass
class Cascade:
    """Three tiers on fakes; the first two accept at -0.5, small skips to giant below -3."""

    engines: Sequence[Any]
    journal: KeepingJournal = field(default_factory=KeepingJournal)
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        rule = TierRule(accept_at=-0.5, skips=(SkipRule(score_below=-3.0, to_tier=2),))
        tiers = [
            Tier(
                name=name,
                model=f"m-{name}",
                engine=engine,
                scorer=DayZeroScorer(),
                max_model_len=40_000,
            )
            for name, engine in zip(("small", "medium", "giant"), self.engines, strict=True)
        ]
        by_score = ScorePolicy(rules=(rule,) * 3)
        policies = Policies(default=by_score, last_only=by_score)
        self.router = CascadeRouter(tiers, policies, journal=self.journal, clock=self.clock)

    @property
    def asked(self) -> list[int]:
        return [len(engine.requests) for engine in self.engines]


def engine(text: str, logprobs: Sequence[float | None] | None = SURE) -> FakeEngine:
    return FakeEngine(scripted_answer(text, logprobs=logprobs))


async def answered(cascade: Cascade, **changes: Any) -> tuple[str, list[Verdict]]:
    outcome = await cascade.router.answer(chat_request(**changes))
    assert isinstance(outcome, Outcome)
    verdicts = [attempt.decision for attempt in outcome.ledger.attempts]
    assert list(outcome.ledger.attempts) == cascade.journal.attempts
    assert cascade.journal.ledgers == [outcome.ledger]
    return outcome.completion.answers[0].text, verdicts


async def test_a_sure_small_tier_answers_alone() -> None:
    cascade = Cascade([engine("small"), engine("medium"), engine("giant")])
    assert await answered(cascade) == ("small", [Verdict.ACCEPT])
    assert cascade.asked == [1, 0, 0]


async def test_an_unsure_answer_escalates_to_the_next_tier() -> None:
    cascade = Cascade([engine("small", UNSURE), engine("medium"), engine("giant")])
    assert await answered(cascade) == ("medium", [Verdict.ESCALATE, Verdict.ACCEPT])


async def test_a_lost_answer_skips_a_tier() -> None:
    cascade = Cascade([engine("small", LOST), engine("medium"), engine("giant")])
    assert await answered(cascade) == ("giant", [Verdict.SKIP, Verdict.ACCEPT])
    assert cascade.asked == [1, 0, 1]


async def test_the_last_tier_is_accepted_however_unsure_and_is_not_asked_for_log_probs() -> None:
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), engine("giant", LOST)])
    text, verdicts = await answered(cascade)
    assert (text, verdicts[-1]) == ("giant", Verdict.ACCEPT)
    assert cascade.engines[1].requests[0].top_logprobs == 0
    assert cascade.engines[2].requests[0].top_logprobs is None
    assert cascade.journal.attempts[-1].score is None


@pytest.mark.parametrize("missing", [None, (), (-0.1, None)])
async def test_missing_log_probabilities_are_never_confidence(missing: Any) -> None:
    cascade = Cascade([engine("small", missing), engine("medium"), engine("giant")])
    assert await answered(cascade) == ("medium", [Verdict.ESCALATE, Verdict.ACCEPT])
    assert cascade.journal.attempts[0].score is None
    assert "log-probabilit" in cascade.journal.attempts[0].reason


@pytest.mark.parametrize(
    "failure",
    [
        EngineUnavailable("tier 'small' is down"),
        EngineFailed("status 500"),
        ContextLengthExceeded("too long"),
        InvalidRequest("this model reads no images"),
    ],
)
async def test_a_tier_that_cannot_answer_is_passed_over_and_the_ledger_says_so(
    failure: Exception,
) -> None:
    cascade = Cascade([FakeEngine(failure), engine("medium"), engine("giant")])  # type: ignore[arg-type]
    assert await answered(cascade) == ("medium", [Verdict.FAIL, Verdict.ACCEPT])
    assert cascade.journal.attempts[0].reason == str(failure)


async def test_a_prompt_that_no_tier_holds_is_the_clients_error() -> None:
    too_long = ContextLengthExceeded("too long")
    cascade = Cascade([FakeEngine(too_long) for _ in range(3)])
    with pytest.raises(ContextLengthExceeded):
        await cascade.router.answer(chat_request())
    assert cascade.asked == [1, 1, 1]
    assert cascade.journal.ledgers[0].tier is None


async def test_a_limit_above_a_lower_tiers_room_is_left_out_there() -> None:
    def of_room(request: EngineRequest) -> Completion | HybridServeError:
        if request.drops_output_limit:
            return scripted_answer("small", logprobs=SURE)
        return ContextLengthExceeded("max_tokens is too large: 32000")

    cascade = Cascade([FakeEngine(of_room), engine("medium"), engine("giant")])
    assert await answered(cascade, max_output_tokens=32_000) == ("small", [Verdict.ACCEPT])
    assert cascade.asked == [2, 0, 0]


async def test_a_limit_above_the_final_tiers_room_is_the_clients_error() -> None:
    too_large = FakeEngine(ContextLengthExceeded("max_tokens is too large: 100000"))
    cascade = Cascade([too_large, too_large, too_large])
    with pytest.raises(ContextLengthExceeded):
        await cascade.router.answer(chat_request(max_output_tokens=100_000))
    assert len(too_large.requests) == 3


async def test_an_answer_that_the_tiers_own_room_cut_escalates() -> None:
    cut = scripted_answer("half", logprobs=SURE, finish_reason="length")
    replies = [ContextLengthExceeded("too large"), cut]
    cascade = Cascade([FakeEngine(lambda _: replies.pop(0)), engine("medium"), engine("giant")])
    said = await answered(cascade, max_output_tokens=32_000)
    assert said == ("medium", [Verdict.ESCALATE, Verdict.ACCEPT])


async def test_a_last_tier_that_is_down_fails_the_request() -> None:
    down = FakeEngine(EngineUnavailable("tier 'giant' is down"))
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), down])
    with pytest.raises(EngineUnavailable, match="giant"):
        await cascade.router.answer(chat_request())


async def test_a_request_that_every_tier_rejects_ends_with_the_final_tiers_error() -> None:
    cascade = Cascade([FakeEngine(InvalidRequest(f"bad, says {i}")) for i in range(3)])
    with pytest.raises(InvalidRequest, match="bad, says 2"):
        await cascade.router.answer(chat_request())
    assert cascade.asked == [1, 1, 1]
    assert [one.decision for one in cascade.journal.attempts] == [Verdict.FAIL] * 3


async def test_a_streamed_request_that_the_small_tier_rejects_streams_from_the_final_one() -> None:
    cascade = Cascade([FakeEngine(InvalidRequest("bad")), engine("medium"), engine("giant")])
    overrides = Overrides(max_tier="medium")
    live = await cascade.router.answer(chat_request(stream=True, overrides=overrides))
    assert isinstance(live, LiveAnswer)
    assert live.tier == "medium"
    await live.rest.aclose()


async def test_a_deadline_that_passed_ends_the_request_at_once() -> None:
    cascade = Cascade([FakeEngine(DeadlineExceeded("late")), engine("medium"), engine("giant")])
    with pytest.raises(DeadlineExceeded):
        await cascade.router.answer(chat_request(deadline_s=cascade.clock.monotonic_s()))
    assert cascade.asked == [1, 0, 0]
    assert cascade.journal.attempts[0].decision is Verdict.FAIL


@dataclass
class Slow:
    """An engine that answers nothing before its deadline, and keeps the deadlines that it had."""

    clock: FakeClock
    deadlines_s: list[float | None] = field(default_factory=list)
    requests: list[EngineRequest] = field(default_factory=list)

    async def complete(self, request: EngineRequest) -> Completion:
        self.requests.append(request)
        self.deadlines_s.append(request.deadline_s)
        assert request.deadline_s is not None
        self.clock.advance(request.deadline_s - self.clock.monotonic_s())
        raise DeadlineExceeded("no answer before the deadline")

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        raise NotImplementedError


async def test_a_tier_that_hangs_leaves_half_of_the_time_to_those_above() -> None:
    clock = FakeClock()
    start_s = clock.monotonic_s()
    small, medium = Slow(clock), Slow(clock)
    cascade = Cascade([small, medium, engine("giant")], clock=clock)
    said = await answered(cascade, deadline_s=start_s + 8.0)
    assert said == ("giant", [Verdict.FAIL, Verdict.FAIL, Verdict.ACCEPT])
    assert (small.deadlines_s, medium.deadlines_s) == ([start_s + 4.0], [start_s + 6.0])


async def test_a_tier_that_became_slow_is_waited_for_longer() -> None:
    clock = FakeClock()
    slow = Slow(clock)
    cascade = Cascade([slow, engine("medium"), engine("giant")], clock=clock)
    for _ in range(21):
        await cascade.router.answer(chat_request(deadline_s=clock.monotonic_s() + 60.0))
        start_s = clock.monotonic_s()
    assert slow.deadlines_s[-1] == start_s  # 30 s, half of the request's time, and not 10 s


async def test_a_last_tier_that_hangs_ends_the_request() -> None:
    clock = FakeClock()
    slow = Slow(clock)
    cascade = Cascade([slow, slow, slow], clock=clock)
    with pytest.raises(DeadlineExceeded):
        await cascade.router.answer(chat_request(deadline_s=clock.monotonic_s() + 8.0))
    assert [attempt.decision for attempt in cascade.journal.attempts] == [Verdict.FAIL] * 3


async def test_min_tier_enters_above_and_max_tier_takes_what_it_gets() -> None:
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), engine("giant")])
    overrides = Overrides(min_tier="medium", max_tier="medium")
    assert await answered(cascade, overrides=overrides) == ("m", [Verdict.ACCEPT])
    assert cascade.asked == [0, 1, 0]


async def test_a_request_to_one_tier_asks_that_tier_alone_and_takes_what_it_gets() -> None:
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), engine("giant")])
    assert await answered(cascade, only_tier="medium") == ("m", [Verdict.ACCEPT])
    assert cascade.asked == [0, 1, 0]
    assert cascade.journal.ledgers[0].kind is RequestKind.TIER


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (Overrides(min_tier="huge"), "'huge' is no tier; allowed: small, medium, giant"),
        (Overrides(max_tier=""), "'' is no tier"),
        (Overrides(min_tier="giant", max_tier="small"), "is above max_tier"),
        (Overrides(min_confidence=0.9), "uncertified"),
    ],
)
async def test_overrides_that_cannot_be_met_are_refused_before_any_engine_is_asked(
    overrides: Overrides, message: str
) -> None:
    cascade = Cascade([engine("s"), engine("m"), engine("g")])
    with pytest.raises(InvalidRequest, match=message):
        await cascade.router.answer(chat_request(overrides=overrides))
    assert cascade.asked == [0, 0, 0]


async def test_the_client_gets_its_log_probabilities_from_whichever_tier_answers() -> None:
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), engine("g")])
    await answered(cascade, client_top_logprobs=3)
    assert [e.requests[0].top_logprobs for e in cascade.engines] == [3, 3, 3]


async def test_cancelling_aborts_the_engines_work_and_is_recorded() -> None:
    waiting = FakeEngine("s", gate=asyncio.Event())
    cascade = Cascade([waiting, engine("m"), engine("g")])
    task = asyncio.ensure_future(cascade.router.answer(chat_request()))
    await waiting.is_waiting.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (waiting.n_running, waiting.n_cancelled) == (0, 1)
    assert [attempt.decision for attempt in cascade.journal.attempts] == [Verdict.ABORT]
    ledger = cascade.journal.ledgers[0]
    assert (ledger.tier, ledger.end, ledger.error) == (None, RequestEnd.GIVEN_UP, None)


async def test_a_streamed_request_holds_every_tier_but_the_last() -> None:
    cascade = Cascade([engine("s", UNSURE), engine("medium"), engine("g")])
    outcome = await cascade.router.answer(chat_request(stream=True))
    assert isinstance(outcome, Outcome)
    assert outcome.ledger.ttft_s == 0  # its first token leaves with its last; no time has passed


async def test_a_request_that_is_not_streamed_has_no_first_token() -> None:
    cascade = Cascade([engine("s"), engine("m"), engine("g")])
    await answered(cascade)
    assert cascade.journal.ledgers[0].ttft_s is None


async def test_the_first_token_is_timed_from_the_requests_arrival() -> None:
    class SlowEngine(FakeEngine):
        async def complete(self, request: EngineRequest) -> Completion:
            cascade.clock.advance(2.5)
            return await super().complete(request)

    slow = [SlowEngine(scripted_answer(text, logprobs=UNSURE)) for text in ("s", "m")]
    cascade = Cascade([*slow, engine("g")])
    answer = await live(cascade)
    cascade.clock.advance(1)
    assert [chunk async for chunk in answer.chunks()]
    (ledger,) = cascade.journal.ledgers
    assert (ledger.ttft_s, ledger.attempts[-1].ttft_s) == (5, 0)


@pytest.mark.parametrize(
    ("failure", "end"),
    [
        (EngineFailed("nonsense"), RequestEnd.FAILED),
        (DeadlineExceeded("too late"), RequestEnd.FAILED),
        (InvalidRequest("no such field"), RequestEnd.INVALID),
    ],
)
async def test_a_ledger_says_whose_fault_it_was(failure: HybridServeError, end: RequestEnd) -> None:
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), FakeEngine(failure)])
    with pytest.raises(type(failure)):
        await cascade.router.answer(chat_request())
    (ledger,) = cascade.journal.ledgers
    name = type(failure).__name__
    assert (ledger.tier, ledger.end, ledger.error) == (None, end, name)
    assert ledger.attempts[-1].error == name


async def test_a_ledger_says_what_was_asked() -> None:
    cascade = Cascade([engine("s"), engine("m"), engine("g")])
    for asked in ({}, {"only_tier": "small"}, {"only_tier": "small", "assess": True}):
        await cascade.router.answer(chat_request(**asked))
    kinds = [RequestKind.CASCADE, RequestKind.TIER, RequestKind.CALIBRATION]
    assert [ledger.kind for ledger in cascade.journal.ledgers] == kinds


async def test_an_answer_that_is_not_whole_escalates_and_is_an_error_at_the_final_tier() -> None:
    looped = FakeEngine(scripted_answer("ha ha", logprobs=SURE, finish_reason="repetition"))
    cascade = Cascade([looped, engine("medium"), engine("giant")])
    assert await answered(cascade) == ("medium", [Verdict.ESCALATE, Verdict.ACCEPT])
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), looped])
    with pytest.raises(EngineFailed, match="not known to be whole") as caught:
        await cascade.router.answer(chat_request())
    assert caught.value.ledger == cascade.journal.ledgers[0]
    last = cascade.journal.attempts[-1]
    assert (last.tier, last.decision, last.completion_tokens) == ("giant", Verdict.FAIL, 2)


async def test_what_a_filter_left_of_the_final_tiers_answer_is_passed_on() -> None:
    filtered = FakeEngine(scripted_answer("I", logprobs=SURE, finish_reason="content_filter"))
    cascade = Cascade([filtered, filtered, filtered])
    assert await answered(cascade) == (
        "I",
        [Verdict.ESCALATE, Verdict.ESCALATE, Verdict.ACCEPT],
    )


async def live(cascade: Cascade) -> LiveAnswer:
    answer = await cascade.router.answer(chat_request(stream=True))
    assert isinstance(answer, LiveAnswer)
    return answer


async def test_the_last_tier_of_a_streamed_request_is_live() -> None:
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), engine("giant")])
    answer = await live(cascade)
    assert answer.ledger is None
    pieces = [chunk.body["choices"] async for chunk in answer.chunks()]
    text = "".join(choices[0]["delta"]["content"] for choices in pieces if choices)
    assert text == "giant"
    assert answer.ledger is not None
    assert [a.decision for a in answer.ledger.attempts][-1] is Verdict.ACCEPT
    assert answer.ledger.attempts[-1].completion_tokens is not None
    assert cascade.journal.ledgers == [answer.ledger]


async def test_closing_a_live_answer_aborts_the_engine() -> None:
    giant = FakeEngine("giant")
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), giant])
    chunks = (await live(cascade)).chunks()
    await anext(chunks)
    await chunks.aclose()
    assert (giant.n_running, giant.n_cancelled) == (0, 1)
    assert cascade.journal.attempts[-1].decision is Verdict.ABORT
    assert cascade.journal.ledgers[-1].tier is None


async def test_an_unread_live_answer_can_be_abandoned() -> None:
    giant = FakeEngine("giant")
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), giant])
    await (await live(cascade)).abandon()
    assert giant.n_running == 0
    assert cascade.journal.attempts[-1].decision is Verdict.ABORT


async def test_abandoning_an_answer_that_was_read_changes_nothing() -> None:
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), engine("giant")])
    answer = await live(cascade)
    assert [chunk async for chunk in answer.chunks()]
    await answer.abandon()
    assert cascade.journal.ledgers == [answer.ledger]
    assert cascade.journal.attempts[-1].decision is Verdict.ACCEPT


async def test_a_stream_that_breaks_is_recorded_as_failed() -> None:
    broken = FakeEngine(
        "giant", n_chunks_before_gate=2, error_after_chunks=EngineFailed("lost its way")
    )
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), broken])
    answer = await live(cascade)
    with pytest.raises(EngineFailed, match="lost its way"):
        [chunk async for chunk in answer.chunks()]
    assert cascade.journal.attempts[-1].decision is Verdict.FAIL
    assert (cascade.journal.attempts[-1].error, cascade.journal.ledgers[-1].error) == (
        "EngineFailed",
        "EngineFailed",
    )
    assert cascade.journal.ledgers[-1].end is RequestEnd.FAILED


async def test_a_live_answer_that_is_not_whole_ends_with_an_error_and_its_ledger() -> None:
    looped = FakeEngine(scripted_answer("ha", logprobs=SURE, finish_reason="repetition"))
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), looped])
    chunks = (await live(cascade)).chunks()
    assert (await anext(chunks)).body["choices"][0]["delta"]["content"] == "h"
    with pytest.raises(EngineFailed, match="not known to be whole") as caught:
        await anext(chunks)
    assert caught.value.ledger == cascade.journal.ledgers[0]
    assert cascade.journal.attempts[-1].decision is Verdict.FAIL


async def test_a_last_tier_that_fails_before_its_first_chunk_fails_the_request() -> None:
    down = FakeEngine(EngineUnavailable("tier 'giant' is down"))
    cascade = Cascade([engine("s", UNSURE), engine("m", UNSURE), down])
    with pytest.raises(EngineUnavailable):
        await cascade.router.answer(chat_request(stream=True))
    assert cascade.journal.attempts[-1].decision is Verdict.FAIL
