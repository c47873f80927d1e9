"""Serves the front end with uvicorn in the launcher's own loop, on a socket bound beforehand."""

import asyncio
import contextlib
import errno
import gc
import math
import socket
from collections.abc import Callable, Iterator
from typing import Any

import aiohttp
import uvicorn

from hybridserve_llm.errors import CannotBeDone, ConfigError
from launch.running.signals import has_ended

_READY_INTERVAL_S = 0.1
_KEEP_ALIVE_S = 60
"""Longer than clients keep an idle connection (the `openai` client: 5 s), so that they close it and
no request goes out on one that is being closed here."""
_COLLECT_AFTER = (50_000, 20, 20)
"""Objects that were made and not freed until they are looked through (some MB), and how many such
collections until the older ones are looked through too. Python's: 700, 10, 10."""
_WILDCARDS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - recognised, not bound


def bind(host: str, port: int) -> socket.socket:
    """A socket bound to `host` and `port` (0 takes a free one) that does not listen yet.

    Binding before the engines start finds a port in use at once, not minutes later.

    Raises:
        CannotBeDone: The port is in use, or this user or machine may not listen there.
        ConfigError: `host` is not the name or address of anything.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as exc:
        raise ConfigError(f"server.host = {host!r}: {exc.strerror}") from exc
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as exc:
        bound.close()
        raise _cannot_listen(f"{host} port {port}", exc) from exc
    return bound


def base_url(bound: socket.socket) -> str:
    """The URL a client on this machine uses, without path."""
    host, port = bound.getsockname()[:2]
    host = _WILDCARDS.get(host, host)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def serve(
    app: Any,
    bound: socket.socket,
    *,
    ready_timeout_s: float,
    stop_timeout_s: float,
    hurry: asyncio.Event,
    on_ready: Callable[[], None],
) -> None:
    """Serves `app` until cancelled; calls `on_ready` when `/ready` answers 200.

    When cancelled it waits `stop_timeout_s` for requests in flight, and no longer than `hurry`.

    Raises:
        CannotBeDone: The application did not start, or was not ready in time.
    """
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="on",
            ws="none",
            log_config=None,
            access_log=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=math.ceil(stop_timeout_s),
        )
    )
    url = base_url(bound)
    serving = asyncio.create_task(server.serve(sockets=[bound]))
    getting_ready = asyncio.create_task(_wait_ready(url, ready_timeout_s))
    try:
        await asyncio.wait({serving, getting_ready}, return_when=asyncio.FIRST_COMPLETED)
        if not serving.done():
            await getting_ready
            _spare_the_collector()
            on_ready()
        await asyncio.shield(serving)
        raise CannotBeDone("the front end ended by itself; its log says why")
    except OSError as exc:
        raise _cannot_listen(url, exc) from exc
    finally:
        getting_ready.cancel()
        server.should_exit = True
        if not await has_ended(serving, hurry=hurry, timeout_s=2 * stop_timeout_s):
            server.force_exit = True
        await asyncio.wait({serving, getting_ready})


class _Server(uvicorn.Server):
    """uvicorn that leaves signals and the end of this process to the launcher."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        except SystemExit as exc:
            raise CannotBeDone("the front end did not start; its log says why") from exc


def _spare_the_collector() -> None:
    """Has Python's garbage collector look at less, and more rarely.

    What was imported and built so far stays for as long as the process does: it is never looked at
    again. Requests leave no cycles behind, so what a collection finds is requests in flight, and
    those that telemetry has not settled yet, all alive. At Python's own thresholds it looks for
    cycles at every second request, which took a tenth of the front end's CPU time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT_AFTER)


async def _wait_ready(url: str, timeout_s: float) -> None:
    answer = "no answer"
    try:
        async with asyncio.timeout(timeout_s), aiohttp.ClientSession() as session:
            while True:
                with contextlib.suppress(aiohttp.ClientError):
                    async with session.get(f"{url}/ready") as response:
                        if response.status == 200:
                            return
                        answer = await response.text()
                await asyncio.sleep(_READY_INTERVAL_S)
    except TimeoutError:
        raise CannotBeDone(f"the cascade was not ready after {timeout_s:g} s: {answer}") from None


def _cannot_listen(where: str, error: OSError) -> CannotBeDone:
    if error.errno == errno.EADDRINUSE:
        return CannotBeDone(f"{where} is in use: stop what listens there, or give another --port")
    return CannotBeDone(f"cannot listen on {where}: {error.strerror}")
