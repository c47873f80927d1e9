"""Books that are fed by notes say what books say that were told at the time."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.books.bookkeeper_wire import HEAD, Batch, frame_of, value_of
from hybridserve_llm.books.notes import NotedWork, WorkNotes
from hybridserve_llm.energy.attribution import Booking, Stint
from hybridserve_llm.energy.books import EnergyBooks
from hybridserve_llm.energy.site import Site, SiteSettings
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.answers import Usage
from hybridserve_llm.values.engines import Work
from hybridserve_llm.values.joules import Activity, Joules, SettledEnergy, Source

REPLICAS = {"small/0": "small", "large/0": "large"}


class Meter:
    """100 W, always known."""

    known_until_s = float("inf")

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        return Joules(energy_j=100 * (end_s - start_s), source=Source.NVML_ENERGY)


class Bench:
    """The same books twice, one told and one fed by notes."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.numbers = itertools.count()
        self.settled: tuple[list[SettledEnergy], list[SettledEnergy]] = ([], [])
        self.told, self.fed = (
            EnergyBooks(
                [
                    Site(
                        SiteSettings(component="gpu", replicas=REPLICAS, weights={}),
                        Meter(),
                        start_s=1000,
                    )
                ],
                clock=self.clock,
                on_settled=settled.append,
            )
            for settled in self.settled
        )
        self.notes = WorkNotes()
        self.work = NotedWork(self.fed)
        self.finished: list[tuple[str, str | None]] = []
        self.running: list[tuple[Stint, Work]] = []

    def begin(
        self, request_id: str, replica: str = "small/0", booking: Booking = Booking.USER
    ) -> None:
        tier, now_s = REPLICAS[replica], self.clock.monotonic_s()
        stint = Stint(
            request_id=request_id, tier=tier, replica=replica, booking=booking, start_s=now_s
        )
        self.told.begin(stint)
        number = next(self.numbers)
        kinds = booking is Booking.SHADOW, booking is Booking.CALIBRATION
        work = Work(request_id, tier, replica, number, *kinds, now_s)
        self.notes.observe(work)
        self.running.append((stint, work))

    def end(self, which: int, usage: Usage) -> None:
        stint, work = self.running.pop(which % len(self.running))
        work.usage, work.end_s = usage, self.clock.monotonic_s()
        if usage.prompt_tokens is not None:
            stint.prompt_tokens = usage.prompt_tokens - (usage.cached_tokens or 0)
        stint.output_tokens, stint.end_s = usage.completion_tokens, work.end_s
        if stint.booking is Booking.SHADOW:
            self.told.request_finished(stint.request_id, stint.tier)

    def finish(self, request_id: str) -> None:
        self.told.request_finished(request_id, "small")
        self.finished.append((request_id, "small"))

    def enter(self) -> None:
        """As a batch does it, over the wire of a bookkeeper."""
        batch = Batch(self.clock.monotonic_s(), self.notes.take(), [])
        self.work.enter(value_of(frame_of(batch)[HEAD.size :], Batch).notes, self.finished)
        self.finished = []

    def settle(self) -> None:
        self.told.settle()
        self.enter()
        self.fed.settle()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "cancel", "move", "settle", "finish"]),
        st.integers(0, 5),
        st.floats(0, 3),
        st.sampled_from([Booking.USER, Booking.SHADOW, Booking.CALIBRATION]),
    ),
    max_size=50,
)


@settings(deadline=None, max_examples=100)
@given(events=EVENTS)
def test_notes_lose_nothing(events: list[tuple[str, int, float, Booking]]) -> None:
    bench = Bench()
    for what, which, seconds, booking in events:
        if what == "begin":
            kind = "shadow" if booking is Booking.SHADOW else "r"  # no router ends a shadow
            bench.begin(f"{kind}{which}", list(REPLICAS)[which % 2], booking)
        elif what in ("end", "cancel") and bench.running:
            usage = Usage(prompt_tokens=9, cached_tokens=which, completion_tokens=4)
            bench.end(which, usage if what == "end" else Usage())
        elif what == "finish":
            bench.finish(f"r{which}")
        elif what == "settle":
            bench.settle()
        bench.clock.advance(seconds if what == "move" else 0.0)
    bench.settle()
    assert bench.fed.totals == bench.told.totals
    assert bench.settled[0] == bench.settled[1]


def test_an_end_whose_beginning_was_lost_is_left_out() -> None:
    bench = Bench()
    bench.begin("r")
    bench.notes.take()  # as a bookkeeper that died has taken them
    bench.clock.advance(1)
    bench.end(0, Usage(prompt_tokens=1, completion_tokens=1))
    bench.finish("r")
    bench.enter()
    bench.fed.settle()
    assert bench.settled[1] == []
    assert sum(bench.fed.totals.joules.values()) == pytest.approx(100)  # idle, as far as it knows


def test_work_that_began_before_the_books_is_not_known() -> None:
    clock = FakeClock()
    notes, settled = WorkNotes(), list[SettledEnergy]()
    work = Work("r", "small", "small/0", 1, False, False, clock.monotonic_s())
    notes.observe(work)
    clock.advance(1)
    site = Site(SiteSettings(component="gpu", replicas=REPLICAS, weights={}), Meter(), start_s=1001)
    books = EnergyBooks([site], clock=clock, on_settled=settled.append)
    clock.advance(1)
    work.end_s = clock.monotonic_s()
    NotedWork(books).enter(notes.take(), [("r", "small")])
    books.settle()
    (one,) = settled
    assert (one.active_j, one.reason) == (None, "it began before its meters did")
