"""Fill in the joules of collected attempts, which their server settles after it has answered.

    all asked |-- look -- look -- look --| every attempt has its record, or no new one came for
                                           PATIENCE_S: the file of attempts is written anew

A response has no joules: a request is settled once those that ran at the same time have ended. Its
server then writes what it cost to its record file, under the request's id. Joules without a record
stay null, with the reason.
"""

from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from msgspec.structs import replace

from eval.recorded.attempts import AttemptsFile, RecordedAttempt
from eval.recorded.record_files import RecordFiles, SettledLine
from hybridserve_llm.interfaces import Clock

LOOK_INTERVAL_S = 1.0
PATIENCE_S = 130.0
"""Servers wait up to `energy.settle_within_s` for other running requests, 120 s by default."""

NO_ID = "the answer named no x-request-id to find its record by"
NO_RECORD = f"no record of its joules came within {PATIENCE_S:g} s of the last one"

Sleep = Callable[[float], Awaitable[None]]


class AttemptJoules:
    """Fill in the joules of the attempts in a file."""

    def __init__(self, records: Path, file: AttemptsFile, *, clock: Clock, sleep: Sleep) -> None:
        """Take as `records` the record file of the server that answers."""
        self._records = RecordFiles(records)
        self._file = file
        self._clock = clock
        self._sleep = sleep
        self._found: dict[str, SettledLine] = {}

    def look(self) -> bool:
        """Read what was added to the records; return True where some of it is of an attempt here.

        Raises:
            ConfigError: The records cannot be read.
        """
        wanted = {attempt.request_id for attempt in self._unsettled()} - self._found.keys()
        added = self._records.added()
        found = {line.request_id: line for line in added if line.request_id in wanted}
        self._found |= found
        return bool(found)

    async def fill(self, note: Callable[[str], None]) -> None:
        """Wait for the joules of all attempts, and write them into their file.

        Attempts of earlier runs too; those that were waited for in vain before get theirs where
        the records have them by now. `note` hears what is waited for and what is missing.

        Raises:
            ConfigError: The records cannot be read.
            CannotBeDone: The file of attempts cannot be written; it is as it was.
        """
        self.look()
        await self._wait(note)
        changed = [self._settled(attempt) for attempt in self._unsettled()]
        self._file.change(changed)
        unknown = [attempt for attempt in self._answers() if attempt.energy_j is None]
        if unknown:
            n_all = sum(1 for _ in self._answers())
            note(
                f"warning: {len(unknown)} of {n_all} answers have no joules; of the first: "
                f"{unknown[0].energy_reason}"
            )

    async def _wait(self, note: Callable[[str], None]) -> None:
        last_s = self._clock.monotonic_s()
        if n_awaited := self._n_awaited():
            note(f"waiting for the records of {n_awaited} answers, to read their joules")
        while self._n_awaited() and self._clock.monotonic_s() - last_s < PATIENCE_S:
            await self._sleep(LOOK_INTERVAL_S)
            if self.look():
                last_s = self._clock.monotonic_s()

    def _n_awaited(self) -> int:
        """Count the attempts that may still get a record: with an id, and not given up."""
        return sum(
            attempt.request_id is not None
            and attempt.request_id not in self._found
            and attempt.energy_reason is None
            for attempt in self._unsettled()
        )

    def _answers(self) -> Iterator[RecordedAttempt]:
        for by_tier in self._file.attempts.by_question.values():
            yield from (attempt for attempt in by_tier.values() if not attempt.has_failed)

    def _unsettled(self) -> Iterator[RecordedAttempt]:
        """Yield answers of which no server has said what they cost; with a source one has."""
        return (
            one for one in self._answers() if one.energy_j is None and one.energy_source is None
        )

    def _settled(self, attempt: RecordedAttempt) -> RecordedAttempt:
        if attempt.request_id is None:
            return replace(attempt, energy_reason=NO_ID)
        line = self._found.get(attempt.request_id)
        if line is None:
            return replace(attempt, energy_reason=NO_RECORD)
        return replace(
            attempt,
            energy_j=line.active_j,
            energy_source=line.source,
            energy_reason=line.reason if line.active_j is None else None,
        )
