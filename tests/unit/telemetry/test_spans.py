"""Spans, read back from OpenTelemetry's own in-memory exporter."""

import pytest
from builders import attempt_of
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from prometheus_client import CollectorRegistry

from hybridserve_llm.cascade.climb import Tier
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.policy import ScorePolicy, TierRule
from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.confidence.day_zero import DayZeroScorer
from hybridserve_llm.telemetry.journal import Journal
from hybridserve_llm.telemetry.spans import LeftOutSpans, SpanSink
from hybridserve_llm.testing import FakeClock, FakeEngine, scripted_answer
from hybridserve_llm.values.ledger import FinishedRequest, Ledger, RequestEnd, Verdict
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

S = 1_000_000_000
TRACE_ID, CLIENT_SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


def sink_to(exporter: InMemorySpanExporter) -> SpanSink:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return SpanSink(provider, served_model_name="hybridserve", max_requests_per_s=2)


def finish(sink: SpanSink, ledger: Ledger, latency_s: float, time_s: float = 1000.0) -> None:
    sink.requests_finished([FinishedRequest(ledger, latency_s, time_s)])


@pytest.fixture
def sink(exporter: InMemorySpanExporter) -> SpanSink:
    return sink_to(exporter)


def test_a_busy_second_has_spans_of_its_first_requests_only(
    exporter: InMemorySpanExporter,
) -> None:
    sink = sink_to(exporter)
    for i in range(9):  # three in each of three seconds
        finish(sink, Ledger(request_id=f"r{i}", attempts=()), 0.0, 1000.0 + i // 3)
    ids = [
        (span.attributes or {})["hybridserve.request_id"] for span in exporter.get_finished_spans()
    ]
    assert ids == ["r0", "r1", "r3", "r4", "r6", "r7"]
    registry = CollectorRegistry()
    registry.register(LeftOutSpans(lambda: sink.n_left_out))
    assert registry.get_sample_value("hybridserve_spans_left_out_total") == 3


def test_what_is_not_sampled_takes_no_room(exporter: InMemorySpanExporter, sink: SpanSink) -> None:
    unwanted = {"traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN}-00"}
    for i in range(9):  # there is room for two in a second
        finish(sink, Ledger(request_id=f"n{i}", attempts=(), trace=unwanted), 0.0)
    for name in ("r0", "r1"):
        finish(sink, Ledger(request_id=name, attempts=()), 0.0)
    assert len(exporter.get_finished_spans()) == 2
    assert sink.n_left_out == 0


def test_what_a_sampler_leaves_out_takes_no_room(exporter: InMemorySpanExporter) -> None:
    provider = TracerProvider(shutdown_on_exit=False, sampler=ALWAYS_OFF)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    sink = SpanSink(provider, served_model_name="hybridserve", max_requests_per_s=2)
    for i in range(9):
        finish(sink, Ledger(request_id=f"r{i}", attempts=()), 0.0)
    assert exporter.get_finished_spans() == ()
    assert sink.n_left_out == 0


def by_name(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_three_tiers_make_one_tree_of_four_spans(
    exporter: InMemorySpanExporter, sink: SpanSink
) -> None:
    attempts = (
        attempt_of(
            "small",
            decision=Verdict.ESCALATE,
            latency_s=1.0,
            score=-0.75,
            prompt_tokens=7,
            completion_tokens=2,
        ),
        attempt_of("medium", decision=Verdict.ESCALATE, latency_s=2.0),
        attempt_of(
            "giant", decision=Verdict.ACCEPT, latency_s=4.0, completion_tokens=9, cached_tokens=3
        ),
    )
    ledger = Ledger(
        request_id="r1",
        attempts=attempts,
        tier="giant",
        model="giant-model",
        endpoint=Endpoint.CHAT,
    )
    finish(sink, ledger, 7.5)
    spans = by_name(exporter)
    assert set(spans) == {
        "chat hybridserve",
        "chat small-model",
        "chat medium-model",
        "chat giant-model",
    }
    root = spans.pop("chat hybridserve")
    assert root.parent is None
    assert root.kind is SpanKind.SERVER
    # The request ended at 1000 s and took 7.5 s; attempts follow each other from its start.
    assert (root.start_time, root.end_time) == (992.5 * S, 1000 * S)
    assert [(span.start_time, span.end_time) for span in spans.values()] == [
        (992.5 * S, 993.5 * S),
        (993.5 * S, 995.5 * S),
        (995.5 * S, 999.5 * S),
    ]
    for span in spans.values():
        assert span.parent is not None
        assert span.parent.span_id == root.context.span_id
        assert span.context.trace_id == root.context.trace_id
        assert span.kind is SpanKind.CLIENT
    assert root.attributes is not None
    assert dict(root.attributes) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "hybridserve",
        "gen_ai.request.model": "hybridserve",
        "gen_ai.response.model": "giant-model",
        "hybridserve.request_id": "r1",
        "hybridserve.tier": "giant",
        "hybridserve.certified": False,
    }
    assert dict(spans["chat small-model"].attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "vllm",
        "gen_ai.request.model": "small-model",
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 2,
        "hybridserve.tier": "small",
        "hybridserve.decision": "escalate",
        "hybridserve.reason": "because",
        "hybridserve.score": -0.75,
    }


def test_a_failed_attempt_and_a_failed_request_are_errors(
    exporter: InMemorySpanExporter, sink: SpanSink
) -> None:
    error = "EngineUnavailable"
    failed = attempt_of(
        "small", decision=Verdict.FAIL, latency_s=1.0, reason="no connection", error=error
    )
    ledger = Ledger(
        request_id="r1",
        attempts=(failed,),
        endpoint=Endpoint.COMPLETIONS,
        end=RequestEnd.FAILED,
        error=error,
    )
    finish(sink, ledger, 1.0)
    spans = by_name(exporter)
    for name in ("text_completion hybridserve", "text_completion small-model"):
        assert spans[name].status.status_code is StatusCode.ERROR
        assert spans[name].status.description == "no connection"
        assert (spans[name].attributes or {})["error.type"] == error


def test_what_its_client_gave_up_is_no_error(
    exporter: InMemorySpanExporter, sink: SpanSink
) -> None:
    aborted = attempt_of("small", decision=Verdict.ABORT, latency_s=1.0, reason="given up")
    ledger = Ledger(request_id="r1", attempts=(aborted,), end=RequestEnd.GIVEN_UP)
    finish(sink, ledger, 1.0)
    for span in exporter.get_finished_spans():
        assert span.status.status_code is StatusCode.UNSET
        assert "error.type" not in (span.attributes or {})


def test_a_request_is_named_by_the_model_that_was_asked_for(
    exporter: InMemorySpanExporter, sink: SpanSink
) -> None:
    finish(sink, Ledger(request_id="r1", attempts=(), only_tier="giant"), 0.0)
    (span,) = exporter.get_finished_spans()
    assert span.name == "chat giant"
    assert (span.attributes or {})["gen_ai.request.model"] == "giant"


def test_a_request_that_no_tier_was_asked_for_is_one_span(
    exporter: InMemorySpanExporter, sink: SpanSink
) -> None:
    ledger = Ledger(request_id="r1", attempts=(), end=RequestEnd.FAILED)
    finish(sink, ledger, 0.0)
    (span,) = exporter.get_finished_spans()
    assert span.status.description == "no tier was asked"


async def test_the_routers_own_request_through_three_tiers_is_one_tree(
    exporter: InMemorySpanExporter, sink: SpanSink
) -> None:
    tiers = [
        Tier(
            name=name,
            model=f"m-{name}",
            engine=FakeEngine(scripted_answer("42", logprobs=(-1.0, -1.0))),
            scorer=DayZeroScorer(),
        )
        for name in ("small", "medium", "giant")
    ]
    policy = ScorePolicy(rules=(TierRule(accept_at=-0.5, skips=()),) * 3)
    policies = Policies(default=policy, last_only=policy)
    journal = Journal([sink], clock=FakeClock())
    router = CascadeRouter(tiers, policies, journal=journal, clock=FakeClock())
    payload = {"messages": [{"role": "user", "content": "?"}]}
    await router.answer(GenerateRequest(request_id="r", endpoint=Endpoint.CHAT, payload=payload))
    journal.deliver()
    spans = by_name(exporter)
    root = spans.pop("chat hybridserve")
    assert list(spans) == ["chat m-small", "chat m-medium", "chat m-giant"]
    assert {span.parent.span_id for span in spans.values() if span.parent} == {root.context.span_id}


def test_the_clients_span_is_the_parent_where_it_sent_its_context(
    sink: SpanSink, exporter: InMemorySpanExporter
) -> None:
    context = {"traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN}-01", "tracestate": "vendor=1"}
    attempts = (attempt_of("small", decision=Verdict.ACCEPT, latency_s=0.1),)
    finish(sink, Ledger(request_id="r", attempts=attempts, trace=context), 0.2)
    spans = by_name(exporter)
    request, child = spans["chat hybridserve"], spans["chat small-model"]
    assert request.parent is not None
    assert f"{request.parent.span_id:016x}" == CLIENT_SPAN
    assert request.context is not None
    assert f"{request.context.trace_id:032x}" == TRACE_ID
    assert request.context.trace_state.get("vendor") == "1"
    assert child.parent is not None
    assert child.parent.span_id == request.context.span_id


def test_a_client_whose_trace_is_not_sampled_gets_no_spans(
    sink: SpanSink, exporter: InMemorySpanExporter
) -> None:
    context = {"traceparent": f"00-{TRACE_ID}-{CLIENT_SPAN}-00"}
    finish(sink, Ledger(request_id="r", attempts=(), trace=context), 0.2)
    assert exporter.get_finished_spans() == ()
