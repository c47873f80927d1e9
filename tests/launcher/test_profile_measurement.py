import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from hybridserve_llm.clock import SystemClock
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.errors import CannotBeDone, EngineFailed
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.testing import FakeClock, create_fake_vllm_app, serving
from hybridserve_llm.testing.fake_engine import scripted_answer
from hybridserve_llm.values.answers import Completion
from hybridserve_llm.values.joules import Activity, Joules, Source
from hybridserve_llm.values.requests import EngineRequest
from launch.profiling.closed_loop import closed_loop
from launch.profiling.cpu_time import CpuTime, cpu_time
from launch.profiling.measurement import Rounds, measure_rounds, point_of, points_of
from launch.profiling.prediction import checks_of
from launch.profiling.prompts import SAMPLE_TEXT, RequestSource
from launch.profiling.window import Instruments, Window, measure_idle, measure_window


def source(output_tokens: int = 8) -> RequestSource:
    return RequestSource(
        range(7, 100), prompt_tokens=16, output_tokens=output_tokens, top_logprobs=5
    )


class Meter:
    """So many watts at any time; None is unknown."""

    known_until_s = math.inf

    def __init__(self, power_w: float | None) -> None:
        self._power_w = power_w

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        if self._power_w is None:
            return Joules(energy_j=None, source=Source.UNAVAILABLE, reason="nobody measures")
        return Joules(energy_j=self._power_w * (end_s - start_s), source=Source.NVML_ENERGY)


class SteppedEngine:
    """Answers a request whenever `step` is called for one that waits; counts as vLLM does.

    Attributes:
        lengths: `max_tokens` of every request, in order.
    """

    def __init__(self) -> None:
        self.lengths: list[int] = []
        self.n_running = 0
        self.n_tokens = 0
        self._waiting: asyncio.Queue[tuple[int, asyncio.Future[None]]] = asyncio.Queue()
        self.error: EngineFailed | None = None

    async def complete(self, request: EngineRequest) -> Completion:
        n_tokens = request.request.payload["max_tokens"]
        self.lengths.append(n_tokens)
        self.n_running += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait((n_tokens, future))
        try:
            await future
        finally:
            self.n_running -= 1
        if self.error is not None:
            raise self.error
        return scripted_answer("x")

    def stream(self, request: EngineRequest) -> Any:
        raise NotImplementedError

    async def metrics(self) -> str:
        values = {
            "prompt_tokens_total": 2 * self.n_tokens,
            "generation_tokens_total": self.n_tokens,
            "num_preemptions_total": 0,
            "time_to_first_token_seconds_count": 0,
            "time_to_first_token_seconds_sum": 0,
            "inter_token_latency_seconds_count": self.n_tokens,
            "inter_token_latency_seconds_sum": self.n_tokens * 0.25,
        }
        return "\n".join(f"vllm:{name} {value}" for name, value in values.items())

    async def answer(self, n_requests: int) -> None:
        """Lets the oldest `n_requests` end, once they are there."""
        for _ in range(n_requests):
            n_tokens, future = await self._waiting.get()
            self.n_tokens += n_tokens
            future.set_result(None)
        for _ in range(5):  # lets the workers send their next ones
            await asyncio.sleep(0)


def instruments(engine: SteppedEngine, meter: Meter, *, n_answers: int) -> Instruments:
    """A pause lets `n_answers` requests end and moves the clock; 3 cores of CPU are used in it."""
    clock = FakeClock(monotonic_s=0.0)

    async def pause(seconds: float) -> None:
        await engine.answer(n_answers)
        clock.advance(seconds)

    def read_cpu() -> CpuTime:
        return CpuTime(engine_s=2 * clock.monotonic_s(), others_s=clock.monotonic_s())

    return Instruments(clock=clock, cpu_time=read_cpu, meter=meter, pause=pause)


async def test_as_many_requests_as_asked_for_are_in_flight() -> None:
    engine = SteppedEngine()
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.answer(4))
        async with closed_loop(engine, source(output_tokens=8), 4) as loop:
            assert loop.n_finished == 4
            assert engine.n_running == 4
            await engine.answer(2)
            assert engine.n_running == 4
            assert loop.n_finished == 6
    assert engine.n_running == 0


