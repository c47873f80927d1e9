"""What the books have to know of requests, written down where requests are served.

    event loop    observe ── WorkEnd ── request_finished        a note each
    later         take() ──> `NotedWork.enter`: into the books, in this process or another

A request waits for an append and no more; a note holds nothing that only this process knows.
"""

import functools
import itertools
from collections.abc import Callable, Iterable

import msgspec

from hybridserve_llm.energy.attribution import Booking, Stint
from hybridserve_llm.energy.books import EnergyBooks, booking_of, computed_prompt_tokens
from hybridserve_llm.interfaces import Clock, WorkEnd
from hybridserve_llm.records import GenerateRequest, Usage


class Began(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="began"):
    """A replica began to work on a request; `key` names the stint, times are monotonic."""

    key: int
    request_id: str
    tier: str
    replica: str
    booking: Booking
    at_s: float


class Ended(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="ended"):
    """That work ended; prompt tokens are those that were not cached."""

    key: int
    at_s: float
    first_token_s: float | None
    prompt_tokens: int | None
    output_tokens: int | None


class Finished(msgspec.Struct, array_like=True, frozen=True, gc=False, tag="finished"):
    """The router is done with a request; `tier` answered, None where none did."""

    request_id: str
    tier: str | None


Note = Began | Ended | Finished


class WorkNotes:
    """An `interfaces.WorkObserver` that only writes down."""

    def __init__(self, clock: Clock) -> None:
        self._now_s: Callable[[], float] = clock.monotonic_s
        self._keys = itertools.count()
        self._notes: list[Note] = []

    def observe(self, request: GenerateRequest, tier: str, replica: str) -> WorkEnd:
        """Work begins on the replica; what is returned is called once at its end."""
        key, booking = next(self._keys), booking_of(request)
        request_id = request.request_id
        self._notes.append(Began(key, request_id, tier, replica, booking, self._now_s()))
        if booking is Booking.SHADOW:  # the router knows nothing of it: nobody else ends it
            return functools.partial(self._shadow_ended, key, request_id, tier)
        return functools.partial(self._ended, key)

    def request_finished(self, request_id: str, tier: str | None) -> None:
        """The router is done with a request; `tier` answered, None where none did."""
        self._notes.append(Finished(request_id, tier))

    def take(self) -> list[Note]:
        """What was written down since the last time, in order."""
        taken, self._notes = self._notes, []
        return taken

    def _ended(self, key: int, usage: Usage, first_token_s: float | None) -> None:
        tokens = computed_prompt_tokens(usage), usage.completion_tokens
        self._notes.append(Ended(key, self._now_s(), first_token_s, *tokens))

    def _shadow_ended(
        self, key: int, request_id: str, tier: str, usage: Usage, first_token_s: float | None
    ) -> None:
        self._ended(key, usage, first_token_s)
        self.request_finished(request_id, tier)


class NotedWork:
    """Enters notes into the books, as if they had been told at the time."""

    def __init__(self, books: EnergyBooks) -> None:
        self._books = books
        self._running: dict[int, Stint] = {}

    def enter(self, notes: Iterable[Note]) -> None:
        """Enters what happened. An end whose beginning never came (notes were lost) is left out."""
        for note in notes:
            if isinstance(note, Began):
                self._begin(note)
            elif isinstance(note, Ended):
                self._end(note)
            else:
                self._books.request_finished(note.request_id, note.tier)

    def _begin(self, note: Began) -> None:
        stint = Stint(
            request_id=note.request_id,
            tier=note.tier,
            replica=note.replica,
            booking=note.booking,
            start_s=note.at_s,
        )
        self._running[note.key] = stint
        self._books.begin(stint)

    def _end(self, note: Ended) -> None:
        stint = self._running.pop(note.key, None)
        if stint is not None:
            stint.end_s, stint.first_token_s = note.at_s, note.first_token_s
            stint.prompt_tokens, stint.output_tokens = note.prompt_tokens, note.output_tokens
