"""Where the router's news of requests goes: to every record sink, a pack at a time.

    request_finished ── a pack is full, or a tenth of a second is over ──> every sink, one by one
                    └── somebody asks how things stand (deliver) ───────>

What a sink does for one request in the middle of all else costs several times what it costs for the
next of a pack, since code and data have to be brought back into the processor's caches first. A
pack is small enough for its ledgers to be still there (decision 018).
"""

import asyncio
from collections.abc import Sequence

from hybridserve_llm.interfaces import Clock, RecordSink
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest, Ledger

_PACK = 32
_DELIVERY_INTERVAL_S = 0.1


class Journal:
    """An `interfaces.RequestJournal` over `sinks`, which are told in order."""

    def __init__(self, sinks: Sequence[RecordSink], *, clock: Clock) -> None:
        self._sinks = tuple(sinks)
        self._clock = clock
        self._finished: list[FinishedRequest] = []

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """Takes a request that ended now."""
        self._finished.append(FinishedRequest(ledger, latency_s, self._clock.wall_s()))
        if len(self._finished) >= _PACK:
            self.deliver()

    def deliver(self) -> None:
        """Tells the sinks of all requests that have ended."""
        if not self._finished:
            return
        finished, self._finished = self._finished, []
        for sink in self._sinks:
            sink.requests_finished(finished)

    async def run(self) -> None:
        """Delivers ten times a second, until cancelled."""
        while True:
            await asyncio.sleep(_DELIVERY_INTERVAL_S)
            self.deliver()


def tell_settled(sinks: Sequence[RecordSink], energy: SettledEnergy) -> None:
    """Tells each of `sinks` what a request cost."""
    for sink in sinks:
        sink.request_settled(energy)