async def test_first_requests_are_of_staggered_lengths() -> None:
    engine = SteppedEngine()
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.answer(4))
        async with closed_loop(engine, source(output_tokens=8), 4):
            pass
    # 8 tokens in 4 shares: 2, 4, 6, 8; later requests are of the usual length.
    assert engine.lengths[:4] == [2, 4, 6, 8]
    assert set(engine.lengths[4:]) == {8}


async def test_an_error_of_the_engine_ends_the_block() -> None:
    engine = SteppedEngine()
    engine.error = EngineFailed("out of order")
    answering = asyncio.create_task(engine.answer(1))
    with pytest.raises(EngineFailed, match="out of order"):
        async with closed_loop(engine, source(), 2):
            pytest.fail("it was never steady")
    await answering
    assert engine.n_running == 0


async def test_a_windows_figures_are_differences_over_its_time() -> None:
    engine = SteppedEngine()
    async with asyncio.TaskGroup() as group:
        group.create_task(engine.answer(2))
        window = await measure_window(
            engine,
            source(output_tokens=8),
            2,
            window_s=4.0,
            instruments=instruments(engine, Meter(100.0), n_answers=3),
        )
    assert window == Window(
        concurrency=2,
        seconds=4.0,
        n_requests=3,
        output_tokens_per_s=6.0,  # 3 * 8 tokens in 4 s
        prompt_tokens_per_s=12.0,
        itl_s=0.25,
        ttft_s=None,  # the engine counted no first token: unknown, not 0
        preemptions=0,
        power_w=100.0,
        power_source="nvml_energy",
        power_reason=None,
        power_edge_w=0.0,
        engine_cores=2.0,
        other_cores=1.0,
    )


async def test_a_window_in_which_no_request_ends_is_an_error() -> None:
    engine = SteppedEngine()
    warming_up = asyncio.create_task(engine.answer(1))
    with pytest.raises(CannotBeDone, match="no request of 8 output tokens ended in 4 s with 1 in"):
        await measure_window(
            engine,
            source(output_tokens=8),
            1,
            window_s=4.0,
            instruments=instruments(engine, Meter(None), n_answers=0),
        )
    await warming_up


async def test_power_is_unknown_without_a_reading() -> None:
    engine = SteppedEngine()
    without = await measure_idle(10.0, instruments(engine, Meter(None), n_answers=0))
    assert (without.power_w, without.source) == (None, "unavailable")
    assert without.reason == "nobody measures"
    told = await measure_idle(10.0, instruments(engine, Meter(30.0), n_answers=0))
    assert (told.power_w, told.source) == (30.0, "nvml_energy")


def window(concurrency: int, tokens_per_s: float, **values: Any) -> Window:
    told: dict[str, Any] = {
        "concurrency": concurrency,
        "seconds": 2.0,
        "n_requests": 4,
        "output_tokens_per_s": tokens_per_s,
        "prompt_tokens_per_s": 2 * tokens_per_s,
        "itl_s": 0.01,
        "ttft_s": 0.02,
        "preemptions": 0,
        "power_w": 50.0,
        "power_source": "nvml_energy",
        "power_reason": None,
        "power_edge_w": 0.0,
        "engine_cores": 1.0,
        "other_cores": 0.1,
    }
    return Window(**{**told, **values})


def test_a_point_is_the_median_of_its_windows() -> None:
    point = point_of([window(4, 200.0), window(4, 80.0), window(4, 190.0)])
    assert point.output_tokens_per_s == 190.0
    assert point.step_time_s == pytest.approx(4 / 190)
    assert (point.lowest_output_tokens_per_s, point.highest_output_tokens_per_s) == (80.0, 200.0)
    assert point.requests_per_s == 2.0
    assert point.repeats == 3


def test_a_points_watts_are_called_by_the_worst_meter_of_its_windows() -> None:
    stalled = {"power_source": "nvml_power_integrated", "power_reason": "it stands still"}
    point = point_of([window(4, 200.0), window(4, 200.0, **stalled), window(4, 200.0)])
    assert (point.power_w, point.power_source) == (50.0, "nvml_power_integrated")
    assert point.power_reason == "it stands still"


