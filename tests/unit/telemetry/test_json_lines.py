"""The record sink: what a line says, rotation, and what happens when the disk is too slow."""

import json
import logging
import resource
import threading
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from hybridserve_llm.telemetry import json_lines
from hybridserve_llm.telemetry.journal import tell_settled
from hybridserve_llm.telemetry.json_lines import DroppedRecords, JsonLinesSettings, JsonLinesSink
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.joules import ComponentEnergy, SettledEnergy
from hybridserve_llm.values.ledger import Attempt, FinishedRequest, Ledger, Verdict

ATTEMPT = Attempt(tier="small", model="tiny", decision=Verdict.ACCEPT, reason="sure")
LEDGER = Ledger(request_id="r1", attempts=(ATTEMPT,), tier="small", model="tiny")
ENERGY = SettledEnergy(
    request_id="r1",
    booking="user",
    tier="small",
    component="gpu",
    active_j=3.5,
    loaded_j=None,
    source="nvml_energy",
    reason=None,
    edge_j=0.5,
    flags=("estimated",),
    tiers={"small": 3.5},
    components={"gpu": ComponentEnergy(energy_j=3.5, source="nvml_energy")},
)


def sink_at(file: Path, **settings: int) -> JsonLinesSink:
    values = {"max_file_bytes": 1_000_000, "keep_files": 2, "queue_size": 100, **settings}
    return JsonLinesSink(JsonLinesSettings(file=file, **values), clock=FakeClock())


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_a_request_and_what_it_cost_are_two_lines_joined_by_its_id(tmp_path: Path) -> None:
    sink = sink_at(tmp_path / "records.jsonl")
    sink.requests_finished([FinishedRequest(LEDGER, 0.25, 1.7e9)])
    sink.request_settled(ENERGY)
    sink.close()
    request, energy = lines_of(tmp_path / "records.jsonl")
    assert list(request)[:4] == ["kind", "time_s", "request_id", "latency_s"]
    assert (request["kind"], request["time_s"], request["latency_s"]) == ("request", 1.7e9, 0.25)
    assert request["attempts"][0]["decision"] == "accept"
    assert request["attempts"][0]["energy_j"] is None
    assert (energy["kind"], energy["request_id"]) == ("energy", "r1")
    assert (energy["active_j"], energy["loaded_j"]) == (3.5, None)
    assert energy["components"]["gpu"]["source"] == "nvml_energy"


def test_what_is_there_is_appended_to(tmp_path: Path) -> None:
    for _ in range(2):
        sink = sink_at(tmp_path / "records.jsonl")
        sink.request_settled(ENERGY)
        sink.close()
    assert len(lines_of(tmp_path / "records.jsonl")) == 2


def test_full_files_are_moved_on_and_the_oldest_is_lost(tmp_path: Path) -> None:
    file = tmp_path / "records.jsonl"
    sink = sink_at(file, max_file_bytes=1)
    for i in range(5):
        sink.requests_finished(
            [FinishedRequest(Ledger(request_id=f"r{i}", attempts=()), 0.1, 1.7e9)]
        )
    sink.close()
    ids = {path.name: [one["request_id"] for one in lines_of(path)] for path in tmp_path.iterdir()}
    assert ids == {"records.jsonl": ["r4"], "records.jsonl.1": ["r3"], "records.jsonl.2": ["r2"]}
    assert sink.n_dropped == 0


class SlowDisk:
    """Lets nothing be written until it is told to."""

    def __init__(self, sink: JsonLinesSink, monkeypatch: pytest.MonkeyPatch) -> None:
        self.go_on, self.is_waiting = threading.Event(), threading.Event()
        write: Callable[..., None] = sink._write

        def slow(lines: list[bytes]) -> None:
            self.is_waiting.set()
            self.go_on.wait(5)
            write(lines)

        monkeypatch.setattr(sink, "_write", slow)


