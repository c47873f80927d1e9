"""What the books have to know of requests: kept where requests are served, told in batches.

    event loop    observe(work) … the replica set fills in its end … the request is finished
    later         take() ──> Notes ──> `NotedWork.enter`: into the books, in this process or another

A request waits for an append and no more. Notes are the very objects that the event loop had, told
as they stand, all at once: nothing is made for them while requests are served (decision 018).
"""

from collections.abc import Iterable
from typing import NamedTuple

from hybridserve_llm.energy.attribution import Booking, Stint
from hybridserve_llm.energy.books import EnergyBooks
from hybridserve_llm.values.answers import Usage
from hybridserve_llm.values.engines import Work


class Notes(NamedTuple):
    """What replicas did since the last time.

    Attributes:
        begun: Work that began; most of it has ended already.
        ended: Work that began earlier, was told of while it went on, and has ended now.
    """

    begun: list[Work]
    ended: list[Work]


class WorkNotes:
    """An `interfaces.WorkObserver` that only keeps what it is told, until it is taken."""

    def __init__(self) -> None:
        self._begun: list[Work] = []
        self._running: list[Work] = []

    def observe(self, work: Work) -> None:
        """Work begins; whoever does it fills in its end."""
        self._begun.append(work)

    def take(self) -> Notes:
        """What happened since the last time."""
        begun, self._begun = self._begun, []
        ended = [work for work in self._running if work.end_s is not None]
        self._running = [work for work in (*self._running, *begun) if work.end_s is None]
        return Notes(begun, ended)


class NotedWork:
    """Enters notes into the books, as if they had been told at the time."""

    def __init__(self, books: EnergyBooks) -> None:
        self._books = books
        self._running: dict[tuple[str, int], Stint] = {}

    def enter(self, notes: Notes, finished: Iterable[tuple[str, str | None]]) -> None:
        """Enters what happened; `finished` are requests with the tier that answered, or None.

        An end whose beginning never came (those notes were lost) is left out.
        """
        for work in notes.ended:
            stint = self._running.pop(_key(work), None)
            if stint is not None:
                self._end(stint, work)
        for work in notes.begun:
            self._begin(work)
        for request_id, tier in finished:
            self._books.request_finished(request_id, tier)

    def _begin(self, work: Work) -> None:
        stint = Stint(
            request_id=work.request_id,
            tier=work.tier,
            replica=work.replica,
            booking=_booking(work),
            start_s=work.start_s,
        )
        self._books.begin(stint)
        if work.end_s is None:
            self._running[_key(work)] = stint
        else:
            self._end(stint, work)

    def _end(self, stint: Stint, work: Work) -> None:
        stint.end_s, stint.first_token_s = work.end_s, work.first_token_s
        stint.prompt_tokens = _computed_prompt_tokens(work.usage)
        stint.output_tokens = work.usage.completion_tokens
        if work.is_shadow:  # the router knows nothing of it: nobody else ends it
            self._books.request_finished(work.request_id, work.tier)


def _key(work: Work) -> tuple[str, int]:
    return work.replica, work.number


def _booking(work: Work) -> Booking:
    """Whose joules it takes."""
    if work.is_shadow:
        return Booking.SHADOW
    return Booking.CALIBRATION if work.is_calibration else Booking.USER


def _computed_prompt_tokens(usage: Usage) -> int | None:
    """Prompt tokens that were not cached; None where the engine did not tell."""
    prompt_tokens = usage.prompt_tokens
    return None if prompt_tokens is None else max(0, prompt_tokens - (usage.cached_tokens or 0))
