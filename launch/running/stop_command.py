"""`hs-launch stop`: asks the launcher of a run folder to stop, and waits until it is gone."""

from pathlib import Path

from hybridserve_llm.errors import CannotBeDone
from launch.running.run_folder import holder_of


def stop_launch(run_folder: Path, *, timeout_s: float) -> int:
    """Sends SIGTERM to the launcher that holds `run_folder` and waits for its end; its pid.

    The signal goes to that very process or to none, whoever has its pid by now.

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
