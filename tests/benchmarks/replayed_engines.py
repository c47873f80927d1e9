"""Replay engines at hardly any cost: the answers of the fake vLLM, recorded once.

The fake makes its tokens one by one in Python and would be the slowest part of a load test. Each
request that was not seen goes to the fake; the bytes that come back are what every later one with
the same body gets, a stream event by event.
"""

import asyncio
import re
from pathlib import Path
from typing import Any

from hybridserve_llm.testing import create_fake_vllm_app, serving

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
END_OF_CHUNKS = b"0\r\n\r\n"


async def serve_replayed(folder: Path, name: str) -> None:
    """Serves a tier on the socket `name.sock`, from the fake behind it, until cancelled."""
    app = create_fake_vllm_app(model=name)
    async with serving(app, folder / f"{name}-fake.sock"):
        recorded: dict[bytes, list[bytes]] = {}
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(
            lambda: Replay(recorded, folder / f"{name}-fake.sock"), str(folder / f"{name}.sock")
        )
        await server.serve_forever()


class Replay(asyncio.Protocol):
    """One connection of the front end."""

    def __init__(self, recorded: dict[bytes, list[bytes]], behind: Path) -> None:
        self._recorded = recorded
        self._behind = behind
        self._received = b""
        self._recording: asyncio.Task[None] | None = None

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, is_whole, body = self._received.partition(b"\r\n\r\n")
        if not is_whole or len(body) < content_length(head):
            return
        request, self._received = self._received, b""
        key = head.split(b"\r\n", 1)[0] + body
        if key in self._recorded:
            self._tell(self._recorded[key])
        else:
            self._recording = asyncio.ensure_future(self._record(key, request))

    def _tell(self, pieces: list[bytes], at: int = 0) -> None:
        """One piece in each turn of the loop, as an engine would send them."""
        if self._transport.is_closing():
            return
        self._transport.write(pieces[at])
        if at + 1 < len(pieces):
            asyncio.get_running_loop().call_soon(self._tell, pieces, at + 1)

    async def _record(self, key: bytes, request: bytes) -> None:
        reader, writer = await asyncio.open_unix_connection(str(self._behind))
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        pieces = [head]
        if b"transfer-encoding: chunked" in head.lower():
            while pieces[-1] != END_OF_CHUNKS:
                size = await reader.readline()
                pieces.append(size + await reader.readexactly(int(size, 16) + 2))
        else:
            pieces[0] += await reader.readexactly(content_length(head))
        writer.close()
        self._recorded[key] = pieces
        self._tell(pieces)


def content_length(head: bytes) -> int:
    """Bytes of the body that follows; 0 where the head does not say."""
    found = _LENGTH.search(head)
    return int(found.group(1)) if found else 0
