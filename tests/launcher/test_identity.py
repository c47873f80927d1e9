import dataclasses
import os
import signal
import subprocess
import sys

from launch.machine.process_identity import ProcessIdentity


def sleeping(*, deaf: bool = False) -> subprocess.Popen[bytes]:
    """A process that sleeps, once it is ready for signals; `deaf` does not end on SIGTERM."""
    ignore = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if deaf else ""
    program = f"import signal, time; {ignore}print(1, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def test_this_process_is_alive() -> None:
    identity = ProcessIdentity.of_this_process()
    assert identity.pid == os.getpid()
    assert identity.is_alive()


def test_another_process_with_the_same_pid_is_not_the_one_meant() -> None:
    me = ProcessIdentity.of_this_process()
    assert not dataclasses.replace(me, start_ticks=me.start_ticks - 1).is_alive()
    assert not dataclasses.replace(me, boot_id="another boot").is_alive()


def test_a_recycled_pid_gets_no_signal() -> None:
    with sleeping() as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        stranger = dataclasses.replace(identity, start_ticks=identity.start_ticks - 1)
        assert stranger.terminate(timeout_s=5.0)  # the one that was meant is gone
        assert process.poll() is None
        assert identity.terminate(timeout_s=5.0)
        assert process.wait() == -signal.SIGTERM


def test_a_process_that_does_not_end_is_waited_for_no_longer_than_told() -> None:
    with sleeping(deaf=True) as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        assert not identity.terminate(timeout_s=0.05)
        process.kill()


def test_an_ended_process_is_dead_before_and_after_its_parent_collected_it() -> None:
    with sleeping() as process:
        identity = ProcessIdentity.of(process.pid)
        assert identity is not None
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert not identity.is_alive()
        assert ProcessIdentity.of(process.pid) is None
    assert identity.terminate(timeout_s=5.0)
