"""Find and stop this user's running launches without knowing their run folders.

Every launcher leaves a file named after its pid, which holds the path of its run folder. The file
is in `$XDG_RUNTIME_DIR/hybridserve`, or in `hybridserve-UID` among the temporary files where that
variable names no folder. Only the run folder shows whether the launcher still lives.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from hybridserve_llm.errors import CannotBeDone
from launch.running.run_folder import holder_of

log = logging.getLogger(__name__)


@contextlib.contextmanager
def announced(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Let `running_launches` find the run folder until the block ends.

    Where that cannot be, it is logged and the launch goes on: it is found by its folder then.
    """
    entry = _index(environment) / str(os.getpid())
    try:
        _make_private(entry.parent)
        _drop_dead(entry.parent)
        entry.write_text(str(folder), encoding="utf-8")
    except OSError as exc:
        log.warning("hs-launch status will need --run-folder: %s: %s", entry.parent, exc.strerror)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            entry.unlink(missing_ok=True)


def running_launches(environment: Mapping[str, str]) -> list[Path]:
    """Return the run folders of this user's living launchers, sorted."""
    index = _index(environment)
    try:
        is_ours = index.stat().st_uid == os.getuid()
        entries = list(index.iterdir()) if is_ours else []
    except OSError:
        return []
    folders = {folder for entry in entries if (folder := _folder_of(entry)) is not None}
    return sorted(folders)


def stop_launch(run_folder: Path, *, timeout_s: float) -> int:
    """Send SIGTERM to the launcher of `run_folder`, wait for its end, and return its pid.

    The signal goes to that very process or to none, even if another one has its pid by now.

    Raises:
        CannotBeDone: No launcher holds the folder, it is another user's, or it has not ended
            within `timeout_s`; it goes on stopping then.
    """
    holder = holder_of(run_folder)
    if holder is None or not holder.is_alive():
        raise CannotBeDone(f"no launcher runs in {run_folder}")
    try:
        has_ended = holder.terminate(timeout_s=timeout_s)
    except PermissionError as exc:
        raise CannotBeDone(f"the launcher, pid {holder.pid}, is another user's") from exc
    if not has_ended:
        raise CannotBeDone(
            f"the launcher, pid {holder.pid}, still runs after {timeout_s:g} s; hs-launch stop "
            "once more has it kill its engines"
        )
    return holder.pid


def _index(environment: Mapping[str, str]) -> Path:
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime):
        return Path(runtime) / "hybridserve"
    return Path(tempfile.gettempdir()) / f"hybridserve-{os.getuid()}"


def _make_private(index: Path) -> None:
    """Make the folder, for this user alone.

    Raises:
        PermissionError: Another user made it, and could mislead `hs-launch stop`.
    """
    index.mkdir(mode=0o700, parents=True, exist_ok=True)
    if index.lstat().st_uid != os.getuid() or index.is_symlink():
        raise PermissionError(1, "it belongs to another user")


def _drop_dead(index: Path) -> None:
    for entry in index.iterdir():
        if _folder_of(entry) is None:
            entry.unlink(missing_ok=True)


def _folder_of(entry: Path) -> Path | None:
    """Return the run folder named in `entry`; None where its launcher has ended."""
    try:
        folder = Path(entry.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    holder = holder_of(folder)
    is_its = holder is not None and str(holder.pid) == entry.name and holder.is_alive()
    return folder if is_its else None
