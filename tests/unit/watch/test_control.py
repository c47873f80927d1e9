"""The watch as a whole: what an alarm changes, what survives a restart, what is reported."""

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType

import pytest
from builders import chat_request

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer
from hybridserve_llm.values.answers import Assessment
from hybridserve_llm.watch.adwin import InputDrift
from hybridserve_llm.watch.control import Watch
from hybridserve_llm.watch.monitors import ALL_TIERS
from hybridserve_llm.watch.settings import (
    ShadowSettings,
    WatchedCascade,
    WatchedPolicy,
    WatchSettings,
)
from hybridserve_llm.watch.snapshot import WatchCounts
from hybridserve_llm.watch.state import WatchState, load_state

SURE = Assessment(score=-0.1)
NORMAL = WatchedPolicy(epsilon=0.02, acceptance=(("small", 0.5),))
STRICT = WatchedPolicy(epsilon=0.01, acceptance=(("small", 0.25),))
TWO_TIERS = WatchedPolicy(epsilon=0.02, acceptance=(("small", 0.25), ("medium", 0.25)))
ALL_DRAWN = ShadowSettings(share=1.0, queue_size=1000)
# Budget .04; bets on 1.5, 2.5 and 6 times as much start with .1 (.05, .9, .05) and win that factor
# at each loss. After k losses in a row: .005 * 1.5 ** k + .09 * 2.5 ** k + .005 * 6 ** k, which is
# 10 for k = 4 and 48 for 5 (20 warns), 1,455 for 7 and 8,535 for 8 (1 / .0005 = 2,000 alarms).
LOSSES_TO_WARN, LOSSES_TO_ALARM = 5, 8


