"""Files of attempts: written, read, torn, gone on with, and refused."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eval.recorded.attempts import AttemptsHeader, RecordedAttempt, RecordedTier, read_attempts
from eval.recorded.attempts_file import AttemptsFile
from hybridserve_llm.errors import CannotBeDone, ConfigError

Make = Callable[..., RecordedAttempt]

HEADER = AttemptsHeader(
    created="2026-01-01T00:00:00+00:00",
    tiers=(
        RecordedTier(name="small", model="m-small", active_parameters=1_000_000_000),
        RecordedTier(name="big", model="m-big", active_parameters=None),
    ),
    fingerprint={"hash": "f1", "parts": {"models": "a", "scorer": "s"}},
    sampling={"temperature": 0},
    endpoints=("/v1/chat/completions",),
    data_sha256="d1",
    labels="reference",
    grader={"type": "exact"},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "attempts.jsonl"


def written(path: Path, *attempts: RecordedAttempt, header: AttemptsHeader = HEADER) -> Path:
    with AttemptsFile(path, header) as file:
        for attempt in attempts:
            file.add(attempt)
    return path


def test_what_is_written_is_read(path: Path, make_attempt: Make) -> None:
    one = make_attempt("q1", "small", split="test", group="user", energy_j=0.5)
    other = make_attempt("q1", "big", split="test", features=None, reason="the answer is empty")
    found = read_attempts(written(path, one, other))
    assert found.header == HEADER
    assert found.by_question == {("test", "q1"): {"small": one, "big": other}}


def test_the_header_is_the_first_line(path: Path, make_attempt: Make) -> None:
    written(path, make_attempt("q1", "small"))
    first, second = map(json.loads, path.read_text().splitlines())
    assert first["schema"] == "hybridserve-attempts/1"
    assert first["tiers"][1] == {"name": "big", "model": "m-big", "active_parameters": None}
    assert (second["query_id"], second["tier"], second["correct"]) == ("q1", "small", True)


def test_attempts_are_on_disk_before_the_file_is_closed(path: Path, make_attempt: Make) -> None:
    with AttemptsFile(path, HEADER) as file:
        file.add(make_attempt("q1", "small"))
        assert read_attempts(path).has_answer((None, "q1"), "small")


def test_a_file_is_gone_on_with(path: Path, make_attempt: Make) -> None:
    one, other = make_attempt("q1", "small"), make_attempt("q2", "small")
    written(path, one)
    with AttemptsFile(path, replace(HEADER, created="later")) as file:
        assert file.attempts.has_answer((None, "q1"), "small")
        assert not file.attempts.has_answer((None, "q2"), "small")
        file.add(other)
    found = read_attempts(path)
    assert found.header.created == HEADER.created
    assert list(found.by_question) == [(None, "q1"), (None, "q2")]


def test_a_torn_last_line_is_cut_off(path: Path, make_attempt: Make) -> None:
    one, other = make_attempt("q1", "small"), make_attempt("q2", "small")
    written(path, one, other)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    assert list(read_attempts(path).by_question) == [(None, "q1")]
    written(path, other)
    assert path.read_bytes() == whole


def test_a_line_without_its_newline_is_torn(path: Path, make_attempt: Make) -> None:
    written(path, make_attempt("q1", "small"))
    path.write_bytes(path.read_bytes()[:-1])
    assert read_attempts(path).by_question == {}
    written(path, make_attempt("q1", "small"))
    assert len(read_attempts(path).by_question) == 1


def test_a_failed_attempt_is_kept_and_may_be_made_again(path: Path, make_attempt: Make) -> None:
    failed = make_attempt("q1", "small", answer=None, correct=None, reason="HTTP 502: lost")
    written(path, failed, failed)
    found = read_attempts(path)
    assert found.by_question[None, "q1"]["small"] == failed
    assert not found.has_answer((None, "q1"), "small")
    again = make_attempt("q1", "small")
    written(path, again)
    assert read_attempts(path).by_question[None, "q1"]["small"] == again


def test_a_second_answer_is_refused(path: Path, make_attempt: Make) -> None:
    written(path, make_attempt("q1", "small"))
    line = path.read_bytes().splitlines(keepends=True)[1]
    path.write_bytes(path.read_bytes() + line)
    with pytest.raises(ConfigError, match="line 3: a second answer of tier 'small' to question"):
        read_attempts(path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_sha256": "d2"}, r"prompts \(data_sha256: 'd1' there, 'd2' now\)"),
        ({"labels": "agreement"}, r"labels \(labels: 'reference' there, 'agreement' now\)"),
        ({"grader": None}, r"grader \(grader: {'type': 'exact'} there, None now\)"),
        ({"sampling": {}}, r"sampling \(sampling: {'temperature': 0} there, {} now\)"),
        ({"tiers": HEADER.tiers[:1]}, r"tiers \(small=m-small, big=m-big there, small=m-small now"),
        (
            {"fingerprint": {"hash": "f2", "parts": {"models": "b", "scorer": "s"}}},
            r'fingerprint of the cascade \(models was "a", is "b"\)',
        ),
        (
            {"fingerprint": {"hash": "f2"}},
            r'fingerprint of the cascade \(models was "a", is null; scorer was "s"',
        ),
        (
            {"fingerprint": None},
            r'fingerprint of the cascade \(models was "a", is null; scorer was "s"',
        ),
    ],
)
def test_another_collections_file_is_refused(
    path: Path, make_attempt: Make, changes: dict[str, Any], words: str
) -> None:
    before = written(path, make_attempt("q1", "small")).read_bytes()
    with pytest.raises(ConfigError, match=f"was recorded with other {words}"):
        AttemptsFile(path, replace(HEADER, **changes))
    assert path.read_bytes() == before


def test_no_two_write_one_file(path: Path) -> None:
    refused = pytest.raises(ConfigError, match="is being written by another process")
    with AttemptsFile(path, HEADER), refused:
        AttemptsFile(path, HEADER)
    with AttemptsFile(path, HEADER):
        pass  # free again


def test_attempts_are_changed_by_a_file_written_anew_and_added_to_after(
    path: Path, make_attempt: Make
) -> None:
    failed = make_attempt("q1", "big", answer=None, correct=None, reason="HTTP 502: lost")
    small, big = make_attempt("q1", "small"), make_attempt("q1", "big")
    written(path, failed, small, big)
    path.chmod(0o640)
    told = replace(small, energy_j=1.5, energy_source="nvml_energy")
    with AttemptsFile(path, HEADER) as file:
        file.change([told])
        with pytest.raises(ConfigError, match="is being written by another process"):
            AttemptsFile(path, HEADER)
        file.add(make_attempt("q2", "small"))
    found = read_attempts(path)
    assert found.by_question[None, "q1"] == {"small": told, "big": big}
    assert found.has_answer((None, "q2"), "small")
    assert len(path.read_text().splitlines()) == 4  # the failed attempt was made again
    assert path.stat().st_mode & 0o777 == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_a_link_to_a_file_of_attempts_stays_one(path: Path, make_attempt: Make) -> None:
    link = path.with_name("link.jsonl")
    link.symlink_to(written(path, make_attempt("q1", "small")))
    with AttemptsFile(link, HEADER) as file:
        file.change([make_attempt("q1", "small", energy_j=1.5)])
    assert link.is_symlink()
    assert read_attempts(path).by_question[None, "q1"]["small"].energy_j == 1.5


def test_what_differs_nowhere_is_not_written(path: Path, make_attempt: Make) -> None:
    written(path, make_attempt("q1", "small"))
    inode = path.stat().st_ino
    with AttemptsFile(path, HEADER) as file:
        file.change([make_attempt("q1", "small")])
    assert path.stat().st_ino == inode


def test_a_change_that_cannot_be_written_leaves_the_file_as_it_was(
    path: Path, make_attempt: Make
) -> None:
    before = written(path, make_attempt("q1", "small")).read_bytes()
    path.with_name("attempts.jsonl.new").mkdir()
    with (
        AttemptsFile(path, HEADER) as file,
        pytest.raises(CannotBeDone, match=r"cannot write .*attempts\.jsonl\.new: Is a directory"),
    ):
        file.change([make_attempt("q1", "small", energy_j=1.5)])
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", ['{"prompt": "2 + 2?"}\n', "split,query_id\n", "x"])
def test_a_file_of_something_else_is_left_alone(path: Path, content: str) -> None:
    path.write_text(content)
    with pytest.raises(ConfigError, match="not a file of attempts: its first line has no schema"):
        AttemptsFile(path, HEADER)
    assert path.read_text() == content


def test_another_schema_is_named(path: Path) -> None:
    path.write_text('{"schema": "hybridserve-attempts/2"}\n')
    with pytest.raises(ConfigError, match="no schema 'hybridserve-attempts/1' but 'hybridserve-a"):
        read_attempts(path)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("correct", "yes", "line 2: correct = 'yes': Input should be a valid boolean"),
        ("score", 0.5, "line 2: score = 0.5: Input should be less than or equal to"),
        ("prompt_tokens", -1, "line 2: prompt_tokens = -1"),
        ("features", {"mean_logprob": "x"}, "line 2: features.mean_logprob = 'x'"),
        ("surprise", 1, "line 2: surprise = 1"),
        ("tier", "giant", "line 2: tier 'giant' is not in the header"),
    ],
)
def test_lines_that_are_no_attempt(
    path: Path, make_attempt: Make, key: str, value: object, words: str
) -> None:
    written(path, make_attempt("q1", "small"))
    header, line = path.read_text().splitlines()
    path.write_text(header + "\n" + json.dumps(json.loads(line) | {key: value}) + "\n")
    with pytest.raises(ConfigError, match=words):
        read_attempts(path)


def test_a_line_that_is_not_json(path: Path, make_attempt: Make) -> None:
    written(path, make_attempt("q1", "small"))
    path.write_text(path.read_text() + "{\n")
    with pytest.raises(ConfigError, match="line 3: Invalid JSON"):
        read_attempts(path)


def test_a_header_that_lacks_something(path: Path) -> None:
    path.write_text('{"schema": "hybridserve-attempts/1"}\n')
    with pytest.raises(ConfigError, match="line 1: created"):
        read_attempts(path)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot read .*: No such file"):
        read_attempts(tmp_path / "none.jsonl")
    with pytest.raises(ConfigError, match=r"cannot write .*: No such file"):
        AttemptsFile(tmp_path / "none/attempts.jsonl", HEADER)
