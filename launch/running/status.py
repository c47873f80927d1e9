"""What `hs-launch status` tells: a launch as its run folder shows it, as a table or as JSON.

Reads files only. Whether the launcher lives is asked of the kernel, by its identity in the lock
file; a state file without a living launcher is left over from one that was killed.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from hybridserve_llm.errors import CannotBeDone
from launch.running.run_folder import holder_of, state_path
from launch.running.state_file import EngineState, LaunchState, Phase

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchStatus:
    """A launch at one moment.

    Attributes:
        run_folder: Its folder.
        phase: What it is at; `dead` when its launcher ended without stopping, `stopped` when it
            stopped in order.
        pid: The launcher's; None when it stopped.
        state: What the launcher said last; None when it has said nothing yet, or is gone.
        now_s: Monotonic seconds at which this was read.
    """

    run_folder: Path
    phase: Phase | Literal["dead", "stopped"]
    pid: int | None
    state: LaunchState | None
    now_s: float

    @property
    def is_ready(self) -> bool:
        """Whether requests are answered by every tier."""
        return self.state is not None and self.state.is_ready


def status_of(run_folder: Path, *, now_s: float) -> LaunchStatus:
    """The launch of `run_folder`; `now_s` is the monotonic clock's time.

    Raises:
        CannotBeDone: It is no run folder, or its state is of another version of this program.
    """
    folder = run_folder.absolute()
    if not (folder / "lock").exists():
        raise CannotBeDone(f"{folder} is no run folder of hs-launch: there is no lock in it")
    holder = holder_of(folder)
    if holder is None:
        return LaunchStatus(run_folder=folder, phase="stopped", pid=None, state=None, now_s=now_s)
    if not holder.is_alive():
        return LaunchStatus(
            run_folder=folder, phase="dead", pid=holder.pid, state=None, now_s=now_s
        )
    state = _state_in(folder)
    return LaunchStatus(
        run_folder=folder,
        phase="planning" if state is None else state.phase,
        pid=holder.pid,
        state=state,
        now_s=now_s,
    )


def _state_in(folder: Path) -> LaunchState | None:
    try:
        return LaunchState.from_json(state_path(folder).read_bytes())
    except FileNotFoundError:
        return None


def to_json(launches: list[LaunchStatus]) -> str:
    """All of `launches` as one JSON object; what is not known is null."""
    return json.dumps({"launches": [_values(launch) for launch in launches]}, indent=2)


def _values(launch: LaunchStatus) -> dict[str, Any]:
    state = launch.state
    return {
        "run_folder": str(launch.run_folder),
        "pid": launch.pid,
        "phase": launch.phase,
        "is_ready": launch.is_ready,
        "base_url": state.base_url if state else None,
        "uptime_s": _since(state.started_s, launch.now_s) if state else None,
        "endpoints": state.endpoints if state else {},
        "engines": [_engine_values(engine, launch.now_s) for engine in state.engines]
        if state
        else [],
    }


def _engine_values(engine: EngineState, now_s: float) -> dict[str, Any]:
    values = asdict(engine)
    healthy_since_s = values.pop("healthy_since_s")
    return {**values, "uptime_s": _since(healthy_since_s, now_s)}


def _since(then_s: float | None, now_s: float) -> float | None:
    return None if then_s is None else round(now_s - then_s, 3)


def to_text(launch: LaunchStatus) -> RenderableType:
    """The launch for a person, at 80 columns."""
    lines: list[RenderableType] = [Text(line) for line in _head(launch)]
    if launch.state is not None and launch.state.engines:
        lines.append(_table(launch.state.engines, launch))
        lines += [
            Text(f"{engine.name} failed last: {engine.reason}")
            for engine in launch.state.engines
            if engine.reason is not None
        ]
    return Group(*lines)


def _head(launch: LaunchStatus) -> list[str]:
    folder, state = launch.run_folder, launch.state
    if launch.phase == "stopped":
        return [f"no launcher runs in {folder}: the last one stopped"]
    if launch.phase == "dead":
        return [
            f"the launcher of {folder}, pid {launch.pid}, died without stopping; its engines end "
            f"within 10 s, their logs are in {folder / 'logs'}"
        ]
    where = f" at {state.base_url}/v1" if state and state.base_url else ""
    since = f", up {_in_words(launch.now_s - state.started_s)}" if state else ""
    lines = [f"hs-launch, pid {launch.pid}: {launch.phase}{where}{since}", f"run folder {folder}"]
    if state is not None and state.phase == "ready" and not state.is_ready:
        lines.append(f"not ready: no engine is healthy of tier {', '.join(state.tiers_down)}")
    return lines


def _table(engines: tuple[EngineState, ...], launch: LaunchStatus) -> Table:
    table = Table("engine", "state", "restarts", "up", "log in logs/", box=None, pad_edge=False)
    for engine in engines:
        since_s = engine.healthy_since_s
        table.add_row(
            engine.name,
            _condition(engine),
            str(engine.total_restarts),
            "-" if since_s is None else _in_words(launch.now_s - since_s),
            Path(engine.log_path).name,
        )
    return table


def _condition(engine: EngineState) -> str:
    count = ""
    if engine.condition == "restarting":
        count = f" {engine.restarts} of {engine.restart_limit}"
    stage = f": {engine.stage}" if engine.stage else ""
    return f"{engine.condition}{count}{stage}"


def _in_words(seconds: float) -> str:
    """The two largest units: `42 s`, `3 min 5 s`, `2 h 4 min`, `5 d 3 h`."""
    whole = max(0, int(seconds))
    if whole < _MINUTE_S:
        return f"{whole} s"
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} min {whole % _MINUTE_S} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S} min"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S} h"