def test_a_table_has_watts_at_all_points_or_at_none() -> None:
    unknown = {"power_w": None, "power_source": "unavailable", "power_reason": "the GPU is lost"}
    known, partly = [window(1, 100.0)], [window(4, 200.0), window(4, 200.0, **unknown)]
    assert [point.power_w for point in points_of([known, known])] == [50.0, 50.0]
    first, second = points_of([known, partly])
    assert (first.power_w, second.power_w) == (None, None)
    assert first.power_reason == "not known with 4 in flight: the GPU is lost"
    assert second.power_reason == "the GPU is lost"
    assert {first.power_source, second.power_source} == {"unavailable"}


def test_what_one_window_does_not_know_the_point_does_not_know() -> None:
    point = point_of([window(4, 200.0), window(4, 200.0, power_w=None, other_cores=None)])
    assert point.power_w is None
    assert point.other_cores is None
    assert point.ttft_s == 0.02


def test_a_load_that_is_not_in_the_table_is_predicted_from_it() -> None:
    points = [point_of([window(1, 100.0)]), point_of([window(4, 200.0)])]
    profile = Profile(
        schema="hybridserve-profile/1",
        model="tiny",
        gpu=None,
        hardware="a CPU",
        engine="vllm 0.32.0",
        measured_on="2026-01-01",
        prompt_tokens=16,
        output_tokens=8,
        points=tuple(points),
        source="by hand",
    )
    (check,) = checks_of(profile, {2: [window(2, 90.0), window(2, 125.0), window(2, 130.0)]})
    # 10 and 20 ms a step at 1 and 4: a third of the way, 13.33 ms, at 2; 2 / 0.01333 s = 150.
    assert check.predicted_tokens_per_s == pytest.approx(150.0)
    assert check.median_tokens_per_s == 125.0
    assert check.error == pytest.approx(0.2)  # 150 / 125 - 1
    assert checks_of(profile, {}) == ()


def test_prompts_are_as_long_as_asked_for_and_share_nothing() -> None:
    drawn = source()
    prompts = [drawn.next().request.payload["prompt"] for _ in range(50)]
    assert {len(prompt) for prompt in prompts} == {16}
    assert len({tuple(prompt[:8]) for prompt in prompts}) == 50
    assert len({drawn.next().request.request_id for _ in range(50)}) == 50


def test_the_same_seed_draws_the_same_prompts() -> None:
    assert source().next().request.payload == source().next().request.payload


def test_cpu_time_does_not_go_back() -> None:
    before, after = cpu_time(), cpu_time()
    assert after.engine_s >= before.engine_s >= 0


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[VllmHttpEngine]:
    app = create_fake_vllm_app(model="tiny", token_delay_s=0.001)
    async with serving(app, tmp_path / "s") as address:
        engine = VllmHttpEngine(address, model="tiny", clock=SystemClock())
        yield engine
        await engine.aclose()


async def test_rounds_over_http_go_up_and_down(engine: VllmHttpEngine) -> None:
    token_ids = await engine.token_ids_of(SAMPLE_TEXT)
    assert token_ids is not None
    told: list[tuple[int, int]] = []
    windows = await measure_rounds(
        engine,
        RequestSource(token_ids, prompt_tokens=16, output_tokens=4, top_logprobs=0),
        Rounds(concurrency=(1, 3), window_s=0.05, repeats=2),
        instruments=Instruments(clock=SystemClock(), cpu_time=cpu_time, meter=Meter(None)),
        tell=lambda number, concurrency: told.append((number, concurrency)),
    )
    assert told == [(1, 1), (1, 3), (2, 3), (2, 1)]
    assert list(windows) == [1, 3]
    assert [len(found) for found in windows.values()] == [2, 2]
    for found in windows[3]:
        assert found.itl_s == pytest.approx(0.001)
        # 16 prompt tokens for every 4 of output; a request may be half done at an edge.
        assert 2.5 < found.prompt_tokens_per_s / found.output_tokens_per_s < 6.0
