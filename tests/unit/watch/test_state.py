"""The state file: it reads back exactly, is replaced whole, and when refused says so."""

import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.watch.eprocess import SelectiveEProcess
from hybridserve_llm.watch.sampler import Traffic
from hybridserve_llm.watch.settings import Level
from hybridserve_llm.watch.snapshot import Alarm, WatchCounts
from hybridserve_llm.watch.state import (
    WatchState,
    WatchStateFile,
    acknowledge,
    check_fingerprint,
    load_state,
    open_state,
)

ALARM = Alarm(reason="small: 9 losses in 20 labels", at_s=1.5, monitor="small", e_value=2000.0)


def some_state(level: Level = "normal", **fields: Any) -> WatchState:
    process = SelectiveEProcess(budget=0.04, delta=0.01, horizon=200.0)
    process.update(1.0)
    values: dict[str, Any] = {
        "fingerprint": "f1",
        "level": level,
        "alarm": None if level == "normal" else ALARM,
        "monitors": {"small": process.state},
        "counts": {"small": WatchCounts(accepted=9, shadowed=3, compared=1, disagreed=1)},
        "traffic": Traffic(n_accepted=9, n_recent=8.123456789, at_s=1_700_000_000.25),
        "n_acknowledged": 2,
    }
    return WatchState(**(values | fields))


def written(path: Path, state: WatchState) -> None:
    WatchStateFile(path).write(state, serial=1)


@pytest.mark.parametrize("level", get_args(Level))
def test_a_state_reads_back_as_the_same(tmp_path: Path, level: Level) -> None:
    path, state = tmp_path / "watch.json", some_state(level)
    written(path, state)
    assert load_state(path) == state
    assert [file.name for file in tmp_path.iterdir()] == ["watch.json"]


FINITE = st.floats(0, allow_nan=False, allow_infinity=False)


@given(
    st.builds(Traffic, n_accepted=st.integers(0), n_recent=FINITE, at_s=FINITE),
    st.builds(WatchCounts, accepted=st.integers(0), stale=st.integers(0)),
    st.builds(Alarm, reason=st.text(), at_s=FINITE, monitor=st.none() | st.text(), e_value=FINITE),
)
def test_json_keeps_every_value(traffic: Traffic, counts: WatchCounts, alarm: Alarm) -> None:
    state = some_state("escalate", traffic=traffic, counts={"small": counts}, alarm=alarm)
    assert WatchState.from_json(json.loads(json.dumps(state.to_json()))) == state


def test_an_older_write_never_replaces_a_newer_one(tmp_path: Path) -> None:
    file = WatchStateFile(tmp_path / "watch.json")
    file.write(some_state("escalate"), serial=2)
    file.write(some_state(), serial=1)
    kept = load_state(file.path)
    assert kept is not None
    assert kept.level == "escalate"


def test_without_a_file_the_start_is_fresh_and_the_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "watch.json"
    assert load_state(path) is None
    assert open_state(path, "f1", now_s=0.0) == (WatchState(fingerprint="f1"), None)
    assert load_state(path) == WatchState(fingerprint="f1")


def test_the_same_fingerprint_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "watch.json"
    written(path, some_state("strict"))
    assert open_state(path, "f1", now_s=0.0) == (some_state("strict"), None)


def test_another_fingerprint_starts_afresh_says_so_and_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "watch.json"
    written(path, some_state("escalate"))
    with pytest.raises(ConfigError, match=r"belongs to fingerprint 'f1', not to .* 'f2'"):
        check_fingerprint(some_state(), "f2", path)
    state, note = open_state(path, "f2", now_s=0.0)
    assert state == WatchState(fingerprint="f2")
    assert note is not None
    assert note.endswith("started afresh")
    assert load_state(path) == state
    assert load_state(tmp_path / "watch.json.superseded") == some_state("escalate")


GOOD = some_state().to_json()
BROKEN = {
    "empty": "",
    "cut off": json.dumps(GOOD)[:-20],
    "not an object": "[1]",
    "another version": json.dumps(GOOD | {"version": 2}),
    "no such level": json.dumps(GOOD | {"level": "relaxed"}),
    "alarm without its level": json.dumps(
        GOOD | {"alarm": some_state("strict").to_json()["alarm"]}
    ),
    "level without its alarm": json.dumps(GOOD | {"level": "escalate"}),
    "key missing": json.dumps({key: GOOD[key] for key in GOOD if key != "monitors"}),
    "count that is none": json.dumps(GOOD | {"counts": {"small": {"accepted": "many"}}}),
    "unknown count": json.dumps(GOOD | {"counts": {"small": {"lost": 1}}}),
    "traffic that is none": json.dumps(GOOD | {"traffic": GOOD["traffic"] | {"n_recent": -1.0}}),
    "tiers as a list": json.dumps(GOOD | {"counts": ["small"]}),
}


@pytest.mark.parametrize("text", BROKEN.values(), ids=BROKEN)
def test_a_broken_file_is_refused_and_taken_for_a_standing_alarm(tmp_path: Path, text: str) -> None:
    path = tmp_path / "watch.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"watch\.json cannot be read .*acknowledge or delete"):
        load_state(path)
    state, note = open_state(path, "f1", now_s=7.0)
    assert (state.level, state.monitors, state.counts) == ("escalate", {}, {})
    assert state.alarm is not None
    assert (state.alarm.monitor, state.alarm.at_s) == (None, 7.0)
    assert note is not None
    # A second start finds the alarm again, though the broken file is out of the way.
    assert (tmp_path / "watch.json.broken").read_text() == text
    assert open_state(path, "f1", now_s=8.0) == (state, None)


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "watch.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UnicodeDecodeError"):
        load_state(path)


def test_a_path_that_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        open_state(tmp_path / "nowhere" / "watch.json", "f1", now_s=0.0)


def test_a_person_lifts_an_alarm_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "watch.json"
    written(path, some_state("escalate"))
    lifted = acknowledge(path)
    assert lifted == load_state(path)
    assert (lifted.level, lifted.alarm, lifted.monitors) == ("normal", None, {})
    assert lifted.n_acknowledged == 3
    assert lifted.counts == some_state().counts


def test_there_must_be_a_file_to_acknowledge(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no watch state .*watch\.json to acknowledge"):
        acknowledge(tmp_path / "watch.json")
