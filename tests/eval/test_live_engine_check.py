"""A running engine against its simulation: the law of a step, the load, and the comparison."""

import asyncio
import os
from collections.abc import AsyncGenerator

import numpy as np
import pytest

from eval.studies.live_calibration import EngineLimits, calibrated_table, step_law
from eval.studies.live_engine import Answered, LiveEngine, LiveWindow
from eval.studies.live_engine_check import (
    LiveCheckOptions,
    capacity_per_s,
    compared,
    drawn_requests,
    live_engine_check,
    measured_concurrencies,
)
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.errors import CannotBeDone, EngineFailed
from hybridserve_llm.load.request_source import Lengths
from hybridserve_llm.values.answers import Chunk, Completion, Usage
from hybridserve_llm.values.requests import EngineRequest

LIMITS = EngineLimits(max_num_seqs=32, max_num_batched_tokens=2048, kv_cache_tokens=100_000)
CONCURRENCY = (1, 2, 4, 8, 16, 32)
SHORT = Lengths(prompt_tokens=17, output_tokens=32)
LONG = Lengths(prompt_tokens=129, output_tokens=32)


def windows(*, fixed_s: float, sequence_s: float, prompt_token_s: float) -> list[LiveWindow]:
    """What an engine whose steps obey the law does, on half a core for each sequence second."""
    found = []
    for lengths in (SHORT, LONG):
        for c in CONCURRENCY:
            riding = (lengths.prompt_tokens - 1) * c / lengths.output_tokens
            step_s = fixed_s + c * sequence_s + riding * prompt_token_s
            found.append(
                LiveWindow(
                    concurrency=c,
                    lengths=lengths,
                    output_tokens_per_s=c / step_s,
                    engine_cores=1.5,
                    other_cores=0.2,
                )
            )
    return found


LAW = windows(fixed_s=2e-3, sequence_s=5e-4, prompt_token_s=3e-5)


def test_the_law_of_a_step_is_found_again() -> None:
    step_s = [window.concurrency / window.output_tokens_per_s for window in LAW]
    law = step_law(LAW, step_s)
    assert (law.fixed, law.sequence, law.prompt_token) == pytest.approx((2e-3, 5e-4, 3e-5))
    assert [factor for _, factor in law.factors] == pytest.approx([1.0] * len(CONCURRENCY))


def test_what_the_law_misses_corrects_the_steps_of_so_many_sequences() -> None:
    step_s = np.array([window.concurrency / window.output_tokens_per_s for window in LAW])
    bumpy = np.where([window.concurrency == 8 for window in LAW], 1.2 * step_s, step_s)
    law = step_law(LAW, bumpy.tolist())
    modelled = law.fixed + 8 * law.sequence + (17 - 1) * 8 / 32 * law.prompt_token
    corrected = dict(law.factors)[8] * modelled
    # 1.2 of (2 + 4 + 0.12) ms, but for what the other prompt length wants.
    assert corrected == pytest.approx(1.2 * 6.12e-3, rel=0.01)


def test_one_length_does_not_tell_prompts_from_tokens() -> None:
    short = [window for window in LAW if window.lengths == SHORT]
    with pytest.raises(CannotBeDone, match="three windows at least, of two lengths"):
        step_law(short, [1.0] * len(short))


def test_a_step_of_the_table_is_the_laws() -> None:
    table = calibrated_table(LAW, LIMITS, idle_cores=0.1)
    # 4 sequences that decode and a prompt of 100 tokens: 2 + 4 * 0.5 + 0.5 + 99 * 0.03 = 7.47 ms.
    seconds = table.factor[4] * (table.tokens_s[104] + 5 * table.sequence_s)
    assert seconds == pytest.approx(7.47e-3)
    # All steps use 1.5 cores.
    joules = table.factor[4] * table.power_factor[4] * (table.tokens_j[104] + 5 * table.sequence_j)
    assert joules == pytest.approx(1.5 * 7.47e-3)
    assert table.idle_w == 0.1


def test_the_capacity_is_that_of_the_drawn_lengths() -> None:
    # 72 prompt and 32 output tokens on average, 2.25 to 1; windows have 0.53 and 4.03 to 1, 28 and
    # 140 riding at 32 in flight: a token takes (2 + 16 + 0.48) / 32 and (2 + 16 + 3.84) / 32 ms,
    # at 2.25 (0.48 + (2.25 - 0.53125) / 3.5 * 3.36 = 2.13) 20.13 / 32 ms, so a request 20.13 ms.
    assert capacity_per_s(LAW) == pytest.approx(1 / 20.13e-3, rel=1e-3)


def test_drawn_requests_have_their_rate_and_bounds() -> None:
    found = drawn_requests(50.0, 100.0, seed=3)
    assert len(found) == pytest.approx(5000, rel=0.05)
    assert found == drawn_requests(50.0, 100.0, seed=3)
    assert {one.prompt_tokens for _, one in found} == set(range(16, 129))
    assert {one.output_tokens for _, one in found} == set(range(8, 57))
    assert all(0 <= at_s <= 100 for at_s, _ in found)


