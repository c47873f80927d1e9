"""What the watch says of itself, for `/v1/cascade` and the metrics: frozen, free of any format."""

from dataclasses import dataclass
from typing import Literal

from hybridserve_llm.watch.settings import Level

Status = Literal["ok", "warning", "alarm"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """Why the cascade left its policy, and when (seconds since the epoch); kept until acknowledged.

    `monitor` is None where no loss raised it; `e_value` then is as well.
    """

    reason: str
    at_s: float
    monitor: str | None = None
    e_value: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MonitorSnapshot:
    """One e-process: the alarm comes when `e_value` reaches `alarm_at`."""

    name: str
    budget: float
    labels: int
    losses: float
    e_value: float
    alarm_at: float
    is_alarm: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchCounts:
    """One tier's answers since the state was begun.

    `stale`: compared, but accepted under a policy that had been left before the verdict came.
    """

    accepted: int = 0
    shadowed: int = 0
    compared: int = 0
    disagreed: int = 0
    cannot_tell: int = 0
    failed: int = 0
    dropped: int = 0
    stale: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TierSnapshot:
    """One tier's counts; ADWIN's since the process started, None where river is not installed."""

    tier: str
    counts: WatchCounts
    score_warnings: int | None
    accept_warnings: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchSnapshot:
    """The watch at one moment.

    Attributes:
        reasons: Why `status` is not ok, a line each.
        adwin: "on", or "not installed".
        state_notes: What a person should know of the state file, e.g. why it was not gone on with.
        shadow_prompt_tokens: Prompt tokens that shadowing cost the last tier since the process
            started, as far as its engines counted them; so for `shadow_completion_tokens`.
    """

    status: Status
    level: Level
    reasons: tuple[str, ...]
    alarm: Alarm | None
    monitors: tuple[MonitorSnapshot, ...]
    tiers: tuple[TierSnapshot, ...]
    adwin: Literal["on", "not installed"]
    state_notes: tuple[str, ...]
    n_acknowledged: int
    shadow_prompt_tokens: int
    shadow_completion_tokens: int
