"""The record sinks that the configuration asks for, opened and closed with the front end."""

import contextlib

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.interfaces import Clock, RecordSink
from hybridserve_llm.telemetry.json_lines import (
    DroppedRecords,
    JsonLinesSettings,
    JsonLinesSink,
)
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.units import MIB


def open_sinks(
    config: CascadeConfig, metrics: Metrics, clock: Clock, stack: contextlib.AsyncExitStack
) -> list[RecordSink]:
    """The metrics, and beside them what is configured; `stack` closes it.

    Raises:
        CannotBeDone: The file of records cannot be written.
    """
    sinks: list[RecordSink] = [metrics]
    if config.records.file is not None:
        try:
            lines = JsonLinesSink(
                JsonLinesSettings(
                    file=config.records.file,
                    max_file_bytes=config.records.max_file_mib * MIB,
                    keep_files=config.records.keep_files,
                    queue_size=config.records.queue_size,
                ),
                clock=clock,
            )
        except OSError as exc:
            raise CannotBeDone(f"records.file = {config.records.file}: {exc.strerror}") from exc
        stack.callback(lines.close)
        metrics.registry.register(DroppedRecords(lambda: lines.n_dropped))
        sinks.append(lines)
    return sinks
