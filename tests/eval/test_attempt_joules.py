"""Joules of attempts: waited for, filled in, given up, and filled in by a later run."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from eval.asking.attempt_joules import NO_ID, NO_RECORD, AttemptJoules
from eval.recorded.attempts import AttemptsHeader, RecordedAttempt, RecordedTier, read_attempts
from eval.recorded.attempts_file import AttemptsFile
from hybridserve_llm.testing import FakeClock

Make = Callable[..., RecordedAttempt]

HEADER = AttemptsHeader(
    created="2026-01-01T00:00:00+00:00",
    tiers=(
        RecordedTier(name="small", model="m-small", active_parameters=None),
        RecordedTier(name="big", model="m-big", active_parameters=None),
    ),
    fingerprint=None,
    sampling={},
    endpoints=("/v1/chat/completions",),
    data_sha256="d1",
    labels="reference",
    grader=None,
)


class Waiting:
    """Files of attempts and of records, and a wait in which `meanwhile` happens, second by second.

    `meanwhile` is by the number of whole seconds that have passed.
    """

    def __init__(self, folder: Path) -> None:
        self.attempts, self.records = folder / "attempts.jsonl", folder / "records.jsonl"
        self.records.touch()
        self.meanwhile: dict[int, Callable[[], None]] = {}
        self.n_seconds = 0
        self.said: list[str] = []

    def settle(self, request_id: str, active_j: float | None, **changes: object) -> None:
        """The server writes what a request cost."""
        values = {"kind": "energy", "request_id": request_id, "active_j": active_j}
        values |= {"source": "nvml_energy", "reason": None, **changes}
        with self.records.open("a") as file:
            file.write(json.dumps(values) + "\n")

    def record(self, *attempts: RecordedAttempt) -> None:
        with AttemptsFile(self.attempts, HEADER) as file:
            for attempt in attempts:
                file.add(attempt)

    async def fill(self) -> dict[tuple[str, str], RecordedAttempt]:
        """The attempts then, by question's id and tier."""
        clock = FakeClock()
        self.n_seconds, self.said = 0, []

        async def sleep(seconds: float) -> None:
            assert seconds == 1.0
            clock.advance(seconds)
            self.n_seconds += 1
            self.meanwhile.pop(self.n_seconds, lambda: None)()

        with AttemptsFile(self.attempts, HEADER) as file:
            await AttemptJoules(self.records, file, clock=clock, sleep=sleep).fill(self.said.append)
        found = read_attempts(self.attempts).by_question
        return {(q[1], tier): a for q, by_tier in found.items() for tier, a in by_tier.items()}


@pytest.fixture
def waiting(tmp_path: Path) -> Waiting:
    return Waiting(tmp_path)


async def test_joules_are_filled_in_as_their_records_come(
    waiting: Waiting, make_attempt: Make
) -> None:
    waiting.record(
        make_attempt("a", "small", request_id="r1"), make_attempt("a", "big", request_id="r2")
    )
    waiting.settle("r1", 1.5)
    waiting.settle("somebody else's", 9.0)
    waiting.meanwhile = {2: lambda: waiting.settle("r2", 20.0, source="rapl")}
    found = await waiting.fill()
    small, big = found["a", "small"], found["a", "big"]
    assert (small.energy_j, small.energy_source, small.energy_reason) == (1.5, "nvml_energy", None)
    assert (big.energy_j, big.energy_source, big.energy_reason) == (20.0, "rapl", None)
    assert (big.answer, big.latency_s) == ("yes", 0.1)  # what was there stays
    assert waiting.n_seconds == 2
    assert waiting.said == ["waiting for the records of 1 answers, to read their joules"]
    assert len(waiting.attempts.read_text().splitlines()) == 3  # header and two attempts


async def test_what_the_server_could_not_meter_is_null_with_its_reason(
    waiting: Waiting, make_attempt: Make
) -> None:
    waiting.record(make_attempt("a", "small", request_id="r1"))
    waiting.settle("r1", None, source="unavailable", reason="no meter")
    found = (await waiting.fill())["a", "small"]
    assert (found.energy_j, found.energy_source) == (None, "unavailable")
    assert found.energy_reason == "no meter"
    assert waiting.n_seconds == 0  # it is settled
    assert waiting.said == ["warning: 1 of 1 answers have no joules; of the first: no meter"]


async def test_the_wait_ends_130_s_after_the_last_new_record(
    waiting: Waiting, make_attempt: Make
) -> None:
    waiting.record(*(make_attempt(q, "small", request_id=f"r-{q}") for q in ("a", "b")))
    waiting.meanwhile = {100: lambda: waiting.settle("r-a", 1.0)}
    found = await waiting.fill()
    assert waiting.n_seconds == 100 + 130
    assert found["a", "small"].energy_j == 1.0
    assert (found["b", "small"].energy_j, found["b", "small"].energy_source) == (None, None)
    assert found["b", "small"].energy_reason == NO_RECORD
    assert waiting.said[-1] == (
        "warning: 1 of 2 answers have no joules; of the first: no record of its joules came within "
        "130 s of the last one"
    )


async def test_a_later_run_fills_in_what_came_too_late_and_does_not_wait_for_it(
    waiting: Waiting, make_attempt: Make
) -> None:
    waiting.record(*(make_attempt(q, "small", request_id=f"r-{q}") for q in ("a", "b")))
    await waiting.fill()
    waiting.settle("r-b", 3.0)
    found = await waiting.fill()
    assert waiting.n_seconds == 0
    assert found["a", "small"].energy_reason == NO_RECORD
    assert (found["b", "small"].energy_j, found["b", "small"].energy_reason) == (3.0, None)


async def test_an_attempt_without_an_id_is_not_waited_for(
    waiting: Waiting, make_attempt: Make
) -> None:
    waiting.record(make_attempt("a", "small"))
    found = await waiting.fill()
    assert found["a", "small"].energy_reason == NO_ID
    assert waiting.n_seconds == 0


async def test_failed_attempts_and_those_with_joules_are_left_alone(
    waiting: Waiting, make_attempt: Make
) -> None:
    failed = make_attempt("a", "small", answer=None, correct=None, reason="HTTP 400")
    told = make_attempt("b", "small", energy_j=7.0, energy_source="meter", request_id="r1")
    waiting.record(failed, told)
    waiting.settle("r1", 9.0)
    before = waiting.attempts.read_bytes()
    assert await waiting.fill() == {("a", "small"): failed, ("b", "small"): told}
    assert (waiting.n_seconds, waiting.said) == (0, [])
    assert waiting.attempts.read_bytes() == before
