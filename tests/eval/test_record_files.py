"""A server's records, read while they grow and are moved on."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from eval.recorded.record_files import RecordFiles, SettledLine
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.telemetry.json_lines import JsonLinesSettings, JsonLinesSink
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest, Ledger


def line(request_id: str, **changes: object) -> str:
    values = {"kind": "energy", "time_s": 1.0, "request_id": request_id, "active_j": 2.0}
    return json.dumps(values | {"source": "nvml_energy", "reason": None} | changes) + "\n"


def ids(found: Iterator[SettledLine]) -> list[str]:
    return [one.request_id for one in found]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records.jsonl"


def test_what_a_server_writes_is_read(path: Path) -> None:
    settings = JsonLinesSettings(file=path, max_file_bytes=10**6, keep_files=2, queue_size=9)
    sink = JsonLinesSink(settings, clock=FakeClock())
    sink.requests_finished([FinishedRequest(Ledger(request_id="r1", attempts=()), 0.1, 1.7e9)])
    sink.request_settled(
        SettledEnergy(
            request_id="r1",
            booking="calibration",
            tier="small",
            component="gpu",
            active_j=None,
            loaded_j=None,
            source="unavailable",
            reason="no meter",
            edge_j=None,
            flags=(),
            tiers={"small": None},
            components={},
        )
    )
    sink.close()
    assert list(RecordFiles(path).added()) == [
        SettledLine(request_id="r1", active_j=None, source="unavailable", reason="no meter")
    ]


def test_a_line_is_told_once(path: Path) -> None:
    path.write_text(line("r1") + '{"kind": "request", "request_id": "r2"}\n')
    records = RecordFiles(path)
    assert ids(records.added()) == ["r1"]
    assert ids(records.added()) == []
    with path.open("a") as file:
        file.write(line("r2"))
    assert ids(records.added()) == ["r2"]


def test_a_file_that_was_moved_on_is_gone_on_with(path: Path) -> None:
    """The new file is as long as the old one was when it was read, and would be skipped by name."""
    path.write_text(line("r1"))
    records = RecordFiles(path)
    assert ids(records.added()) == ["r1"]
    with path.open("a") as file:
        file.write(line("r2"))
    path.rename(path.with_name("records.jsonl.1"))
    path.write_text(line("r3"))
    assert ids(records.added()) == ["r2", "r3"]
    path.with_name("records.jsonl.1").rename(path.with_name("records.jsonl.2"))
    path.rename(path.with_name("records.jsonl.1"))
    assert ids(records.added()) == []  # the server has not opened the next file yet
    path.write_text(line("r4"))
    assert ids(records.added()) == ["r4"]


def test_files_that_were_moved_on_before_are_read_oldest_first(path: Path) -> None:
    for i in range(3):
        name = f"records.jsonl.{2 - i}" if i < 2 else "records.jsonl"
        path.with_name(name).write_text(line(f"r{i}"))
    path.with_name("records.jsonl.4").write_text(line("of another time"))
    assert ids(RecordFiles(path).added()) == ["r0", "r1", "r2"]


def test_a_half_written_last_line_is_read_when_it_is_whole(path: Path) -> None:
    whole = line("r2")
    path.write_text(line("r1") + whole[:20])
    records = RecordFiles(path)
    assert ids(records.added()) == ["r1"]
    with path.open("a") as file:
        file.write(whole[20:])
    assert ids(records.added()) == ["r2"]


def test_a_half_written_first_line_is_no_fault(path: Path) -> None:
    path.write_text(line("r1")[:20])
    records = RecordFiles(path)
    assert ids(records.added()) == []
    path.write_text(line("r1"))
    assert ids(records.added()) == ["r1"]


def test_no_file_at_all_is_one_clear_error(path: Path) -> None:
    with pytest.raises(ConfigError, match=r"records\.jsonl is not there; name the server's rec"):
        list(RecordFiles(path).added())


def test_a_folder_cannot_be_read(path: Path) -> None:
    path.mkdir()
    with pytest.raises(ConfigError, match=r"cannot read .*records\.jsonl: Is a directory"):
        list(RecordFiles(path).added())


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ("no json\n", "invalid literal"),
        ("[]\n", "it is not an object with a kind"),
        ('{"kind": "energy"}\n', "request_id Field required"),
        (line("r2", active_j=-1.0), "active_j Input should be greater than or equal to 0"),
    ],
)
def test_a_malformed_line_is_named(path: Path, bad: str, words: str) -> None:
    path.write_text("")
    path.with_name("records.jsonl.1").write_text(line("r1") + bad + line("r3"))
    with pytest.raises(ConfigError, match=rf"records\.jsonl\.1, line 2 is no record .*{words}"):
        list(RecordFiles(path).added())
