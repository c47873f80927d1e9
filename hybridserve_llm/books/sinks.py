"""The record sinks that the configuration asks for, opened and closed with the front end."""

import asyncio
import contextlib

from hybridserve_llm.config.cascade import CascadeConfig, RecordsConfig
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.interfaces import Clock, RecordSink
from hybridserve_llm.telemetry.json_lines import JsonLinesSettings, JsonLinesSink
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.units import MIB


def open_sinks(
    config: CascadeConfig, metrics: Metrics, stack: contextlib.AsyncExitStack
) -> list[RecordSink]:
    """The metrics, and spans where they are configured; `stack` closes them.

    Raises:
        CannotBeDone: OpenTelemetry is not installed.
    """
    sinks: list[RecordSink] = [metrics]
    if config.tracing.otlp_endpoint is not None:
        sinks.append(_spans(config.tracing.otlp_endpoint, config, metrics, stack))
    return sinks


def records_of(config: RecordsConfig) -> JsonLinesSettings | None:
    """Where records go; None where nowhere."""
    if config.file is None:
        return None
    return JsonLinesSettings(
        file=config.file,
        max_file_bytes=config.max_file_mib * MIB,
        keep_files=config.keep_files,
        queue_size=config.queue_size,
    )


def open_records(settings: JsonLinesSettings, clock: Clock) -> JsonLinesSink:
    """The record file, opened.

    Raises:
        CannotBeDone: It cannot be written.
    """
    try:
        return JsonLinesSink(settings, clock=clock)
    except OSError as exc:
        raise CannotBeDone(f"records.file = {settings.file}: {exc.strerror}") from exc


def _spans(
    endpoint: str,
    config: CascadeConfig,
    metrics: Metrics,
    stack: contextlib.AsyncExitStack,
) -> RecordSink:
    try:  # late: the extra `otel` need not be installed
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        from hybridserve_llm.telemetry.spans import LeftOutSpans, SpanSink
    except ImportError as exc:
        raise CannotBeDone(
            "tracing.otlp_endpoint is set and OpenTelemetry is not installed: "
            "pip install 'hybridserve-llm[otel]'"
        ) from exc
    provider = TracerProvider(
        resource=Resource.create({"service.name": "hybridserve-llm"}), shutdown_on_exit=False
    )
    # Its own thread sends, and drops what it cannot send: no request waits.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
    stack.push_async_callback(asyncio.to_thread, provider.shutdown)
    spans = SpanSink(
        provider,
        served_model_name=config.server.served_model_name,
        max_requests_per_s=config.tracing.max_requests_per_s,
    )
    metrics.registry.register(LeftOutSpans(lambda: spans.n_left_out))
    return spans
