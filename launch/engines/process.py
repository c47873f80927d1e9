"""Start one engine process under guard, wait for its health or failure, and stop it.

What goes on inside the engine's process tree is `guard.py`'s part; whether a failed engine is
started again is `life.py`'s.
"""

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import psutil

from hybridserve_llm.energy.processes import tree_of
from hybridserve_llm.errors import EngineStartError
from launch.engines import guard
from launch.engines.argv import EngineCommand
from launch.engines.log import cause_line, keep_old_log, log_tail
from launch.running.signals import has_ended

log = logging.getLogger(__name__)

_START_INTERVAL_S = 0.25
_ANSWER_TIMEOUT_S = 5.0
_SILENT_PROBES = 2
"""An engine is hung after this many probes at least: one may fail because this process slept."""
_GUARD_GRACE_S = 10.0
"""Seconds that the guard may take beyond the engine's own time to end."""


class EngineProcess:
    """Run an engine on a unix socket of this machine; after `stop` it can start again."""

    def __init__(
        self,
        name: str,
        command: EngineCommand,
        *,
        socket_path: Path,
        log_path: Path,
        stop_timeout_s: float,
        held_open: Sequence[int] = (),
    ) -> None:
        """Store the settings; nothing starts yet.

        Args:
            name: `tier/index`.
            command: What the guard starts.
            socket_path: Where the engine will listen.
            log_path: Where stdout and stderr of the engine and its guard go.
            stop_timeout_s: Seconds to end in before what is left is killed.
            held_open: Descriptors that the guard, not the engine, keeps open as long as it lives.
        """
        self.name = name
        self.socket_path = socket_path
        self.log_path = log_path
        self._command = command
        self._stop_timeout_s = stop_timeout_s
        self._held_open = tuple(held_open)
        self._starting: asyncio.Task[asyncio.subprocess.Process] | None = None
        self._guard_pipe: int | None = None

    async def start(self) -> None:
        """Start the process and return at once; an old socket is removed, an old log kept.

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
                keep_old_log(self.log_path)
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
                    pass_fds=self._held_open,
                )
            except OSError as exc:
                raise self._start_error(exc.strerror or str(exc)) from exc

    async def wait(self) -> int:
        """Wait for the engine's end and return its exit status, 128 + the number for a signal."""
        if self._starting is None:
            raise RuntimeError(f"engine {self.name} was not started")
        return await (await self._starting).wait()

    async def wait_healthy(self, timeout_s: float) -> None:
        """Wait until the engine answers on its socket.

        Raises:
            EngineStartError: It exited, or did not answer within `timeout_s`.
        """
        try:
            async with asyncio.timeout(timeout_s), self._probing(_ANSWER_TIMEOUT_S) as session:
                while not await _is_healthy(session):
                    with contextlib.suppress(TimeoutError):
                        status = await asyncio.wait_for(self.wait(), _START_INTERVAL_S)
                        raise self._start_error(_status_in_words(status))
        except TimeoutError:
            raise self._start_error(f"not healthy after {timeout_s:g} s") from None

    async def wait_failed(self, *, interval_s: float, timeout_s: float) -> str:
        """Wait until the engine ends or hangs, and return what happened, in words.

        It hangs when no probe found it healthy for `timeout_s`; one is sent every `interval_s`. It
        runs on then, and `stop` is what ends it. Cancelling leaves it as it is.
        """
        ending = asyncio.create_task(self.wait())
        hanging = asyncio.create_task(self._wait_hung(interval_s, timeout_s))
        try:
            await asyncio.wait({ending, hanging}, return_when=asyncio.FIRST_COMPLETED)
            if ending.done():
                return self._with_cause_line(_status_in_words(ending.result()))
            hanging.result()
            return f"no healthy answer for {timeout_s:g} s"
        finally:
            ending.cancel()
            hanging.cancel()

    async def _wait_hung(self, interval_s: float, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        async with self._probing(min(_ANSWER_TIMEOUT_S, timeout_s)) as session:
            answered_s, n_silent = loop.time(), 0
            while n_silent < _SILENT_PROBES or loop.time() - answered_s < timeout_s:
                if await _is_healthy(session):
                    answered_s, n_silent = loop.time(), 0
                else:
                    n_silent += 1
                await asyncio.sleep(interval_s)

    def _probing(self, answer_timeout_s: float) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=str(self.socket_path), force_close=True),
            timeout=aiohttp.ClientTimeout(total=answer_timeout_s),
        )

    def _start_error(self, what: str) -> EngineStartError:
        return EngineStartError(self.name, self._with_cause_line(what), str(self.log_path))

    def _with_cause_line(self, what: str) -> str:
        line = cause_line(log_tail(self.log_path))
        return f"{what}; {line}" if line else what

    async def stop(self, *, hurry: asyncio.Event) -> None:
        """End the engine and all it spawned; wait for it. After `hurry` they are killed.

        Does nothing when it was never started or has ended. Where it is cancelled, it has to be
        called again.
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
    """Kill the process `root` and everything below it, the root first so that it restarts none."""
    for process in tree_of(root):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


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
