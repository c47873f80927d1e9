"""Holds a number of requests in flight: whenever one ends, the next is sent.

The first request of each worker is of another length, from a part of the usual one up to the whole,
so that later ones end one after the other and not all at once: else prompts would all be computed
together and the load would come in waves, which no served load does.
"""

import asyncio
import contextlib
import math
from collections.abc import AsyncIterator

from hybridserve_llm.interfaces import Engine
from launch.profiling.prompts import RequestSource


class ClosedLoop:
    """The requests in flight.

    Attributes:
        n_finished: Requests that ended, the first of each worker included.
    """

    def __init__(self, engine: Engine, source: RequestSource, concurrency: int) -> None:
        self.n_finished = 0
        self._engine = engine
        self._source = source
        self._concurrency = concurrency
        self._n_warming_up = concurrency
        self._is_steady = asyncio.Event()

    async def wait_steady(self) -> None:
        """Waits until every worker has ended its first request: the warm-up is over then."""
        await self._is_steady.wait()

    async def work(self, worker: int) -> None:
        """Asks one request after the other, without end.

        Raises:
            HybridServeError: The engine refuses one, or fails.
        """
        share = (worker + 1) / self._concurrency
        first = self._source.next(math.ceil(self._source.output_tokens * share))
        await self._engine.complete(first)
        self.n_finished += 1
        self._n_warming_up -= 1
        if self._n_warming_up == 0:
            self._is_steady.set()
        while True:
            await self._engine.complete(self._source.next())
            self.n_finished += 1


@contextlib.asynccontextmanager
async def closed_loop(
    engine: Engine, source: RequestSource, concurrency: int
) -> AsyncIterator[ClosedLoop]:
    """`concurrency` requests in flight, warmed up when the block begins, aborted after it.

    Raises:
        HybridServeError: The engine refuses a request, or fails; the block is cancelled then.
    """
    loop = ClosedLoop(engine, source, concurrency)
    try:
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(loop.work(i)) for i in range(concurrency)]
            await loop.wait_steady()
            yield loop
            for worker in workers:
                worker.cancel()
    except BaseExceptionGroup as failures:
        # One failure cancels the other workers and the block, so the first is the cause.
        raise failures.exceptions[0] from None
