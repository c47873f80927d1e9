"""A client that keeps so many requests in flight, and costs little itself."""

import asyncio
import contextlib
from typing import Any

from replayed_engines import END_OF_CHUNKS, content_length


class ClosedLoop:
    """Connections that each send the same request again as soon as its answer is whole.

    Attributes:
        n_answered: Answers that came whole, with status 200.
        is_paused: Nothing more is sent until `resume`.
    """

    def __init__(self, port: int, request: bytes) -> None:
        self.n_answered = 0
        self.is_paused = False
        self._port = port
        self._request = request
        self._connections: list[_Connection] = []

    async def start(self, n_in_flight: int) -> None:
        loop = asyncio.get_running_loop()
        for _ in range(n_in_flight):
            _, connection = await loop.create_connection(
                lambda: _Connection(self, self._request), "127.0.0.1", self._port
            )
            self._connections.append(connection)

    async def pause(self) -> None:
        """Lets every request in flight come to its end, and sends no more."""
        self.is_paused = True
        while any(one.is_waiting for one in self._connections):  # noqa: ASYNC110
            await asyncio.sleep(0.001)

    def resume(self) -> None:
        self.is_paused = False
        for connection in self._connections:
            connection.send()

    async def stop(self) -> None:
        """Lets every request in flight come to its end, and closes."""
        for connection in self._connections:
            connection.is_last = True
        await asyncio.gather(*(connection.ended for connection in self._connections))


class _Connection(asyncio.Protocol):
    def __init__(self, loop: ClosedLoop, request: bytes) -> None:
        self.is_last = self.is_waiting = False
        self.ended = asyncio.get_running_loop().create_future()
        self._loop = loop
        self._request = request
        self._received = bytearray()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.send()

    def send(self) -> None:
        self.is_waiting = True
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._is_whole():
            return
        if not self._received.startswith(b"HTTP/1.1 200 "):
            self.ended.set_exception(RuntimeError(bytes(self._received[:500]).decode()))
            return
        self._received.clear()
        self._loop.n_answered += 1
        self.is_waiting = False
        if self.is_last:
            self._transport.close()
        elif not self._loop.is_paused:
            self.send()

    def _is_whole(self) -> bool:
        end = self._received.find(b"\r\n\r\n", 0, 2000)
        if end < 0:
            return False
        length = content_length(self._received[:end])
        if length:
            return len(self._received) >= end + 4 + length
        return self._received.endswith(b"\r\n" + END_OF_CHUNKS)

    def connection_lost(self, exc: Exception | None) -> None:
        with contextlib.suppress(asyncio.InvalidStateError):
            if self.is_last:
                self.ended.set_result(None)
            else:
                self.ended.set_exception(exc or ConnectionError("the front end closed"))
