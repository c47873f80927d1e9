"""What a launcher says of itself in `state.json`, for `hs-launch status` in another terminal.

The file is replaced whole whenever something changes, so a reader sees one state or the next, never
half of one, and takes no lock. Times in it are this machine's monotonic clock, which all processes
share until the next boot.
"""

import contextlib
import dataclasses
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from hybridserve_llm.errors import CannotBeDone

log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
"""Raised when a reader of the old form would misread the new one."""

Phase = Literal["planning", "starting", "ready", "draining"]
EngineCondition = Literal["starting", "healthy", "restarting", "failed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineState:
    """One engine as its launcher sees it.

    Attributes:
        name: `tier/index`.
        log_path: Its log; `LOG.1` is the log of the life before.
        restart_limit: How often it may be started again in a row.
        tensor_parallel_size: GPUs, or CPU core groups, that the plan gives each of its layers.
        condition: `failed` is final: it has used up its restarts.
        stage: How far a start or restart has come, in words; None when healthy or failed.
        reason: Why its last life ended; None when none has.
        restarts: Times it was started again since it was last healthy for long.
        total_restarts: The same since the launch.
        healthy_since_s: Monotonic seconds at which it became healthy; None while it is not.
    """

    name: str
    log_path: str
    restart_limit: int
    tensor_parallel_size: int = 1
    condition: EngineCondition = "starting"
    stage: str | None = None
    reason: str | None = None
    restarts: int = 0
    total_restarts: int = 0
    healthy_since_s: float | None = None

    @property
    def tier(self) -> str:
        """The tier that it is a replica of."""
        return self.name.rpartition("/")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchState:
    """One launch.

    Attributes:
        pid: The launcher's process.
        phase: What the launcher is at; `ready` is said once `/ready` answered 200.
        started_s: Monotonic seconds at which it began.
        base_url: Where clients reach it; None until the port is bound.
        endpoints: By tier, base URLs of servers that the launch did not start.
        engines: Every engine of the plan, in its order; empty while it is planned.
    """

    pid: int
    phase: Phase
    started_s: float
    base_url: str | None = None
    endpoints: dict[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    engines: tuple[EngineState, ...] = ()
    schema_version: int = SCHEMA_VERSION

    @property
    def tiers_down(self) -> tuple[str, ...]:
        """Tiers none of whose engines is healthy; of endpoints nothing is known here."""
        tiers = dict.fromkeys(engine.tier for engine in self.engines)
        healthy = {engine.tier for engine in self.engines if engine.condition == "healthy"}
        return tuple(tier for tier in tiers if tier not in healthy)

    @property
    def is_ready(self) -> bool:
        """Whether it serves and every tier that it started has a healthy engine."""
        return self.phase == "ready" and not self.tiers_down

    def to_json(self) -> str:
        """The state as indented JSON; `from_json` gives an equal state back."""
        return _STATE.dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "LaunchState":
        """The state in `text`.

        Raises:
            CannotBeDone: It is not a state, or one of another version of this program.
        """
        try:
            return _STATE.validate_json(text)
        except ValidationError as exc:
            raise CannotBeDone(
                f"the state of this launch is not of schema_version {SCHEMA_VERSION}: use the "
                "hs-launch that started it"
            ) from exc


_STATE = TypeAdapter(LaunchState)


class StateFile:
    """Keeps a launch's state and its file the same."""

    def __init__(self, path: Path, state: LaunchState) -> None:
        """Writes `state` at once."""
        self._path = path
        self._state = state
        self._write()

    @property
    def state(self) -> LaunchState:
        """What was written last."""
        return self._state

    def update(self, **changes: Any) -> None:
        """Replaces fields of the launch's state."""
        self._state = dataclasses.replace(self._state, **changes)
        self._write()

    def update_engine(self, name: str, **changes: Any) -> None:
        """Replaces fields of one engine's state; writes nothing where nothing changes."""
        engines = tuple(
            dataclasses.replace(engine, **changes) if engine.name == name else engine
            for engine in self._state.engines
        )
        if engines != self._state.engines:
            self.update(engines=engines)

    def _write(self) -> None:
        # A few kB once in seconds: short enough for the event loop. No fsync: the file means
        # nothing after a power cut.
        new = self._path.with_suffix(".json.new")
        try:
            new.write_text(self._state.to_json(), encoding="utf-8")
            new.replace(self._path)
        except OSError as exc:  # a full disk stops no cascade
            log.warning("cannot write %s: %s", self._path, exc.strerror)
            with contextlib.suppress(OSError):
                os.unlink(new)
