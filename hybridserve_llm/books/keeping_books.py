"""Where a front end's books and records are kept: in a process of their own, or in this one."""

import asyncio
import contextlib
import functools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from hybridserve_llm.books.bookkeeper_client import BookkeeperClient
from hybridserve_llm.books.bookkeeper_wire import Assignment
from hybridserve_llm.books.energy_report import EnergyReport, report_of
from hybridserve_llm.books.meter_sites import Metered, Probes
from hybridserve_llm.books.metering import BooksHere, metering_of
from hybridserve_llm.books.sinks import open_records, records_of
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.interfaces import Clock, RecordSink, WorkObserver
from hybridserve_llm.telemetry.journal import tell_settled
from hybridserve_llm.telemetry.json_lines import DroppedRecords
from hybridserve_llm.telemetry.metrics import Metrics


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBooks:
    """What the rest of a front end has to know of its books.

    Attributes:
        sinks: Are told when a request ended.
        observer: Is told of replicas' work; None where nothing is metered.
        energy: The books as they stand; None likewise.
        background: What runs for as long as the front end does.
    """

    sinks: Sequence[RecordSink] = ()
    observer: WorkObserver | None = None
    energy: Callable[[], EnergyReport] | None = None
    background: Sequence[Coroutine[Any, Any, None]] = ()


async def books_apart(
    config: CascadeConfig,
    metered: Metered,
    command: Sequence[str],
    metrics: Metrics,
    clock: Clock,
) -> KeptBooks:
    """In a process that `command` starts; one is needed only if something is metered or recorded.

    Raises:
        CannotBeDone: It does not start, or the record file cannot be written.
    """
    is_metered, records = config.energy.enabled, records_of(config.records)
    if not is_metered and records is None:
        return KeptBooks()

    assignment = Assignment(
        energy_json=config.energy.model_dump_json(),
        metered=metered if is_metered else None,
        records=records,
    )
    keeper = BookkeeperClient(assignment, command, clock=clock, on_settled=metrics.joules.absorb)
    await keeper.start()
    if records is not None:
        metrics.registry.register(DroppedRecords(lambda: keeper.n_dropped))
    return KeptBooks(
        sinks=[keeper],
        observer=keeper.notes if is_metered else None,
        energy=(lambda: keeper.energy) if is_metered else None,
        background=[keeper.run()],
    )


async def books_here(
    config: CascadeConfig,
    metered: Metered,
    probes: Probes,
    metrics: Metrics,
    clock: Clock,
    stack: contextlib.AsyncExitStack,
) -> KeptBooks:
    """In this process; `stack` closes the record file.

    Raises:
        CannotBeDone: The record file cannot be written.
    """
    sinks: list[RecordSink] = []
    settings = records_of(config.records)
    if settings is not None:
        lines = open_records(settings, clock)
        stack.callback(lines.close)
        metrics.registry.register(DroppedRecords(lambda: lines.n_dropped))
        sinks.append(lines)
    if not config.energy.enabled:
        return KeptBooks(sinks=sinks)
    metering = await asyncio.to_thread(  # drivers are waited for
        metering_of,
        config.energy,
        metered,
        clock=clock,
        on_settled=functools.partial(tell_settled, (metrics, *sinks)),
        probes=probes,
    )
    books = BooksHere(metering)
    return KeptBooks(
        sinks=[*sinks, books],
        observer=books.notes,
        energy=lambda: report_of(metering),
        background=[books.run()],
    )
