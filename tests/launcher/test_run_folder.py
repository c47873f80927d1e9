import fcntl
import json
import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.plan import Placement, Plan, TierPlan
from launch.machine.process_identity import ProcessIdentity
from launch.running.run_folder import MAX_SOCKET_PATH_BYTES, holder_of, open_run_folder

ENGINES = ("small/0", "giant/0")


def test_folder_keeps_logs_and_plan_and_loses_sockets_and_endpoints(tmp_path: Path) -> None:
    path = tmp_path / "new" / "run"
    plan = Plan(
        tiers=(
            TierPlan(
                tier="small", placements=(Placement(name="small/0", device="cpu", cpu_threads=1),)
            ),
        )
    )
    with open_run_folder(path, ENGINES) as folder:
        folder.write_plan(plan)
        folder.write_endpoints({"small": ("unix:/s",)})
        folder.log_path("small/0").touch()
        folder.socket_path("small/0").touch()
        assert folder.log_path("small/0") == path / "logs/small-0.log"
        assert folder.socket_path("small/0") == path / "sockets/small-0.sock"
        assert stat.S_IMODE(folder.sockets.stat().st_mode) == 0o700
        assert json.loads((path / "endpoints.json").read_text()) == {
            "tiers": {"small": ["unix:/s"]}
        }
    assert Plan.from_json((path / "plan.json").read_text()) == plan
    assert sorted(p.name for p in path.iterdir()) == ["lock", "logs", "plan.json"]
    assert folder.log_path("small/0").exists()


def test_sockets_go_elsewhere_when_the_path_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * MAX_SOCKET_PATH_BYTES)
    with open_run_folder(path, ENGINES) as folder:
        socket_path = folder.socket_path("giant/0")
        socket_path.touch()
        assert path not in socket_path.parents
        assert len(str(socket_path)) <= MAX_SOCKET_PATH_BYTES
        assert stat.S_IMODE(folder.sockets.stat().st_mode) == 0o700
    assert not folder.sockets.exists()


def test_longest_path_that_fits_is_used(tmp_path: Path) -> None:
    n_left = MAX_SOCKET_PATH_BYTES - len(str(tmp_path / "x/sockets/giant-0.sock")) + 1
    if n_left < 1:
        pytest.skip("temporary files lie too deep here")
    for n, is_inside in ((n_left, True), (n_left + 1, False)):
        path = tmp_path / ("x" * n)
        with open_run_folder(path, ENGINES) as folder:
            assert (folder.sockets == path / "sockets") is is_inside


def test_fresh_folder_without_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_run_folder(None, ENGINES) as folder:
        assert folder.path.is_dir()
        with open_run_folder(None, ENGINES) as other:
            assert other.path != folder.path


def test_second_launch_on_the_same_folder_is_refused(tmp_path: Path) -> None:
    with (
        open_run_folder(tmp_path, ENGINES) as folder,
        pytest.raises(CannotBeDone, match="in use by another hs-launch"),
        open_run_folder(tmp_path, ENGINES),
    ):
        pass
    folder.log_path("small/0").touch()
    with open_run_folder(tmp_path, ENGINES):
        pass


def test_the_lock_says_who_holds_it_and_nobody_after_the_end(tmp_path: Path) -> None:
    assert holder_of(tmp_path) is None
    with open_run_folder(tmp_path, ENGINES):
        holder = holder_of(tmp_path)
        assert holder is not None
        assert holder.pid == os.getpid()
        assert holder.is_alive()
    assert holder_of(tmp_path) is None


def test_folder_of_a_killed_launch_is_free_when_its_last_engine_has_ended(tmp_path: Path) -> None:
    """Launcher and guard are stood in for by two processes that hold the lock's descriptor."""
    program = (
        "import pathlib, subprocess, sys, time\n"
        "from launch.running.run_folder import open_run_folder\n"
        "with open_run_folder(pathlib.Path(sys.argv[1]), []) as folder:\n"
        "    guard = ['sleep', '0.7']\n"
        "    subprocess.Popen(guard, pass_fds=(folder.lock,), start_new_session=True)\n"
        "    print('locked', flush=True)\n"
        "    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as launcher:
        assert launcher.stdout is not None
        assert launcher.stdout.readline() == b"locked\n"
        with (
            pytest.raises(CannotBeDone, match=rf"in use by another hs-launch \(pid {launcher.pid}"),
            open_run_folder(tmp_path, ENGINES),
        ):
            pass
        launcher.kill()
    assert not is_free(tmp_path)
    with open_run_folder(tmp_path, ENGINES):  # waits for the guard
        assert holder_of(tmp_path) == ProcessIdentity.of_this_process()


def is_free(folder: Path) -> bool:
    with (folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def test_temporary_folder_without_a_log_is_not_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with open_run_folder(None, ENGINES) as folder:
        pass
    assert not folder.path.exists()
    with open_run_folder(None, ENGINES) as folder:
        folder.log_path("small/0").touch()
    assert folder.path.exists()


def test_sockets_a_killed_launch_left_are_removed(tmp_path: Path) -> None:
    (tmp_path / "sockets").mkdir()
    (tmp_path / "sockets" / "small-0.sock").touch()
    with open_run_folder(tmp_path, ENGINES) as folder:
        assert list(folder.sockets.iterdir()) == []


def test_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(CannotBeDone, match=r"cannot use run folder .*: Not a directory"),
        open_run_folder(tmp_path / "file" / "run", ENGINES),
    ):
        pass
