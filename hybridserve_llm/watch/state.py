"""What the watch keeps over a restart: one JSON file in the run folder, replaced as a whole.

Three ways to open it (`open_state`):

* There is none: a fresh start.
* It belongs to another fingerprint: a fresh start, and the old file is put beside it. The evidence
  was about another cascade, and to make a certificate for this one was a person's act.
* It cannot be read: no evidence, and *in alarm*, since the file may have held one, and an alarm is
  never lifted without a person. That person acknowledges, or deletes the file.
"""

import json
import math
import os
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self, get_args

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.watch.eprocess import EProcessState
from hybridserve_llm.watch.sampler import Traffic
from hybridserve_llm.watch.settings import Level
from hybridserve_llm.watch.snapshot import Alarm, WatchCounts

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchState:
    """Everything that is kept; `monitors` by e-process, `counts` by tier."""

    fingerprint: str
    level: Level = "normal"
    alarm: Alarm | None = None
    monitors: Mapping[str, EProcessState] = field(default_factory=dict)
    counts: Mapping[str, WatchCounts] = field(default_factory=dict)
    traffic: Traffic | None = None
    n_acknowledged: int = 0

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads back as the same state."""
        return {
            "version": _VERSION,
            "fingerprint": self.fingerprint,
            "level": self.level,
            "alarm": asdict(self.alarm) if self.alarm else None,
            "monitors": {name: state.to_json() for name, state in self.monitors.items()},
            "counts": {tier: asdict(counts) for tier, counts in self.counts.items()},
            "traffic": asdict(self.traffic) if self.traffic else None,
            "n_acknowledged": self.n_acknowledged,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The state in `values`.

        Raises:
            KeyError, TypeError, ValueError: `values` is no state that `to_json` could have written.
        """
        if values["version"] != _VERSION:
            raise ValueError(f"version {values['version']!r} is not {_VERSION}")
        if values["level"] not in get_args(Level):
            raise ValueError(f"level {values['level']!r} is none of {get_args(Level)}")
        alarm, traffic = values["alarm"], values["traffic"]
        if (values["level"] == "normal") != (alarm is None):
            raise ValueError("level and alarm contradict each other")
        return cls(
            fingerprint=str(values["fingerprint"]),
            level=values["level"],
            alarm=None if alarm is None else _alarm_from(alarm),
            monitors={
                name: EProcessState.from_json(state) for name, state in values["monitors"].items()
            },
            counts={tier: _counts_from(counts) for tier, counts in values["counts"].items()},
            traffic=None if traffic is None else _traffic_from(traffic),
            n_acknowledged=int(values["n_acknowledged"]),
        )

    def acknowledged(self) -> "WatchState":
        """The state after a person has lifted the alarm: the policy back, all evidence dropped.

        Old evidence would raise the same alarm again; `delta` is spent anew from here on.
        """
        return replace(
            self,
            level="normal",
            alarm=None,
            monitors={},
            n_acknowledged=self.n_acknowledged + 1,
        )


def load_state(path: Path) -> WatchState | None:
    """The state in `path`; None where there is no such file.

    Raises:
        ConfigError: The file cannot be read, or holds no state of this version.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return WatchState.from_json(values)
    except FileNotFoundError:
        return None
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError) as exc:
        raise ConfigError(
            f"watch state {path} cannot be read ({type(exc).__name__}: {exc}); "
            "look why, then acknowledge or delete it"
        ) from exc


def check_fingerprint(state: WatchState, fingerprint: str, path: Path) -> None:
    """Passes where the state belongs to the running cascade.

    Raises:
        ConfigError: It belongs to another one.
    """
    if state.fingerprint != fingerprint:
        raise ConfigError(
            f"watch state {path} belongs to fingerprint {state.fingerprint!r}, "
            f"not to the running cascade's {fingerprint!r}"
        )


def open_state(path: Path, fingerprint: str, *, now_s: float) -> tuple[WatchState, str | None]:
    """The state to go on with, and what a person should know of it (see the top of this file).

    Writes the file unless the old one is gone on with: a crash right after then loses no alarm,
    and a folder that cannot be written is found before serving.

    Raises:
        OSError: The file cannot be written.
    """
    fresh = WatchState(fingerprint=fingerprint)
    try:
        state = load_state(path)
    except ConfigError as exc:
        alarm = Alarm(reason=f"{exc}: an alarm in it would be lost", at_s=now_s)
        kept = replace(fresh, level="escalate", alarm=alarm)
        return _instead_of(path, ".broken", kept), str(exc)
    if state is None:
        return _instead_of(path, "", fresh), None
    try:
        check_fingerprint(state, fingerprint, path)
    except ConfigError as exc:
        return _instead_of(path, ".superseded", fresh), f"{exc}: started afresh"
    return state, None


def acknowledge(path: Path) -> WatchState:
    """Lifts the alarm in the state file of a server that is not running.

    Raises:
        ConfigError: There is no such file, or it cannot be read (then delete it).
        OSError: It cannot be written.
    """
    state = load_state(path)
    if state is None:
        raise ConfigError(f"there is no watch state {path} to acknowledge")
    lifted = state.acknowledged()
    WatchStateFile(path).write(lifted, serial=1)
    return lifted


class WatchStateFile:
    """Writes the state; from one thread or several, the newest `serial` stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._newest = 0

    def write(self, state: WatchState, *, serial: int) -> None:
        """Replaces the file in one step, so that a reader and a crash see one whole state; waits.

        Raises:
            OSError: The folder cannot be written.
        """
        text = json.dumps(state.to_json(), indent=1, allow_nan=False)
        with self._lock:
            if serial <= self._newest:
                return
            beside = self.path.with_name(self.path.name + ".new")
            with beside.open("w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(self.path)
            self._newest = serial


def _instead_of(path: Path, suffix: str, state: WatchState) -> WatchState:
    """Puts the old file beside and writes `state` in its place."""
    if path.is_file():
        shutil.copyfile(path, path.with_name(path.name + suffix))
    WatchStateFile(path).write(state, serial=1)
    return state


def _alarm_from(values: Mapping[str, Any]) -> Alarm:
    monitor, e_value = values["monitor"], values["e_value"]
    return Alarm(
        reason=str(values["reason"]),
        at_s=float(values["at_s"]),
        monitor=None if monitor is None else str(monitor),
        e_value=None if e_value is None else float(e_value),
    )


def _counts_from(values: Mapping[str, Any]) -> WatchCounts:
    return WatchCounts(**{name: int(n) for name, n in values.items()})


def _traffic_from(values: Mapping[str, Any]) -> Traffic:
    n_recent, at_s = float(values["n_recent"]), float(values["at_s"])
    if not (math.isfinite(n_recent) and n_recent >= 0.0 and math.isfinite(at_s)):
        raise ValueError(f"not a record of traffic: {values!r:.200}")
    return Traffic(n_accepted=int(values["n_accepted"]), n_recent=n_recent, at_s=at_s)
