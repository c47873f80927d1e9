import asyncio
import contextlib
import gc
import socket
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from hybridserve_llm.errors import CannotBeDone, ConfigError
from launch.running.http_server import base_url, bind, serve


class App:
    """The least ASGI application: /ready as told, anything else takes for ever."""

    def __init__(self, *, is_ready: bool = True, starts: bool = True) -> None:
        self.is_ready = is_ready
        self.starts = starts
        self.is_waiting = asyncio.Event()

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            result = "complete" if self.starts else "failed"
            await send({"type": f"lifespan.startup.{result}"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] != "/ready":
            self.is_waiting.set()
            await asyncio.sleep(600)
        status = 200 if self.is_ready else 503
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"giant is down"})


def serving(app: App, bound: socket.socket, **changed: Any) -> asyncio.Task[None]:
    options = {
        "ready_timeout_s": 10.0,
        "stop_timeout_s": 10.0,
        "hurry": asyncio.Event(),
        "on_ready": lambda: None,
        **changed,
    }
    return asyncio.create_task(serve(app, bound, **options))


@contextlib.asynccontextmanager
async def ready(app: App, **changed: Any) -> AsyncIterator[tuple[asyncio.Task[None], str]]:
    is_ready = asyncio.Event()
    with bind("127.0.0.1", 0) as bound:
        task = serving(app, bound, on_ready=is_ready.set, **changed)
        await is_ready.wait()
        yield task, base_url(bound)


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """Puts the garbage collector back to what it was: other tests share this process."""
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


async def test_the_collector_looks_rarely_once_it_is_ready() -> None:
    async with ready(App()) as (task, _):
        # A request in flight is some 100 objects: hundreds of them set off no collection.
        assert gc.get_threshold()[0] >= 50_000
        assert gc.get_freeze_count() > 0
        task.cancel()


async def test_serves_until_cancelled() -> None:
    async with ready(App()) as (task, url):
        async with aiohttp.ClientSession() as session, session.get(f"{url}/ready") as response:
            assert response.status == 200
        task.cancel()
        await asyncio.wait({task})
        assert task.cancelled()


async def test_hurry_does_not_wait_for_requests_in_flight() -> None:
    hurry = asyncio.Event()
    app = App()
    async with ready(app, hurry=hurry) as (task, url), aiohttp.ClientSession() as session:
        request = asyncio.create_task(session.get(f"{url}/slow"))
        await app.is_waiting.wait()
        task.cancel()
        hurry.set()
        await asyncio.wait({task}, timeout=5.0)
        assert task.cancelled()
        request.cancel()
        await asyncio.wait({request})


async def test_cascade_that_does_not_get_ready_is_refused_with_its_answer() -> None:
    with (
        bind("127.0.0.1", 0) as bound,
        pytest.raises(CannotBeDone, match=r"not ready after 0\.5 s: giant is down"),
    ):
        await serving(App(is_ready=False), bound, ready_timeout_s=0.5)


async def test_application_that_does_not_start_is_told() -> None:
    with (
        bind("127.0.0.1", 0) as bound,
        pytest.raises(CannotBeDone, match="front end did not start"),
    ):
        await serving(App(starts=False), bound)


async def test_port_taken_after_binding_is_told() -> None:
    with bind("127.0.0.1", 0) as bound, bind("127.0.0.1", bound.getsockname()[1]) as thief:
        thief.listen()
        with pytest.raises(CannotBeDone, match="is in use: stop what listens there"):
            await serving(App(), bound)


def test_port_in_use_is_told_with_host_and_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(CannotBeDone, match=f"127.0.0.1 port {port} is in use"):
            bind("127.0.0.1", port)


def test_address_of_another_machine_cannot_be_listened_on() -> None:
    with pytest.raises(CannotBeDone, match=r"cannot listen on 192\.0\.2\.77 port 0: Cannot assign"):
        bind("192.0.2.77", 0)  # RFC 5737: for documentation, nobody's


def test_host_that_is_no_host_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"server.host = 'no such host'"):
        bind("no such host", 0)


@pytest.mark.parametrize(
    ("host", "url"),
    [("127.0.0.1", "http://127.0.0.1:"), ("0.0.0.0", "http://127.0.0.1:"), ("::", "http://[::1]:")],
)
def test_base_url_is_one_a_client_here_can_use(host: str, url: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with bind(host, 0) as bound:
        assert base_url(bound) == f"{url}{bound.getsockname()[1]}"
