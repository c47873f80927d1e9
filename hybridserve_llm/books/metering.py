"""The meters of a running cascade: its books, its sampler, and what settles them.

Which devices are metered for whom is `meter_sites.py`'s to say.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hybridserve_llm.books.meter_sites import Metered, Probes, SiteMaker
from hybridserve_llm.books.notes import NotedWork, WorkNotes
from hybridserve_llm.config.cascade import EnergyConfig
from hybridserve_llm.energy.books import EnergyBooks
from hybridserve_llm.energy.cpu_time import CpuTimeMeter
from hybridserve_llm.energy.nvml import GpuMeter
from hybridserve_llm.energy.sampler import Sampler
from hybridserve_llm.energy.site import Site
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest

SWITCHED_OFF = "energy.enabled is false"
SETTLED_LATER = "joules are settled after the answer; the record sink has them under the request id"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metering:
    """The books, and everything they are fed by; `reason` says why ledgers hold no joules.

    `is_null`: some tier's joules are null for as long as it runs, as nothing here can meter it.
    """

    books: EnergyBooks
    reason: str
    is_null: bool
    gpus: tuple[GpuMeter, ...]
    cpu_time: CpuTimeMeter
    replicas: Mapping[str, str]
    settle_interval_s: float
    _sampler: Sampler

    def start(self) -> None:
        """Begins to read the meters, in a thread."""
        self._sampler.start()

    def stop(self) -> None:
        """A last reading, for which it waits."""
        self._sampler.stop()

    def close(self) -> None:
        """The last reading, and the last of the books."""
        self.stop()
        self.books.close()  # every request gets its record, if only one that says unknown

    def sample(self) -> None:
        """One reading of every meter, as `run` takes them all the time."""
        self._sampler.sample()

    def cpu_seconds(self) -> dict[str, float]:
        """CPU-seconds that each tier's engines used since the front end started, by tier."""
        by_tier: dict[str, float] = {}
        for name, used_s in self.cpu_time.used_s.items():
            tier = self.replicas[name]
            by_tier[tier] = by_tier.get(tier, 0.0) + used_s
        return by_tier


class BooksHere:
    """A RecordSink that keeps the books in the event loop that serves requests."""

    def __init__(self, metering: Metering) -> None:
        """`notes` are for the replicas to be told of."""
        self.notes = WorkNotes()
        self._finished: list[tuple[str, str | None]] = []
        self._metering = metering
        self._noted = NotedWork(metering.books)

    def requests_finished(self, finished: Sequence[FinishedRequest]) -> None:
        """The requests are complete and may be settled."""
        self._finished += [(one.ledger.request_id, one.ledger.tier) for one in finished]

    def request_settled(self, energy: SettledEnergy) -> None:
        """Nothing: the books said it."""

    async def run(self) -> None:
        """Samples and settles until cancelled."""
        self._metering.start()
        try:
            while True:
                await asyncio.sleep(self._metering.settle_interval_s)
                self._enter()
                self._metering.books.settle()
        finally:
            await asyncio.to_thread(self._metering.stop)
            self._enter()
            self._metering.books.close()

    def _enter(self) -> None:
        finished, self._finished = self._finished, []
        self._noted.enter(self.notes.take(), finished)


def metering_of(
    config: EnergyConfig,
    metered: Metered,
    *,
    clock: Clock,
    on_settled: Callable[[SettledEnergy], None],
    probes: Probes,
    books_clock: Clock | None = None,
) -> Metering:
    """Everything that meters; takes a first reading, so it may wait for drivers.

    `books_clock` tells up to when all work is known, where that is not the moment itself.
    """
    maker = SiteMaker(config, metered, clock, probes)
    made = maker.sites()
    sampler = Sampler(maker.sampled, clock=clock, period_s=config.sample_interval_s)
    sampler.sample()
    start_s = clock.monotonic_s()
    books = EnergyBooks(
        [Site(settings, meter, start_s=start_s) for settings, meter in made],
        clock=books_clock or clock,
        on_settled=on_settled,
        settle_within_s=config.settle_within_s,
    )
    return Metering(
        books=books,
        reason=maker.why_null or SETTLED_LATER,
        is_null=maker.why_null is not None,
        gpus=tuple(maker.gpus.values()),
        cpu_time=maker.cpu_time,
        replicas=metered.replicas,
        settle_interval_s=config.settle_interval_s,
        _sampler=sampler,
    )
