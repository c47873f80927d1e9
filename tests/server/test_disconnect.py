"""A client that leaves ends the work done for it."""

import asyncio
from typing import Any

import pytest

from hybridserve_llm.server.disconnect import ClientGone, unless_client_leaves


class Connection:
    """An ASGI receive channel whose client leaves when told to."""

    def __init__(self) -> None:
        self.left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}


async def test_the_result_comes_when_the_client_stays() -> None:
    async def work() -> int:
        return 5

    assert await unless_client_leaves(Connection().receive, work()) == 5


async def test_leaving_cancels_the_work_and_waits_for_its_clean_up() -> None:
    connection, cleaned_up = Connection(), []

    async def work() -> None:
        connection.left.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned_up.append(True)

    with pytest.raises(ClientGone):
        await unless_client_leaves(connection.receive, work())
    assert cleaned_up == [True]


async def test_an_error_of_the_work_is_raised() -> None:
    async def work() -> None:
        raise KeyError("why")

    with pytest.raises(KeyError, match="why"):
        await unless_client_leaves(Connection().receive, work())


async def test_cancelling_the_waiter_cancels_the_work() -> None:
    started, ended = asyncio.Event(), []

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    waiter = asyncio.ensure_future(unless_client_leaves(Connection().receive, work()))
    await started.wait()
    waiter.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiter
    assert ended == [True]
