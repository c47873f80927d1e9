"""Keep the connections to one server: a pool, and a fresh one where a pooled one proves dead.

A server closes connections that were idle for a while, and may do so just as a request goes out on
one. That looks like a server that died. Only a second try on a new connection can show which it
was. It is safe, since nobody wants the request whose connection broke any more.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

_KEEP_ALIVE_S = 3.0
"""Idle connections are dropped before vLLM does so (after 5 s), which makes stale ones rare."""


@dataclass(slots=True)
class _Use:
    """Note if a request went out on a connection that was open before."""

    is_reused: bool = False


class Connections:
    """Keep connections over TCP or a unix socket, without a limit on their number.

    They are made on first use, inside the running event loop, which they belong to from then on.
    """

    def __init__(
        self, *, socket_path: str | None, headers: Mapping[str, str], connect_timeout_s: float
    ) -> None:
        self._socket_path = socket_path
        self._headers = headers
        self._connect_timeout_s = connect_timeout_s
        self._pooled: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """Return the session whose connections are kept open and used again."""
        if self._pooled is None:
            self._pooled = self._session(is_pooled=True)
        return self._pooled

    async def post(
        self, url: str, *, data: bytes, headers: Mapping[str, str]
    ) -> aiohttp.ClientResponse:
        """Return the response's head; try once more where a pooled connection broke before it came.

        Raises:
            aiohttp.ClientError: There is no connection, or it broke; where both tries fail, the
            error of the first.
        """
        use = _Use()
        try:
            return await self.session.post(url, data=data, headers=headers, trace_request_ctx=use)
        except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError) as first:
            if not use.is_reused:
                raise
            if self._fresh is None:
                self._fresh = self._session(is_pooled=False)
            try:
                return await self._fresh.post(url, data=data, headers=headers)
            except aiohttp.ClientError:
                raise first from None

    async def aclose(self) -> None:
        """Close every connection; requests in flight on one break."""
        for session in (self._pooled, self._fresh):
            if session is not None:
                await session.close()
        self._pooled = self._fresh = None

    def _session(self, *, is_pooled: bool) -> aiohttp.ClientSession:
        keep_alive_s = _KEEP_ALIVE_S if is_pooled else None
        connector = (
            aiohttp.UnixConnector(
                path=self._socket_path,
                limit=0,
                keepalive_timeout=keep_alive_s,
                force_close=not is_pooled,
            )
            if self._socket_path
            else aiohttp.TCPConnector(
                limit=0, keepalive_timeout=keep_alive_s, force_close=not is_pooled
            )
        )
        trace = aiohttp.TraceConfig()
        trace.on_connection_reuseconn.append(_note_reuse)
        return aiohttp.ClientSession(
            connector=connector,
            headers=self._headers,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            trace_configs=[trace],
        )


async def _note_reuse(
    _session: aiohttp.ClientSession,
    context: SimpleNamespace,
    _parameters: aiohttp.TraceConnectionReuseconnParams,
) -> None:
    if isinstance(context.trace_request_ctx, _Use):
        context.trace_request_ctx.is_reused = True
