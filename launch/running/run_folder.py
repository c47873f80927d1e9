"""Make and lock the folder of one launch: logs, plan.json, endpoints.json, state, sockets.

The lock is the kernel's (flock). Every process that has its descriptor open holds it: the launcher,
and the guard of each of its engines. So after a launcher was killed, the folder is free once the
last engine has ended. No engine of an old launch can meddle with a new one's sockets. The lock file
names the launcher.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.plan import Plan
from launch.machine.process_identity import ProcessIdentity

MAX_SOCKET_PATH_BYTES = 107
"""`sun_path` of Linux holds 108 bytes, the closing NUL included (unix(7))."""


_LOCK = "lock"
_LEFT_OVER_TIMEOUT_S = 10.0
"""Seconds that engines may outlive a launcher that was killed."""
_LOCK_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFolder:
    """Hold the paths of one launch.

    Attributes:
        path: The folder itself.
        sockets: Elsewhere when `path` is too long for a socket's name.
        lock: Descriptor of the lock, for guards to hold.
    """

    path: Path
    sockets: Path
    lock: int

    @property
    def state_path(self) -> Path:
        """Return the path of the file that shows the launcher's state; see `state_file.py`."""
        return state_path(self.path)

    def log_path(self, engine: str) -> Path:
        """Return the log file of the engine (`tier/index`)."""
        return self.path / "logs" / f"{_file_name(engine)}.log"

    def socket_path(self, engine: str) -> Path:
        """Return the unix socket of the engine (`tier/index`)."""
        return self.sockets / f"{_file_name(engine)}.sock"

    def write_plan(self, plan: Plan) -> None:
        """Write `plan.json`."""
        (self.path / "plan.json").write_text(plan.to_json(), encoding="utf-8")

    def write_endpoints(self, endpoints: Mapping[str, Iterable[str]]) -> None:
        """Write `endpoints.json`: base URLs (`unix:/path` or `http://…`) by tier."""
        tiers = {tier: list(urls) for tier, urls in endpoints.items()}
        text = json.dumps({"tiers": tiers}, indent=2) + "\n"
        (self.path / "endpoints.json").write_text(text, encoding="utf-8")


@contextlib.contextmanager
def open_run_folder(path: Path | None, engines: Iterable[str]) -> Iterator[RunFolder]:
    """Lock the run folder at `path`, or a fresh one among the temporary files, until the end.

    At the end `endpoints.json`, the state and the sockets are removed; logs and plan stay. Where
    engines of a killed launch still end, their end is waited for.

    Args:
        path: Made if it does not exist.
        engines: Names of the engines that will have sockets here.

    Raises:
        CannotBeDone: Another launch holds the folder, or it cannot be made or written.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(_made(path))
            lock = stack.enter_context(_locked(folder))
            sockets = stack.enter_context(_socket_folder(folder, engines))
        except OSError as exc:
            raise CannotBeDone(
                f"cannot use run folder {path or tempfile.gettempdir()}: {exc.strerror}"
            ) from exc
        for name in ("endpoints.json", state_path(folder).name):
            (folder / name).unlink(missing_ok=True)  # of a killed launch
            stack.callback((folder / name).unlink, missing_ok=True)
        yield RunFolder(path=folder, sockets=sockets, lock=lock)


def state_path(folder: Path) -> Path:
    """Return the state file of the run folder `folder`."""
    return folder / "state.json"


def holder_of(folder: Path) -> ProcessIdentity | None:
    """Return the launcher that took the run folder last, even if it died; None if it stopped.

    Reads the lock file and takes no lock.
    """
    try:
        return ProcessIdentity(**json.loads((folder / _LOCK).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # no launcher yet, or just writing its name
        return None


@contextlib.contextmanager
def _made(path: Path | None) -> Iterator[Path]:
    """Make the folder; one among the temporary files goes again when it never held a log."""
    folder = path.absolute() if path else Path(tempfile.mkdtemp(prefix="hybridserve-"))
    logs = folder / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        if path is None and not any(logs.iterdir()):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Hold the folder's lock; the kernel frees it when its last holder ends, however it ends."""
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        _take(descriptor, folder)
        os.truncate(descriptor, 0)
        os.write(descriptor, json.dumps(asdict(ProcessIdentity.of_this_process())).encode())
        try:
            yield descriptor
        finally:
            os.truncate(descriptor, 0)
    finally:
        os.close(descriptor)


def _take(lock: int, folder: Path) -> None:
    deadline_s = time.monotonic() + _LEFT_OVER_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holder_of(folder)
            if holder is None or holder.is_alive() or time.monotonic() > deadline_s:
                who = f"pid {holder.pid}" if holder else "another process"
                raise CannotBeDone(
                    f"run folder {folder} is in use by another hs-launch ({who}): stop it with "
                    f"hs-launch stop --run-folder {folder}, or give another --run-folder"
                ) from None
            # Its launcher was killed: engines still end.
            time.sleep(_LOCK_INTERVAL_S)
        else:
            return


@contextlib.contextmanager
def _socket_folder(folder: Path, engines: Iterable[str]) -> Iterator[Path]:
    """Make a folder that only this user may enter, so that nobody else reaches the engines."""
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
