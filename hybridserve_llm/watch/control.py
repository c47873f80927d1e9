"""The watch: what the router tells it, what it tells the router, and who may overrule it.

    normal ── alarm ──> strict, where a stricter policy is certified ── alarm ──> escalate
       └────── alarm, where there is none ─────────────────────────────────────────┘
    and back to normal by `acknowledge` alone, which a person calls

Each level has e-processes of its own, since another policy accepts other answers with another
budget. A verdict on an answer that was accepted before the level changed is counted as stale and is
evidence for neither.
"""

import asyncio
import contextlib
import logging
from collections import Counter
from pathlib import Path

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.interfaces import Clock, Engine
from hybridserve_llm.values.answers import Assessment, Completion
from hybridserve_llm.values.requests import GenerateRequest
from hybridserve_llm.watch.monitors import Monitors
from hybridserve_llm.watch.sampler import ShadowSampler
from hybridserve_llm.watch.settings import Level, WatchedCascade, WatchSettings
from hybridserve_llm.watch.shadow import (
    Agrees,
    ShadowJob,
    ShadowResult,
    ShadowWorker,
    answer_text,
)
from hybridserve_llm.watch.snapshot import Alarm, Status, WatchSnapshot
from hybridserve_llm.watch.state import StateFile, WatchState, open_state
from hybridserve_llm.watch.tiers import TierRecord

log = logging.getLogger(__name__)

_BLIND = (
    "disagreement cannot show a loss here: as many accepted answers may differ from the last "
    "tier's as there are; none is shadowed"
)


