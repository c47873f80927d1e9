"""One engine process: start it under guard, wait until it is healthy, stop it with all it spawned.

What goes on inside the engine's process tree is `guard.py`'s part.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from pathlib import Path

import aiohttp

from hybridserve_llm.errors import EngineStartError
from launch import guard
from launch.argv import EngineCommand
from launch.engine_log import log_tail, telling_line
from launch.stopping import has_ended

log = logging.getLogger(__name__)

_HEALTH_INTERVAL_S = 0.25
_HEALTH_TIMEOUT_S = 5.0
_GUARD_GRACE_S = 10.0
"""What the guard may take beyond the engine's own time to end."""


class EngineProcess:
    """An engine of this machine that listens on a unix socket."""

    def __init__(
        self,
        name: str,
        command: EngineCommand,
        *,
        socket_path: Path,
        log_path: Path,
        stop_timeout_s: float,
    ) -> None:
        self.name = name
        self.socket_path = socket_path
        self.log_path = log_path
        self._command = command
        self._stop_timeout_s = stop_timeout_s
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._guard_pipe: int | None = None

    async def start(self) -> None:
        """Starts the process and returns at once; an old socket and log are removed first.

        Cancelling leaves it to start; `stop` is called in any case.

        Raises:
            EngineStartError: No process could be made.
        """
        self._starting = asyncio.create_task(self._spawn())
        await asyncio.shield(self._starting)

    async def _spawn(self) -> asyncio.subprocess.Process:
        with contextlib.ExitStack() as stack:
            try:
                self.socket_path.unlink(missing_ok=True)
                # The write end stays open until this process ends, however it ends.
                read_end, self._guard_pipe = os.pipe()
                stack.callback(os.close, read_end)
                log_file = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
                stack.callback(os.close, log_file)
                return await asyncio.create_subprocess_exec(
                    *(sys.executable, "-I", "-S", guard.__file__),
                    *("--stop-timeout-s", str(self._stop_timeout_s)),
                    *("--socket", str(self.socket_path)),
                    *("--", *self._command.argv),
                    stdin=read_end,
                    stdout=log_file,
                    stderr=log_file,
                    env={**os.environ, **self._command.environment},
                    # Python puts the working folder on the module path: not the user's.
                    cwd=self.log_path.parent,
                    start_new_session=True,
                )
            except OSError as exc:
                raise self._start_error(exc.strerror or str(exc)) from exc

    async def wait(self) -> int:
        """Waits for the engine's end; its exit status, 128 + the number for a signal."""
        if self._starting is None:
            raise RuntimeError(f"engine {self.name} was not started")
        return await (await self._starting).wait()

    async def wait_healthy(self, timeout_s: float) -> None:
        """Waits until the engine answers on its socket.

        Raises:
            EngineStartError: It exited, or did not answer within `timeout_s`.
        """
        connector = aiohttp.UnixConnector(path=str(self.socket_path))
        limit = aiohttp.ClientTimeout(total=_HEALTH_TIMEOUT_S)
        try:
            async with (
                asyncio.timeout(timeout_s),
                aiohttp.ClientSession(connector=connector, timeout=limit) as session,
            ):
                while not await _is_healthy(session):
                    with contextlib.suppress(TimeoutError):
                        status = await asyncio.wait_for(self.wait(), _HEALTH_INTERVAL_S)
                        raise self._start_error(_status_in_words(status))
        except TimeoutError:
            raise self._start_error(f"not healthy after {timeout_s:g} s") from None

    def end_in_words(self, status: int) -> str:
        """What the engine ended of: its exit status, and what its log says."""
        return self._with_telling_line(_status_in_words(status))

    def _start_error(self, what: str) -> EngineStartError:
        return EngineStartError(self.name, self._with_telling_line(what), str(self.log_path))

    def _with_telling_line(self, what: str) -> str:
        line = telling_line(log_tail(self.log_path))
        return f"{what}; {line}" if line else what

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """Ends the engine and all it spawned; waits for it. After `hurry` they are killed.

        Does nothing when it was never started or has ended. Must not be cancelled.
        """
        with contextlib.suppress(EngineStartError):
            if self._starting is not None:
                await self._end(await self._starting, hurry)
        if self._guard_pipe is not None:
            os.close(self._guard_pipe)
            self._guard_pipe = None
        self.socket_path.unlink(missing_ok=True)

    async def _end(self, process: asyncio.subprocess.Process, hurry: asyncio.Event) -> None:
        ending = asyncio.create_task(process.wait())
        _signal(process, signal.SIGTERM)
        limit_s = self._stop_timeout_s + _GUARD_GRACE_S
        if not await has_ended(ending, hurry=hurry, timeout_s=limit_s):
            _signal(process, signal.SIGQUIT)
            if not await has_ended(ending, hurry=asyncio.Event(), timeout_s=_GUARD_GRACE_S):
                log.error("engine %s: its guard does not end and is killed", self.name)
                kill_tree(process.pid)
        await ending


def kill_tree(root: int) -> None:
    """Kills the process `root` and everything below it, the root first so that it restarts none."""
    for pid in (root, *guard.descendants(root)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)


async def _is_healthy(session: aiohttp.ClientSession) -> bool:
    try:
        async with session.get("http://engine/health") as response:
            return response.status == 200
    except (aiohttp.ClientError, OSError):  # a TimeoutError is an OSError
        return False


def _status_in_words(status: int) -> str:
    if status > 128:
        with contextlib.suppress(ValueError):
            name = signal.Signals(status - 128).name
            return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")
    return f"exited with status {status}"