def test_a_run_is_compared_at_the_times_at_which_it_was_sent() -> None:
    table = calibrated_table(LAW, LIMITS, idle_cores=0.1)
    one = Lengths(prompt_tokens=101, output_tokens=11)
    answered = Answered(
        sent_s=(0.0, 1.0), latency_s=(0.03, 0.05), seconds=2.0, engine_cpu_s=0.4, other_cpu_s=0.5
    )
    run = compared(0.3, 1.0, [one, one], answered, table)
    # Alone: the prompt 2 + 0.5 + 100 * 0.03 = 5.5 ms, ten steps of 2.5 ms: 30.5 ms each.
    assert run.simulated_latency_s == pytest.approx(30.5e-3)
    assert run.latency_error == pytest.approx(30.5 / 40 - 1)
    # 61 ms of work on 1.5 cores and 1.939 s of waiting on 0.1, over two requests.
    assert run.simulated_cpu_s == pytest.approx((0.061 * 1.5 + 1.939 * 0.1) / 2)
    assert (run.cpu_s, run.other_cores) == (0.2, 0.25)
    unknown = Answered(
        sent_s=(0.0,), latency_s=(0.03,), seconds=2.0, engine_cpu_s=None, other_cpu_s=None
    )
    nothing = compared(0.3, 1.0, [one], unknown, table)
    assert (nothing.cpu_s, nothing.simulated_cpu_s, nothing.cpu_error) == (None, None, None)


class SteppingEngine:
    """Takes 1 ms a step whatever is in it, and counts its tokens; fails where it is told to."""

    def __init__(self, *, fails: bool = False) -> None:
        self.n_tokens = 0
        self.asked: list[tuple[int, int]] = []
        self.n_running = 0
        self._fails = fails

    async def complete(self, request: EngineRequest) -> Completion:
        if self._fails:
            raise EngineFailed("engine broke")
        self.n_running += 1
        payload = request.request.payload
        self.asked.append((len(payload["prompt"]), payload["max_tokens"]))
        try:
            for _ in range(payload["max_tokens"]):
                await asyncio.sleep(1e-3)
                self.n_tokens += 1
        finally:
            self.n_running -= 1
        return Completion(answers=(), usage=Usage(), body={})

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        raise NotImplementedError

    async def metrics(self) -> str:
        names = (
            "generation_tokens_total",
            "prompt_tokens_total",
            "num_preemptions_total",
            "time_to_first_token_seconds_count",
            "time_to_first_token_seconds_sum",
            "inter_token_latency_seconds_count",
            "inter_token_latency_seconds_sum",
        )
        return "".join(f'vllm:{name}{{engine="0"}} {float(self.n_tokens)}\n' for name in names)


def live(engine: SteppingEngine, *, pid: int | None = None) -> LiveEngine:
    return LiveEngine(engine, [3, 4, 5], clock=SystemClock(), pid=pid, top_logprobs=5, seed=0)


@pytest.mark.parametrize(
    ("max_num_seqs", "found"), [(1, (1,)), (8, (1, 2, 4, 8)), (12, (1, 2, 4, 8, 12))]
)
def test_windows_reach_all_that_the_engine_takes(max_num_seqs: int, found: tuple[int, ...]) -> None:
    assert measured_concurrencies(max_num_seqs) == found


@pytest.mark.slow
async def test_a_round_goes_through_windows_and_loads_and_leaves_nothing_running() -> None:
    engine = SteppingEngine()
    options = LiveCheckOptions(limits=LIMITS, loads=(0.3,), repeats=1, window_s=0.05, run_s=0.1)
    told: list[str] = []
    found = await live_engine_check(
        "small", live(engine, pid=os.getpid()), options, on_step=told.append
    )
    assert engine.n_running == 0
    assert told == [
        "warming up",
        "calibrating",
        "round 1 of 1: load 0.3",
        "round 1 of 1: calibrating",
    ]
    # Two lengths at each number in flight, before the run and after it.
    assert len(found.windows) == 2 * 2 * len(CONCURRENCY)
    assert all(window.output_tokens_per_s > 0 for window in found.windows)
    (summary,) = found.summaries
    assert summary.load == 0.3
    assert summary.latency_s > 0
    assert found.as_json()["schema"] == "hybridserve-live-engine-check/1"


async def test_requests_of_a_window_are_around_its_lengths() -> None:
    engine = SteppingEngine()
    lengths = Lengths(prompt_tokens=16, output_tokens=4)
    await live(engine).window(lengths, 4, window_s=0.5)
    assert engine.asked[:4] == [(16, 1), (16, 2), (16, 3), (16, 4)]  # workers start apart
    later = engine.asked[4:]
    assert {prompt for prompt, _ in later} <= set(range(8, 25))
    assert {output for _, output in later} == {2, 3, 4, 5, 6}
    assert len({prompt for prompt, _ in later}) > 8


async def test_an_engine_that_fails_ends_the_check() -> None:
    with pytest.raises(EngineFailed, match="engine broke"):
        await live(SteppingEngine(fails=True)).window(SHORT, 2, window_s=0.05)
    with pytest.raises(EngineFailed, match="engine broke"):
        await live(SteppingEngine(fails=True)).answer([(0.0, SHORT)])


async def test_a_process_that_is_not_there() -> None:
    with pytest.raises(CannotBeDone, match="there is no process 999999999: --pid names"):
        await live(SteppingEngine(), pid=999_999_999).idle_cores(0.01)


async def test_an_engine_that_does_not_count() -> None:
    class Silent(SteppingEngine):
        async def metrics(self) -> str:
            return (await super().metrics()).replace("generation_tokens", "other")

    with pytest.raises(CannotBeDone, match="has no vllm:generation_tokens_total"):
        await live(Silent()).idle_cores(0.01)