class Watch:
    """Watches one serving cascade; single-threaded, in the event loop of its server."""

    def __init__(
        self,
        watched: WatchedCascade,
        settings: WatchSettings,
        *,
        last_tier: Engine,
        agrees: Agrees,
        clock: Clock,
        state_path: Path,
    ) -> None:
        """Opens the state file; loads river where it is installed.

        Raises:
            ConfigError: The state file cannot be written.
        """
        try:
            state, note = open_state(state_path, watched.fingerprint, now_s=clock.wall_s())
        except OSError as exc:
            raise ConfigError(f"watch state {state_path} cannot be written: {exc}") from exc
        if note is not None:
            log.warning("%s", note)
        self._watched, self._settings, self._clock = watched, settings, clock
        self._state_note = note
        self._write_error: str | None = None
        self._file, self._n_saves = StateFile(state_path), 0
        self._save_wanted = asyncio.Event()
        self._take_up(state)
        self._tell_if_blind()
        self._tokens: Counter[str] = Counter()
        self._worker = ShadowWorker(
            last_tier=last_tier,
            agrees=agrees,
            on_result=self._settle,
            clock=clock,
            settings=settings.shadow,
        )

    def _take_up(self, state: WatchState) -> None:
        """Goes on from `state`."""
        watched, settings = self._watched, self._settings
        self._stage = 0
        self._alarm, self._n_acknowledged = state.alarm, state.n_acknowledged
        self._level: Level = state.level
        if state.level == "strict" and watched.strict_policy is None:
            self._level = "escalate"
        self._monitors = Monitors(watched.policy_at(self._level), settings, state.monitors)
        self._sampler = ShadowSampler(settings.shadow, clock=self._clock, traffic=state.traffic)
        self._tiers = {
            tier: TierRecord(
                tier,
                adwin_delta=settings.adwin_delta,
                clock=self._clock,
                kept=state.counts.get(tier),
            )
            for tier in watched.tiers
        }

    @property
    def level(self) -> Level:
        """What the router has to do with the next request."""
        return self._level

    def judged(self, tier: str, assessment: Assessment, *, is_accepted: bool) -> None:
        """Takes every decision of a tier below the last; for the warnings alone. Quick."""
        if tier in self._tiers:
            self._tiers[tier].judged(assessment, is_accepted=is_accepted)

    def accepted(
        self, request: GenerateRequest, tier: str, completion: Completion, assessment: Assessment
    ) -> None:
        """Takes an answer that the policy of `level` accepted just now; quick, waits for nothing.

        To be called for requests that the certificate covers, and for all of those. An answer
        without a score was taken because a request's `max_tier` left nothing else: not watched.
        """
        record = self._tiers.get(tier)
        if record is None or assessment.score is None or self._level == "escalate":
            return
        is_drawn = not self._monitors.is_blind and self._sampler.picks()
        record.accepted(is_drawn=is_drawn)
        if is_drawn:
            text = answer_text(completion)
            self._worker.submit(ShadowJob(request=request, tier=tier, text=text, stage=self._stage))

    def acknowledge(self, *, by: str) -> None:
        """Lifts the alarm by the will of the person `by`: normal policy, evidence from zero."""
        log.warning("watch: alarm lifted by %s; it was: %s", by, self._alarm)
        state = self._state().acknowledged()
        self._alarm, self._n_acknowledged = state.alarm, state.n_acknowledged
        self._enter(state.level)

    async def run(self) -> None:
        """Shadows and saves until cancelled; then aborts shadows under way and saves once more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._worker.run())
                group.create_task(self._save_regularly())
        finally:
            self._write(self._state(), self._next_serial())

    def snapshot(self) -> WatchSnapshot:
        """Everything to report, as it stands."""
        reasons = self._warnings()
        has_adwin = all(record.has_adwin for record in self._tiers.values())
        status: Status = "warning" if reasons else "ok"
        if self._alarm is not None:
            status, reasons = "alarm", (self._alarm.reason, *reasons)
        return WatchSnapshot(
            status=status,
            level=self._level,
            reasons=reasons,
            alarm=self._alarm,
            monitors=self._monitors.snapshots(),
            tiers=tuple(record.snapshot() for record in self._tiers.values()),
            adwin="on" if has_adwin else "not installed",
            state_notes=tuple(note for note in (self._state_note, self._write_error) if note),
            n_acknowledged=self._n_acknowledged,
            shadow_prompt_tokens=self._tokens["prompt"],
            shadow_completion_tokens=self._tokens["completion"],
        )

    def _warnings(self) -> tuple[str, ...]:
        reasons = [
            f"{monitor.name}: e-value {monitor.e_value:.3g} of {monitor.alarm_at:.3g}"
            for monitor in self._monitors.snapshots()
            if monitor.e_value >= self._settings.warning_e_value and not monitor.is_alarm
        ]
        if self._is_blind:
            reasons.append(_BLIND)
        for record in self._tiers.values():
            reasons += record.warnings()
        return tuple(reasons)

    def _settle(self, result: ShadowResult) -> None:
        job, is_stale = result.job, result.job.stage != self._stage
        self._tokens["prompt"] += result.usage.prompt_tokens or 0
        self._tokens["completion"] += result.usage.completion_tokens or 0
        loss = self._tiers[job.tier].settled(result.outcome, is_stale=is_stale)
        if loss is not None:
            raised = self._monitors.update(job.tier, loss)
            if raised is not None:
                self._raise_alarm(*raised)

    def _raise_alarm(self, monitor: str, e_value: float) -> None:
        state = self._monitors.states[monitor]
        self._alarm = Alarm(
            reason=f"{monitor}: {state.loss_sum:g} losses in {state.n_labels} labels, "
            f"budget {state.budget:.3g}, under the {self._level} policy",
            at_s=self._clock.wall_s(),
            monitor=monitor,
            e_value=e_value,
        )
        log.error("watch: alarm, %s", self._alarm.reason)
        has_stricter = self._level == "normal" and self._watched.strict_policy is not None
        self._enter("strict" if has_stricter else "escalate")

    def _enter(self, level: Level) -> None:
        self._level = level
        self._stage += 1
        if level != "escalate":  # there the e-processes stay as they were when the alarm came
            self._monitors = Monitors(self._watched.policy_at(level), self._settings)
            self._tell_if_blind()
        self._save_wanted.set()

    def _tell_if_blind(self) -> None:
        if self._is_blind:
            log.warning("watch: %s", _BLIND)

    @property
    def _is_blind(self) -> bool:
        return self._level != "escalate" and self._monitors.is_blind

    def _state(self) -> WatchState:
        return WatchState(
            fingerprint=self._watched.fingerprint,
            level=self._level,
            alarm=self._alarm,
            monitors=self._monitors.states,
            counts={tier: record.counts for tier, record in self._tiers.items()},
            traffic=self._sampler.traffic,
            n_acknowledged=self._n_acknowledged,
        )

    async def _save_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._settings.save_interval_s):
                    await self._save_wanted.wait()
            self._save_wanted.clear()
            await asyncio.to_thread(self._write, self._state(), self._next_serial())

    def _next_serial(self) -> int:
        self._n_saves += 1
        return self._n_saves

    def _write(self, state: WatchState, serial: int) -> None:
        """Writes the state; a full disk must not end the serving, so it is told and tried again."""
        try:
            self._file.write(state, serial=serial)
        except OSError as exc:
            self._write_error = f"watch state {self._file.path} cannot be written: {exc}"
            log.warning("%s", self._write_error)
        else:
            self._write_error = None
