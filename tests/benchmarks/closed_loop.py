"""Connections of a client that costs little itself, for the loop of `hybridserve_llm.load`."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from replayed_engines import END_OF_CHUNKS, content_length

from hybridserve_llm.load.closed_loop import ClosedLoop, closed_loop


@contextlib.asynccontextmanager
async def same_request(port: int, request: bytes, n_in_flight: int) -> AsyncIterator[ClosedLoop]:
    """Hold the same request in flight on `n_in_flight` connections of their own."""
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(n_in_flight)
    ]
    try:
        async with closed_loop(lambda i, _: connections[i].answered(request), n_in_flight) as load:
            yield load
    finally:
        for connection in connections:
            connection.close()


class Connection(asyncio.Protocol):
    """Send one request after the other, and wait until its answer is whole."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def answered(self, request: bytes) -> asyncio.Future[None]:
        """Send the request; the future is done once the answer came whole, with status 200."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._received += data
        if self._answer is None or self._answer.done() or not self._is_whole():
            return
        if self._received.startswith(b"HTTP/1.1 200 "):
            self._answer.set_result(None)
        else:
            self._answer.set_exception(RuntimeError(bytes(self._received[:500]).decode()))
        self._received.clear()

    def _is_whole(self) -> bool:
        end = self._received.find(b"\r\n\r\n", 0, 2000)
        if end < 0:
            return False
        length = content_length(self._received[:end])
        if length:
            return len(self._received) >= end + 4 + length
        return self._received.endswith(b"\r\n" + END_OF_CHUNKS)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionError("the front end closed"))

    def close(self) -> None:
        self._transport.close()
