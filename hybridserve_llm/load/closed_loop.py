"""Hold a number of requests in flight: whenever one ends, the next is sent.

    worker 0   |-first-|------|------|------|--   cancelled
    worker 1   |---first----|------|------|----
                            └ steady: every worker has ended its first request

The first request of each worker of an engine has another length, from a part of the usual one up
to the whole. So later requests end one after the other and not all at once. Otherwise all prompts
would be computed together, and the load would come in waves, which no served load does.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from hybridserve_llm.interfaces import Engine
from hybridserve_llm.load.request_source import RequestSource

Ask = Callable[[int, int], Awaitable[object]]
"""Asks one request and waits for its answer; takes the worker and the number of its request."""


class ClosedLoop:
    """Count the requests that ended, and let the load pause.

    Attributes:
        n_finished: Requests that ended, the first of each worker included.
    """

    def __init__(self, ask: Ask, concurrency: int) -> None:
        self.n_finished = 0
        self._ask = ask
        self._n_warming_up = concurrency
        self._n_waiting = 0
        self._is_steady = asyncio.Event()
        self._is_idle = asyncio.Event()
        self._may_send = asyncio.Event()
        self._may_send.set()

    async def wait_steady(self) -> None:
        """Wait until every worker has ended its first request: the warm-up is over then."""
        await self._is_steady.wait()

    async def pause(self) -> None:
        """Send nothing more until `resume`, and wait until no request is in flight."""
        self._may_send.clear()
        if self._n_waiting:
            self._is_idle.clear()
            await self._is_idle.wait()

    def resume(self) -> None:
        """Send requests again."""
        self._may_send.set()

    async def work(self, worker: int) -> None:
        """Ask one request after the other, without end.

        Raises:
            HybridServeError: The engine refuses one, or fails.
        """
        await self._answered(worker, 0)
        self._n_warming_up -= 1
        if self._n_warming_up == 0:
            self._is_steady.set()
        number = 0
        while True:
            if not self._may_send.is_set():
                await self._may_send.wait()
            number += 1
            await self._answered(worker, number)

    async def _answered(self, worker: int, number: int) -> None:
        self._n_waiting += 1
        await self._ask(worker, number)
        self.n_finished += 1
        self._n_waiting -= 1
        if self._n_waiting == 0:
            self._is_idle.set()


@contextlib.asynccontextmanager
async def closed_loop(ask: Ask, concurrency: int) -> AsyncIterator[ClosedLoop]:
    """Hold `concurrency` requests in flight: warmed up when the block begins, aborted after it.

    Raises:
        HybridServeError: The engine refuses a request, or fails; the block is cancelled then.
    """
    loop = ClosedLoop(ask, concurrency)
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


def loaded(
    engine: Engine, source: RequestSource, concurrency: int
) -> contextlib.AbstractAsyncContextManager[ClosedLoop]:
    """Hold `concurrency` requests of `source` in flight at the engine; see `closed_loop`."""

    def ask(worker: int, number: int) -> Awaitable[object]:
        share = (worker + 1) / concurrency
        return engine.complete(source.next() if number else source.first(share))

    return closed_loop(ask, concurrency)
