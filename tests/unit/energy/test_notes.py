"""Books that are fed by notes say what books say that were told at the time."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridserve_llm.energy.books import EnergyBooks
from hybridserve_llm.energy.notes import NotedWork, WorkNotes
from hybridserve_llm.energy.site import Site, SiteSettings
from hybridserve_llm.interfaces import WorkEnd
from hybridserve_llm.records import (
    Activity,
    Endpoint,
    GenerateRequest,
    Joules,
    SettledEnergy,
    Source,
    Usage,
)
from hybridserve_llm.testing import FakeClock

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
        self.notes = WorkNotes(self.clock)
        self.work = NotedWork(self.fed)
        self.running: list[tuple[WorkEnd, WorkEnd]] = []

    def begin(self, request_id: str, replica: str = "small/0", **fields: bool) -> None:
        request = GenerateRequest(
            request_id=request_id, endpoint=Endpoint.CHAT, payload={}, **fields
        )
        tier = REPLICAS[replica]
        self.running.append(
            (
                self.told.observe(request, tier, replica),
                self.notes.observe(request, tier, replica),
            )
        )

    def end(self, which: int, usage: Usage) -> None:
        for end in self.running.pop(which % len(self.running)):
            end(usage, None)

    def finish(self, request_id: str) -> None:
        self.told.request_finished(request_id, "small")
        self.notes.request_finished(request_id, "small")

    def settle(self) -> None:
        self.told.settle()
        self.work.enter(self.notes.take())
        self.fed.settle()


EVENTS = st.lists(
    st.tuples(
        st.sampled_from(["begin", "end", "cancel", "move", "settle", "finish"]),
        st.integers(0, 5),
        st.floats(0, 3),
        st.booleans(),
    ),
    max_size=50,
)


@settings(deadline=None, max_examples=100)
@given(events=EVENTS)
def test_notes_lose_nothing(events: list[tuple[str, int, float, bool]]) -> None:
    bench = Bench()
    for what, which, seconds, flag in events:
        if what == "begin":
            bench.begin(f"r{which}", list(REPLICAS)[which % 2], is_shadow=flag)
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
    bench.work.enter(bench.notes.take())
    bench.fed.settle()
    assert bench.settled[1] == []
    assert sum(bench.fed.totals.joules.values()) == pytest.approx(100)  # idle, as far as it knows


def test_work_that_began_before_the_books_is_not_known() -> None:
    clock = FakeClock()
    notes, settled = WorkNotes(clock), list[SettledEnergy]()
    request = GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload={})
    end = notes.observe(request, "small", "small/0")
    clock.advance(1)
    site = Site(SiteSettings(component="gpu", replicas=REPLICAS, weights={}), Meter(), start_s=1001)
    books = EnergyBooks([site], clock=clock, on_settled=settled.append)
    clock.advance(1)
    end(Usage(prompt_tokens=1, completion_tokens=1), None)
    notes.request_finished("r", "small")
    NotedWork(books).enter(notes.take())
    books.settle()
    (one,) = settled
    assert (one.active_j, one.reason) == (None, "it began before its meters did")