@pytest.fixture(autouse=True)
def without_river(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most tests need no ADWIN, and loading it takes seconds."""
    monkeypatch.setitem(sys.modules, "river", None)
    monkeypatch.delitem(sys.modules, "river.drift", raising=False)


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not is_so():  # noqa: ASYNC110 - the watch has no event for every change
            await asyncio.sleep(0)


@dataclass
class Watching:
    """A watch whose last tier answers "right"; an accepted answer "wrong" disagrees with it."""

    folder: Path
    policy: WatchedPolicy = NORMAL
    strict: WatchedPolicy | None = None
    settings: WatchSettings = field(default_factory=lambda: WatchSettings(shadow=ALL_DRAWN))
    fingerprint: str = "f1"
    engine: FakeEngine = field(default_factory=lambda: FakeEngine("right"))
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.watch = Watch(
            WatchedCascade(
                fingerprint=self.fingerprint, policy=self.policy, strict_policy=self.strict
            ),
            self.settings,
            last_tier=self.engine,
            agrees=lambda _, accepted, last: accepted == last,
            clock=self.clock,
            state_path=self.path,
        )

    @property
    def path(self) -> Path:
        return self.folder / "watch.json"

    @property
    def written(self) -> WatchState:
        """The state in the file."""
        state = load_state(self.path)
        assert state is not None
        return state

    def accept(self, text: str, *, tier: str = "small", n: int = 1) -> None:
        for _ in range(n):
            self.watch.accepted(chat_request("q"), tier, scripted_answer(text), SURE)

    def counts(self, tier: str = "small") -> WatchCounts:
        tiers = {snapshot.tier: snapshot.counts for snapshot in self.watch.snapshot().tiers}
        return tiers[tier]

    async def settle(self) -> None:
        """Until every drawn answer has its outcome."""
        await until(self._is_settled)

    def _is_settled(self) -> bool:
        return all(
            tier.counts.shadowed
            == tier.counts.compared
            + tier.counts.cannot_tell
            + tier.counts.failed
            + tier.counts.dropped
            for tier in self.watch.snapshot().tiers
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.watch.run())
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    async def after(self, text: str, *, tier: str = "small", n: int = 1) -> None:
        """Accepts `n` answers and waits for their labels."""
        async with self.running():
            self.accept(text, tier=tier, n=n)
            await self.settle()


@pytest.fixture
def watching(tmp_path: Path) -> Watching:
    return Watching(tmp_path)


async def test_agreement_changes_nothing(watching: Watching) -> None:
    await watching.after("right", n=200)
    snapshot = watching.watch.snapshot()
    assert (snapshot.status, snapshot.level, snapshot.alarm) == ("ok", "normal", None)
    assert watching.counts() == WatchCounts(accepted=200, shadowed=200, compared=200)


async def test_losses_warn_before_they_raise_the_alarm(watching: Watching) -> None:
    await watching.after("wrong", n=LOSSES_TO_WARN - 1)
    assert watching.watch.snapshot().status == "ok"
    await watching.after("wrong")
    snapshot = watching.watch.snapshot()
    assert (snapshot.status, snapshot.level) == ("warning", "normal")
    assert snapshot.reasons[0].startswith("all tiers: e-value")
    await watching.after("wrong", n=LOSSES_TO_ALARM - LOSSES_TO_WARN - 1)
    assert watching.watch.snapshot().level == "normal"
    await watching.after("wrong")
    assert watching.watch.snapshot().level == "escalate"


async def test_without_a_stricter_policy_an_alarm_escalates_everything(watching: Watching) -> None:
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    snapshot = watching.watch.snapshot()
    assert (snapshot.status, snapshot.level) == ("alarm", "escalate")
    assert snapshot.alarm is not None
    assert snapshot.alarm.reason == (
        "all tiers: 8 losses in 8 labels, budget 0.04, under the normal policy"
    )
    assert snapshot.alarm.e_value == pytest.approx(2000.0)
    assert snapshot.monitors[0].is_alarm
    assert watching.counts() == WatchCounts(accepted=8, shadowed=8, compared=8, disagreed=8)


async def test_an_alarm_goes_to_the_stricter_policy_first(tmp_path: Path) -> None:
    watching = Watching(tmp_path, strict=STRICT)
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    snapshot = watching.watch.snapshot()
    assert (snapshot.status, snapshot.level) == ("alarm", "strict")
    # Its e-process starts from nothing, with its own horizon of 25,000 labels.
    assert [(monitor.labels, monitor.budget) for monitor in snapshot.monitors] == [(0, 0.04)]
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    assert watching.watch.level == "escalate"


async def test_good_news_never_relaxes_the_level(tmp_path: Path) -> None:
    watching = Watching(tmp_path, strict=STRICT)
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    await watching.after("right", n=500)
    assert watching.watch.level == "strict"
    assert watching.watch.snapshot().status == "alarm"


async def test_a_verdict_on_the_policy_that_was_left_is_stale(tmp_path: Path) -> None:
    gate = asyncio.Event()
    watching = Watching(tmp_path, strict=STRICT, engine=FakeEngine("right", gate=gate))
    async with watching.running():
        watching.accept("wrong", n=LOSSES_TO_ALARM + 2)
        await watching.engine.is_waiting.wait()
        gate.set()
        await watching.settle()
    counts = watching.counts()
    assert (counts.compared, counts.stale) == (LOSSES_TO_ALARM + 2, 2)
    assert [monitor.labels for monitor in watching.watch.snapshot().monitors] == [0]


async def test_nothing_is_shadowed_while_everything_escalates(watching: Watching) -> None:
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    watching.accept("wrong", n=5)
    assert watching.counts().accepted == LOSSES_TO_ALARM


async def test_an_answer_without_a_score_is_not_watched(watching: Watching) -> None:
    completion = scripted_answer("wrong")
    watching.watch.accepted(chat_request("q"), "small", completion, Assessment(score=None))
    watching.watch.accepted(chat_request("q"), "giant", completion, SURE)
    assert watching.counts() == WatchCounts()


async def test_only_a_person_lifts_an_alarm(watching: Watching) -> None:
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    watching.watch.acknowledge(by="Ada")
    snapshot = watching.watch.snapshot()
    assert (snapshot.status, snapshot.level, snapshot.n_acknowledged) == ("ok", "normal", 1)
    assert [monitor.labels for monitor in snapshot.monitors] == [0]
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    assert watching.watch.level == "escalate"


async def test_the_state_survives_a_restart(watching: Watching, tmp_path: Path) -> None:
    await watching.after("wrong", n=LOSSES_TO_ALARM - 1)
    again = Watching(tmp_path)
    assert again.watch.snapshot().monitors == watching.watch.snapshot().monitors
    assert again.counts() == watching.counts()
    await again.after("wrong")
    assert again.watch.level == "escalate"
    third = Watching(tmp_path)
    assert third.watch.level == "escalate"
    assert third.watch.snapshot().alarm == again.watch.snapshot().alarm


async def test_a_standing_alarm_outlives_changed_settings(tmp_path: Path) -> None:
    await Watching(tmp_path, strict=STRICT).after("wrong", n=LOSSES_TO_ALARM)
    changed = WatchSettings(shadow=ALL_DRAWN, delta=0.01)
    assert Watching(tmp_path, strict=STRICT, settings=changed).watch.level == "strict"
    # The stricter policy is gone from the configuration: then nothing below the last tier.
    assert Watching(tmp_path, settings=changed).watch.level == "escalate"


async def test_another_certificate_starts_afresh_and_says_so(tmp_path: Path) -> None:
    await Watching(tmp_path).after("wrong", n=LOSSES_TO_ALARM)
    snapshot = Watching(tmp_path, fingerprint="f2").watch.snapshot()
    assert (snapshot.level, snapshot.status) == ("normal", "ok")
    assert "started afresh" in snapshot.state_notes[0]


async def test_a_broken_state_escalates_until_a_person_has_looked(tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text("{")
    watching = Watching(tmp_path)
    snapshot = watching.watch.snapshot()
    assert (snapshot.level, snapshot.status) == ("escalate", "alarm")
    assert "cannot be read" in snapshot.reasons[0]
    watching.watch.acknowledge(by="Ada")
    assert watching.watch.level == "normal"


def test_a_folder_that_is_not_there_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Watching(tmp_path / "nowhere")


async def test_an_alarm_is_written_at_once(tmp_path: Path) -> None:
    settings = WatchSettings(shadow=ALL_DRAWN, save_interval_s=3600.0)
    watching = Watching(tmp_path, settings=settings)
    async with watching.running():
        watching.accept("wrong", n=LOSSES_TO_ALARM)
        await until(lambda: watching.written.level == "escalate")


async def test_the_state_is_written_every_so_often(tmp_path: Path) -> None:
    settings = WatchSettings(shadow=ALL_DRAWN, save_interval_s=0.01)
    watching = Watching(tmp_path, settings=settings)
    async with watching.running():
        watching.accept("right", n=3)
        await until(lambda: "small" in watching.written.counts)
        assert watching.written.counts["small"].accepted == 3


async def test_a_state_that_cannot_be_written_any_more_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    watching = Watching(folder)
    watching.path.unlink()
    folder.rmdir()
    await watching.after("right")
    assert "cannot be written" in watching.watch.snapshot().state_notes[0]
    folder.mkdir()
    await watching.after("right")
    assert watching.watch.snapshot().state_notes == ()


async def test_each_tier_and_all_of_them_are_watched_with_a_share_of_delta(tmp_path: Path) -> None:
    watching = Watching(tmp_path, policy=TWO_TIERS)
    await watching.after("right", tier="medium", n=2)
    monitors = {monitor.name: monitor for monitor in watching.watch.snapshot().monitors}
    assert {name: m.labels for name, m in monitors.items()} == {
        ALL_TIERS: 2,
        "small": 0,
        "medium": 2,
    }
    assert {name: m.budget for name, m in monitors.items()} == pytest.approx(
        {ALL_TIERS: 0.04, "small": 0.08, "medium": 0.08}
    )
    assert all(m.alarm_at == pytest.approx(3 / 0.0005) for m in monitors.values())


def test_a_tier_that_only_the_stricter_policy_accepts_is_watched(tmp_path: Path) -> None:
    watching = Watching(tmp_path, policy=NORMAL, strict=TWO_TIERS)
    assert [tier.tier for tier in watching.watch.snapshot().tiers] == ["small", "medium"]


async def test_a_budget_that_cannot_be_overspent_has_no_e_process(tmp_path: Path) -> None:
    rare = WatchedPolicy(epsilon=0.02, acceptance=(("small", 0.01), ("medium", 0.4)))
    watching = Watching(tmp_path, policy=rare)
    await watching.after("wrong", tier="small")
    assert [m.name for m in watching.watch.snapshot().monitors] == [ALL_TIERS, "medium"]


async def test_what_gives_no_label_is_no_loss_and_too_much_of_it_warns(tmp_path: Path) -> None:
    watching = Watching(tmp_path, settings=WatchSettings(shadow=ShadowSettings(share=1.0)))
    watching.accept("wrong", n=100)  # nobody runs it: 32 wait, the others are dropped
    assert watching.counts() == WatchCounts(accepted=100, shadowed=100, dropped=68)
    snapshot = watching.watch.snapshot()
    assert snapshot.status == "warning"
    assert snapshot.reasons == ("tier small: 68 of 100 drawn answers gave no label",)
    assert [monitor.labels for monitor in snapshot.monitors] == [0]


async def test_the_snapshot_is_json(watching: Watching) -> None:
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    shown = json.loads(json.dumps(asdict(watching.watch.snapshot()), allow_nan=False))
    assert (shown["adwin"], shown["tiers"][0]["score_warnings"]) == ("not installed", None)
    assert shown["shadow_completion_tokens"] > 0


class FakeAdwin:
    """Detects a change in the third value it gets."""

    def __init__(self, *, delta: float) -> None:
        self.delta = delta
        self.values: list[float] = []
        self.drift_detected = False

    def update(self, value: float) -> None:
        self.values.append(value)
        self.drift_detected = len(self.values) == 3


@pytest.fixture
def with_fake_river(without_river: None, monkeypatch: pytest.MonkeyPatch) -> None:
    drift = ModuleType("river.drift")
    drift.ADWIN = FakeAdwin  # type: ignore[attr-defined]  # a stand-in for the library
    monkeypatch.setitem(sys.modules, "river", ModuleType("river"))
    monkeypatch.setitem(sys.modules, "river.drift", drift)


@pytest.mark.usefixtures("with_fake_river")
async def test_adwin_warns_for_a_day_and_changes_no_level(tmp_path: Path) -> None:
    watching = Watching(tmp_path)
    for _ in range(3):
        watching.watch.judged("small", SURE, is_accepted=True)
    watching.watch.judged("giant", SURE, is_accepted=True)  # the last tier is not watched
    snapshot = watching.watch.snapshot()
    assert (snapshot.adwin, snapshot.status, snapshot.level) == ("on", "warning", "normal")
    assert snapshot.reasons == ("tier small: scores or accept rate have changed",)
    assert (snapshot.tiers[0].score_warnings, snapshot.tiers[0].accept_warnings) == (1, 1)
    watching.clock.advance(86_400.0)
    assert watching.watch.snapshot().status == "ok"


@pytest.mark.usefixtures("with_fake_river")
def test_adwin_gets_values_between_0_and_1() -> None:
    drift = InputDrift(delta=0.01)
    drift.update(Assessment(score=-1.0), is_accepted=False)  # exp(-1) = .367879
    drift.update(Assessment(score=-1.0, confidence=0.75), is_accepted=True)
    drift.update(Assessment(score=None), is_accepted=False)
    drift.update(Assessment(score=3.0), is_accepted=True)
    scores, accepts = drift._scores, drift._accepts
    assert isinstance(scores, FakeAdwin)
    assert isinstance(accepts, FakeAdwin)
    assert scores.delta == 0.01
    assert scores.values == pytest.approx([0.367879, 0.75, 1.0], abs=1e-6)
    assert accepts.values == [0.0, 1.0, 0.0, 1.0]


def test_without_river_nothing_warns_and_it_is_said() -> None:
    drift = InputDrift()
    assert not drift.is_installed
    assert not any(drift.update(SURE, is_accepted=True) for _ in range(10))


def test_a_policy_that_accepts_nothing_needs_no_watch() -> None:
    with pytest.raises(ValueError, match="needs no watch"):
        WatchedPolicy(epsilon=0.02, acceptance=())


def test_rivers_adwin_sees_scores_that_shift(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real library, where it is installed (extra `drift`)."""
    monkeypatch.undo()  # takes back `without_river`
    pytest.importorskip("river")
    drift, draw = InputDrift(), random.Random(0)

    def n_warnings(mean: float, n: int) -> int:
        for _ in range(n):
            sure = Assessment(score=-1.0, confidence=min(1.0, draw.random() * 2 * mean))
            drift.update(sure, is_accepted=True)
        return drift.n_score_warnings

    assert n_warnings(0.45, 1000) == 0
    assert n_warnings(0.25, 300) >= 1
    assert drift.n_accept_warnings == 0


async def test_a_watch_that_cannot_raise_an_alarm_says_so_and_shadows_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blind = WatchedPolicy(epsilon=0.56, acceptance=(("small", 0.5),))
    watching = Watching(tmp_path, policy=blind)
    assert "cannot show a loss" in caplog.text
    await watching.after("wrong", n=20)
    assert watching.counts() == WatchCounts(accepted=20)
    told = watching.watch.snapshot()
    assert (told.status, told.monitors) == ("warning", ())
    assert "cannot show a loss" in told.reasons[0]


async def test_a_stricter_policy_that_can_be_watched_only_blindly_is_told_when_it_serves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    blind = WatchedPolicy(epsilon=0.5, acceptance=(("small", 0.25),))
    watching = Watching(tmp_path, strict=blind)
    assert "cannot show a loss" not in caplog.text
    await watching.after("wrong", n=LOSSES_TO_ALARM)
    assert watching.watch.level == "strict"
    assert "cannot show a loss" in caplog.text
    assert "cannot show a loss" in watching.watch.snapshot().reasons[1]
