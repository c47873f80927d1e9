"""Several record sinks behind the face of one."""

from collections.abc import Sequence

from hybridserve_llm.interfaces import RecordSink
from hybridserve_llm.records import Ledger, SettledEnergy


class FanOut:
    """A RecordSink that tells each of `sinks`, in order."""

    def __init__(self, sinks: Sequence[RecordSink]) -> None:
        self._sinks = tuple(sinks)

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """Tells all of a request's end."""
        for sink in self._sinks:
            sink.request_finished(ledger, latency_s)

    def request_settled(self, energy: SettledEnergy) -> None:
        """Tells all what a request cost."""
        for sink in self._sinks:
            sink.request_settled(energy)