def test_a_full_queue_drops_and_counts_and_never_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_at(tmp_path / "records.jsonl", queue_size=2)
    disk = SlowDisk(sink, monkeypatch)
    sink.request_settled(ENERGY)
    assert disk.is_waiting.wait(5)
    for _ in range(5):  # two wait, three are dropped
        sink.request_settled(ENERGY)
    assert sink.n_dropped == 3
    registry = CollectorRegistry()
    registry.register(DroppedRecords(lambda: sink.n_dropped))
    assert registry.get_sample_value("hybridserve_records_dropped_total") == 3
    disk.go_on.set()
    sink.close()
    assert len(lines_of(tmp_path / "records.jsonl")) == 3


def wait_until(is_so: Callable[[], bool]) -> None:
    """Waits for the writer's thread, which looks ten times a second."""
    end_s = time.monotonic() + 5
    while not is_so():
        assert time.monotonic() < end_s
        time.sleep(0.01)


@pytest.fixture
def told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> pytest.LogCaptureFixture:
    """What the sink logs."""
    # Import Linter, which another test calls, configures logging and switches our loggers off.
    monkeypatch.setattr(json_lines.log, "disabled", False)
    caplog.set_level(logging.ERROR)
    return caplog


def test_a_full_disk_is_told_once_and_every_record_counted_until_there_is_room(
    tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "records.jsonl"
    file.symlink_to("/dev/full")  # every write to it fails for want of space
    sink = sink_at(file)
    for n in (3, 5):  # two pieces, the second after the first has failed
        for _ in range(n - sink.n_dropped):
            sink.request_settled(ENERGY)
        wait_until(lambda n=n: sink.n_dropped == n)  # type: ignore[misc]
    assert len(told.messages) == 1
    assert "No space left on device" in told.messages[0]
    file.unlink()
    sink.requests_finished([FinishedRequest(LEDGER, 0.25, 1.7e9)])
    sink.close()
    assert [line["kind"] for line in lines_of(file)] == ["request"]
    assert sink.n_dropped == 5


def test_what_was_written_of_a_refused_piece_is_cut_off_again(
    tmp_path: Path, told: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "records.jsonl"
    sink = sink_at(file)
    sink.requests_finished([FinishedRequest(LEDGER, 0.25, 1.7e9)])
    wait_until(lambda: file.stat().st_size > 0)
    size_bytes = file.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Room for half a line more: the first write takes that half, the second fails.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes * 3 // 2, hard))
    try:
        for _ in range(3):
            sink.requests_finished([FinishedRequest(LEDGER, 0.5, 1.7e9)])
        wait_until(lambda: sink.n_dropped == 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    sink.requests_finished([FinishedRequest(LEDGER, 0.75, 1.7e9)])
    sink.close()
    assert [line["latency_s"] for line in lines_of(file)] == [0.25, 0.75]
    assert sink.n_dropped == 3
    assert len(told.messages) >= 1


def test_a_file_that_cannot_be_opened_costs_none_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "records.jsonl"
    for name in ("r1", "r2"):  # r1 comes to .1
        sink = sink_at(file, max_file_bytes=1)
        sink.requests_finished([FinishedRequest(Ledger(request_id=name, attempts=()), 0.1, 1.7e9)])
        sink.close()
    sink = sink_at(file, max_file_bytes=1)

    def refuse() -> FileIO:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(sink, "_open", refuse)
        for n in range(1, 6):  # one piece each
            sink.request_settled(ENERGY)
            wait_until(lambda n=n: sink.n_dropped == n)  # type: ignore[misc]
    sink.requests_finished([FinishedRequest(Ledger(request_id="r3", attempts=()), 0.1, 1.7e9)])
    sink.close()
    ids = {path.name: [one["request_id"] for one in lines_of(path)] for path in tmp_path.iterdir()}
    assert ids == {"records.jsonl": ["r3"], "records.jsonl.1": ["r2"], "records.jsonl.2": ["r1"]}
    assert len(told.messages) == 1


def test_counters_and_records_are_both_told_what_a_request_cost(tmp_path: Path) -> None:
    metrics, lines = Metrics(CollectorRegistry()), sink_at(tmp_path / "records.jsonl")
    tell_settled((metrics, lines), ENERGY)
    lines.close()
    value = metrics.registry.get_sample_value
    assert value("hybridserve_request_energy_joules_sum", {"tier": "small"}) == 3.5
    assert [line["kind"] for line in lines_of(tmp_path / "records.jsonl")] == ["energy"]
