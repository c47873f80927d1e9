"""The folder of one launch: log per engine, plan.json, endpoints.json, sockets, and a lock."""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.plan import Plan

MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of Linux holds 108 bytes, the closing NUL included (unix(7))."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Paths of one launch; `sockets` is elsewhere when `path` is too long for a socket's name."""

    path: Path
    sockets: Path

    def log_path(self, engine: str) -> Path:
        """Log file of the engine (`tier/index`)."""
        return self.path / "logs" / f"{_file_name(engine)}.log"

    def socket_path(self, engine: str) -> Path:
        """Unix socket of the engine (`tier/index`)."""
        return self.sockets / f"{_file_name(engine)}.sock"

    def write_plan(self, plan: Plan) -> None:
        """Writes `plan.json`."""
        (self.path / "plan.json").write_text(plan.to_json(), encoding="utf-8")

    def write_endpoints(self, endpoints: Mapping[str, Iterable[str]]) -> None:
        """Writes `endpoints.json`: base URLs (`unix:/path` or `http://…`) by tier."""
        tiers = {tier: list(urls) for tier, urls in endpoints.items()}
        text = json.dumps({"tiers": tiers}, indent=2) + "\n"
        (self.path / "endpoints.json").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def open_run_folder(path: Path | None, engines: Iterable[str]) -> Iterator[RunFolder]:
    """The run folder at `path`, or a fresh one among the temporary files, locked until the end.

    At the end `endpoints.json` and the sockets are removed; logs and plan stay.

    Args:
        path: Made if it is not there.
        engines: Names of the engines that will have sockets here.

    Raises:
        CannotBeDone: Another launch holds the folder, or it cannot be made or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = _made(path)
            stack.enter_context(_locked(folder))
            sockets = stack.enter_context(_socket_folder(folder, engines))
        except OSError as exc:
            raise CannotBeDone(
                f"cannot use run folder {path or tempfile.gettempdir()}: {exc.strerror}"
            ) from exc
        stack.callback((folder / "endpoints.json").unlink, missing_ok=True)
        yield RunFolder(path=folder, sockets=sockets)


def _made(path: Path | None) -> Path:
    folder = path.absolute() if path else Path(tempfile.mkdtemp(prefix="hybridserve-"))
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the folder's lock; the kernel frees it when this process ends, however it ends."""
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise CannotBeDone(
                f"run folder {folder} is in use by another hs-launch: stop it, or give another "
                "--run-folder"
            ) from None
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _socket_folder(folder: Path, engines: Iterable[str]) -> Iterator[Path]:
    """A folder that only this user may enter, so that nobody else reaches the engines."""
    sockets = folder / "sockets"
    longest = max((len(os.fsencode(_file_name(engine))) for engine in engines), default=0)
    if len(os.fsencode(sockets)) + len("/.sock") + longest > MAX_SOCKET_PATH_BYTES:
        sockets = Path(tempfile.mkdtemp(prefix="hs-"))
    else:
        # What a killed launch left is stale: its engines ended with it, and we hold the lock.
        shutil.rmtree(sockets, ignore_errors=True)
        sockets.mkdir(mode=0o700)
    try:
        yield sockets
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


def _file_name(engine: str) -> str:
    return engine.replace("/", "-")
