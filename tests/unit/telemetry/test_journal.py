"""Every sink is told of every request, in order, and none waits for long."""

import asyncio

from hybridserve_llm.telemetry.journal import Journal
from hybridserve_llm.testing import FakeClock
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest, Ledger


class Sink:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.finished: list[FinishedRequest] = []

    @property
    def ids(self) -> list[str]:
        return [one.ledger.request_id for one in self.finished]

    def requests_finished(self, finished: list[FinishedRequest]) -> None:
        self.finished += finished

    def request_settled(self, energy: SettledEnergy) -> None:
        raise AssertionError("a journal tells of ends alone")


def ledger_of(request_id: str) -> Ledger:
    return Ledger(request_id=request_id, attempts=())


def test_each_sink_has_every_request_once_when_somebody_asks() -> None:
    sinks, clock = (Sink(), Sink()), FakeClock(wall_s=1000.0)
    journal = Journal(sinks, clock=clock)
    journal.request_finished(ledger_of("a"), 0.25)
    clock.advance(1)
    journal.request_finished(ledger_of("b"), 0.5)
    journal.deliver()
    journal.deliver()
    for sink in sinks:
        assert sink.ids == ["a", "b"]
        assert [(one.latency_s, one.time_s) for one in sink.finished] == [(0.25, 1000), (0.5, 1001)]


def test_many_requests_do_not_wait_for_anybody() -> None:
    sink = Sink()
    journal = Journal([sink], clock=FakeClock())
    names = [f"r{i}" for i in range(1000)]
    for name in names:
        journal.request_finished(ledger_of(name), 0.1)
    assert 1000 - 32 < len(sink.finished) <= 1000
    journal.deliver()
    assert sink.ids == names


async def test_a_single_request_is_told_of_soon() -> None:
    sink = Sink()
    journal = Journal([sink], clock=FakeClock())
    running = asyncio.create_task(journal.run())
    journal.request_finished(ledger_of("r"), 0.1)
    async with asyncio.timeout(10):
        while not sink.finished:  # noqa: ASYNC110 - as an operator looks at a file
            await asyncio.sleep(0.01)
    running.cancel()
    assert sink.ids == ["r"]
