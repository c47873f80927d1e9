"""A running vLLM under load: held at a number of requests in flight, or asked at given times.

The engine's own counters say how many tokens it made, Linux how much CPU time its processes used.
The client's work on the same machine is part of what is measured.
"""

import asyncio
import contextlib
import itertools
import math
import os
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from eval.asking.first_failure import first_failure
from hybridserve_llm.energy.cpu_time import node_ticks, parents_of_all, process_time, tree_of
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.interfaces import Clock, Engine
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest

_OUTPUT_TOKENS = re.compile(r"^vllm:generation_tokens_total(?:\{.*\})? (\S+)$", re.MULTILINE)


class CountingEngine(Engine, Protocol):
    """An engine that tells its counters; `engines.vllm_http.VllmHttpEngine` is one."""

    async def metrics(self) -> str:
        """Its metrics, in Prometheus' text format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of one request."""

    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What an engine did with `concurrency` requests in flight.

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
    """n requests that were sent at given times.

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
    """One engine, the words that its prompts are drawn from, and its processes."""

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
        self._engine = engine
        self._token_ids = sorted(set(token_ids))
        self._clock = clock
        self._pid = pid
        self._top_logprobs = top_logprobs
        self._draw = random.Random(seed)  # noqa: S311 - nothing secret depends on it
        self._numbers = itertools.count()

    async def window(self, lengths: Lengths, concurrency: int, *, window_s: float) -> Window:
        """Holds `concurrency` requests in flight, and measures once each worker has ended one.

        Requests have lengths around the means, as those under a real load do: of requests of one
        length an engine on the CPU makes some percent more tokens (docs/simulate.md). The first
        request of each worker is shorter, from a part to the whole, so that later ones do not end
        together.

        Raises:
            HybridServeError: The engine refuses a request, fails, or counts no tokens.
        """
        steady = [asyncio.Event() for _ in range(concurrency)]
        with first_failure():
            async with asyncio.TaskGroup() as group:
                workers = [
                    group.create_task(self._work(lengths, (i + 1) / concurrency, event))
                    for i, event in enumerate(steady)
                ]
                for event in steady:
                    await event.wait()
                begin = await self._read()
                await asyncio.sleep(window_s)
                end = await self._read()
                for worker in workers:
                    worker.cancel()
        seconds = end.at_s - begin.at_s
        return Window(
            concurrency=concurrency,
            lengths=lengths,
            output_tokens_per_s=(end.output_tokens - begin.output_tokens) / seconds,
            engine_cores=_over(begin.engine_cpu_s, end.engine_cpu_s, seconds),
            other_cores=_over(begin.other_cpu_s, end.other_cpu_s, seconds),
        )

    async def idle_cores(self, window_s: float) -> float | None:
        """CPU cores that the engine's processes use while it waits; None without their id."""
        begin = await self._read()
        await asyncio.sleep(window_s)
        end = await self._read()
        return _over(begin.engine_cpu_s, end.engine_cpu_s, end.at_s - begin.at_s)

    async def answer(self, requests: Sequence[tuple[float, Lengths]]) -> Answered:
        """Sends each request at its time, counted from now, and waits for all answers.

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
        end = await self._read()
        times = [task.result() for task in tasks]
        return Answered(
            sent_s=tuple(sent_s - begin.at_s for sent_s, _ in times),
            latency_s=tuple(latency_s for _, latency_s in times),
            seconds=end_s - begin.at_s,
            engine_cpu_s=_over(begin.engine_cpu_s, end.engine_cpu_s, 1.0),
            other_cpu_s=_over(begin.other_cpu_s, end.other_cpu_s, 1.0),
        )

    async def _timed(self, lengths: Lengths, at_s: float) -> tuple[float, float]:
        request = self._request(lengths)
        await asyncio.sleep(max(0.0, at_s - self._clock.monotonic_s()))
        sent_s = self._clock.monotonic_s()
        await self._engine.complete(request)
        return sent_s, self._clock.monotonic_s() - sent_s

    async def _work(self, lengths: Lengths, share: float, steady: asyncio.Event) -> None:
        first = math.ceil(share * lengths.output_tokens)
        wanted = Lengths(prompt_tokens=lengths.prompt_tokens, output_tokens=first)
        with contextlib.suppress(asyncio.CancelledError):
            await self._engine.complete(self._request(wanted))
            steady.set()
            while True:
                await self._engine.complete(self._request(self._around(lengths)))

    def _around(self, lengths: Lengths) -> Lengths:
        def drawn(mean: int) -> int:
            return self._draw.randint(mean - mean // 2, mean + mean // 2)

        return Lengths(
            prompt_tokens=drawn(lengths.prompt_tokens), output_tokens=drawn(lengths.output_tokens)
        )

    def _request(self, lengths: Lengths) -> EngineRequest:
        """A prompt that shares nothing with others, and an answer of exactly so many tokens."""
        payload = {
            "prompt": self._draw.choices(self._token_ids, k=lengths.prompt_tokens),
            "max_tokens": lengths.output_tokens,
            "ignore_eos": True,
            "temperature": 0.0,
        }
        request = GenerateRequest(
            request_id=f"check-{next(self._numbers)}",
            endpoint=Endpoint.COMPLETIONS,
            payload=payload,
        )
        return EngineRequest(request=request, top_logprobs=self._top_logprobs)

    async def _read(self) -> "_Reading":
        asked_s = self._clock.monotonic_s()
        counted = _OUTPUT_TOKENS.findall(await self._engine.metrics())
        if not counted:
            raise CannotBeDone("the engine's /metrics has no vllm:generation_tokens_total")
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        engine_s = None if self._pid is None else _ticks_of_tree(self._pid) * tick_s
        all_ticks = node_ticks()
        return _Reading(
            # The engine read its counters somewhere between question and answer.
            at_s=(asked_s + self._clock.monotonic_s()) / 2,
            output_tokens=sum(map(float, counted)),
            engine_cpu_s=engine_s,
            other_cpu_s=None
            if engine_s is None or all_ticks is None
            else all_ticks * tick_s - engine_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reading:
    at_s: float
    output_tokens: float
    engine_cpu_s: float | None
    other_cpu_s: float | None


def _ticks_of_tree(pid: int) -> int:
    tree = tree_of((pid,), parents_of_all())
    if not tree:
        raise CannotBeDone(f"there is no process {pid}: --pid names the engine's first process")
    return sum(found[1] for one in tree if (found := process_time(one)) is not None)


def _over(begin: float | None, end: float | None, seconds: float) -> float | None:
    return None if begin is None or end is None else max(0.0, end - begin) / seconds
