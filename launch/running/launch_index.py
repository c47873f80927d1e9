"""Where to find this user's running launches without knowing their run folders.

Every launcher leaves a file named after its pid, which holds the path of its run folder, in
`$XDG_RUNTIME_DIR/hybridserve`, or in `hybridserve-UID` among the temporary files where that
variable names no folder. Whether the launcher still lives is the run folder's to say.
"""

import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from launch.running.run_folder import holder_of

log = logging.getLogger(__name__)


@contextlib.contextmanager
def announced(folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    """Lets `running_launches` find the run folder until the block ends.

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
    """The run folders of this user's living launchers, sorted."""
    index = _index(environment)
    try:
        is_ours = index.stat().st_uid == os.getuid()
        entries = list(index.iterdir()) if is_ours else []
    except OSError:
        return []
    folders = {folder for entry in entries if (folder := _folder_of(entry)) is not None}
    return sorted(folders)


def _index(environment: Mapping[str, str]) -> Path:
    runtime = environment.get("XDG_RUNTIME_DIR", "")
    if runtime and os.path.isdir(runtime):
        return Path(runtime) / "hybridserve"
    return Path(tempfile.gettempdir()) / f"hybridserve-{os.getuid()}"


def _make_private(index: Path) -> None:
    """Makes the folder, for this user alone.

    Raises:
        PermissionError: Somebody else made it, who could lead `hs-launch stop` astray.
    """
    index.mkdir(mode=0o700, parents=True, exist_ok=True)
    if index.lstat().st_uid != os.getuid() or index.is_symlink():
        raise PermissionError(1, "it belongs to another user")


def _drop_dead(index: Path) -> None:
    for entry in index.iterdir():
        if _folder_of(entry) is None:
            entry.unlink(missing_ok=True)


def _folder_of(entry: Path) -> Path | None:
    """The run folder named in `entry`; None where its launcher does not live any more."""
    try:
        folder = Path(entry.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return None
    holder = holder_of(folder)
    is_its = holder is not None and str(holder.pid) == entry.name and holder.is_alive()
    return folder if is_its else None
