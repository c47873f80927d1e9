"""Ask a running vLLM: hold a number of requests in flight, or send them at given times.

The engine's own counters say how many tokens it made, Linux how much CPU time its processes used.
The client's work on the same machine is part of what is measured.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from eval.asking.in_turn import first_failure
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.load.closed_loop import loaded
from hybridserve_llm.load.process_times import CpuTime, cpu_time_of_tree
from hybridserve_llm.load.reading import CountingEngine, EngineReading, Stretch, read_engine
from hybridserve_llm.load.request_source import Lengths, RequestDraw, RequestSource


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWindow:
    """Hold what an engine did with `concurrency` requests in flight.

    Attributes:
        lengths: Means of the requests, which are drawn from half to one and a half times as long.
        output_tokens_per_s: Of all requests together.
        engine_cores: CPU cores that its processes used on average; None without their id.
        other_cores: The same of all else on the machine; None where Linux does not say.
    """

    concurrency: int
    lengths: Lengths
    output_tokens_per_s: float
    engine_cores: float | None
    other_cores: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """Hold the times of n requests that were sent at given times.

    Attributes:
        sent_s: When each was really sent, counted from the first planned time, [n].
        latency_s: Seconds to its whole answer, [n].
        seconds: From the first planned time until the last answer.
        engine_cpu_s: CPU time of the engine's processes over these; None without their id.
        other_cpu_s: Of all else on the machine; None where Linux does not say.
    """

    sent_s: tuple[float, ...]
    latency_s: tuple[float, ...]
    seconds: float
    engine_cpu_s: float | None
    other_cpu_s: float | None


class LiveEngine:
    """Put one engine under load, and read its counters and the CPU time of its processes."""

    def __init__(
        self,
        engine: CountingEngine,
        token_ids: Sequence[int],
        *,
        clock: Clock,
        pid: int | None,
        top_logprobs: int | None,
        seed: int,
    ) -> None:
        """Take the engine, the tokens of its prompts, and the id of its first process, if known."""
        self._engine = engine
        self._draw = RequestDraw(token_ids, top_logprobs=top_logprobs, seed=seed, name="check")
        self._clock = clock
        self._pid = pid

    async def window(self, lengths: Lengths, concurrency: int, *, window_s: float) -> LiveWindow:
        """Hold `concurrency` requests in flight, and measure once each worker has ended one.

        Requests have lengths around the means, as those under a real load do: of requests of one
        length an engine on the CPU makes some percent more tokens (docs/simulate.md).

        Raises:
            HybridServeError: The engine refuses a request, fails, or counts no tokens.
        """
        source = RequestSource(self._draw, lengths, is_varied=True)
        async with loaded(self._engine, source, concurrency):
            stretch = await self._stretch(window_s)
        return LiveWindow(
            concurrency=concurrency,
            lengths=lengths,
            output_tokens_per_s=stretch.output_tokens_per_s,
            engine_cores=stretch.engine_cores,
            other_cores=stretch.other_cores,
        )

    async def idle_cores(self, window_s: float) -> float | None:
        """Return the CPU cores that the engine uses while it waits; None without its process id."""
        return (await self._stretch(window_s)).engine_cores

    async def answer(self, requests: Sequence[tuple[float, Lengths]]) -> Answered:
        """Send each request at its time, counted from now, and wait for all answers.

        Raises:
            HybridServeError: The engine refuses a request, or fails.
        """
        begin = await self._read()
        with first_failure():
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(self._timed(lengths, begin.at_s + at_s))
                    for at_s, lengths in requests
                ]
        end_s = self._clock.monotonic_s()
        used = (await self._read()).since(begin)
        times = [task.result() for task in tasks]
        return Answered(
            sent_s=tuple(sent_s - begin.at_s for sent_s, _ in times),
            latency_s=tuple(latency_s for _, latency_s in times),
            seconds=end_s - begin.at_s,
            engine_cpu_s=used.engine_cpu_s,
            other_cpu_s=used.other_cpu_s,
        )

    async def _timed(self, lengths: Lengths, at_s: float) -> tuple[float, float]:
        request = self._draw.request(lengths)
        await asyncio.sleep(max(0.0, at_s - self._clock.monotonic_s()))
        sent_s = self._clock.monotonic_s()
        await self._engine.complete(request)
        return sent_s, self._clock.monotonic_s() - sent_s

    async def _stretch(self, window_s: float) -> Stretch:
        begin = await self._read()
        await asyncio.sleep(window_s)
        return (await self._read()).since(begin)

    async def _read(self) -> EngineReading:
        return await read_engine(self._engine, self._clock, self._cpu_time)

    def _cpu_time(self) -> CpuTime:
        return CpuTime() if self._pid is None else cpu_time_of_tree(self._pid)
