"""End the work for a client that has gone away."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

T = TypeVar("T")


class ClientGone(Exception):  # noqa: N818 - an event, not a fault of ours; never reaches a client
    """Signal that the client closed the connection before its answer was whole."""


async def unless_client_leaves(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`, which is cancelled when the client disconnects first.

    The request's body must have been read: the next ASGI message is then the disconnect. Every
    error that `work` raises passes.

    Raises:
        ClientGone: The client left; `work` has ended its clean-up.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone
    finally:
        await _end(watching)
        await _end(working)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _end(task: "asyncio.Future[Any]") -> None:
    """Cancel `task` and wait until it has ended; an error that it raises then is ignored."""
    task.cancel()
    await asyncio.wait((task,))
