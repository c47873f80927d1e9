"""OpenTelemetry spans: one per request, and inside it one per attempt, in a row.

    chat hybridserve  |==========================================|
    chat small        |======|  escalate
    chat medium              |===========|  escalate
    chat giant                            |======================|  accept

Names and attributes follow the GenAI semantic conventions of OpenTelemetry (in development as of
1.37); what is ours begins with `hybridserve.`. No prompt and no answer is in them. A request's
spans are made when it ends, from its ledger: an attempt begins where the one before it ended, so
what the router itself took is not seen. The request's is named by the model that the client asked
for. What failed is an error, with `error.type`; what a client gave up is none. A client that sent a
W3C trace context (`traceparent`) is the parent of the first, and decides whether the trace is
sampled; engines got the same context, so that their spans stand beside ours.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hybridserve_llm.telemetry.counts import CountOf
from hybridserve_llm.values.joules import SettledEnergy
from hybridserve_llm.values.ledger import Attempt, FinishedRequest, Ledger, RequestEnd, Verdict
from hybridserve_llm.values.requests import Endpoint

_OPERATIONS = {Endpoint.CHAT: "chat", Endpoint.COMPLETIONS: "text_completion"}
_ENDS_IN_ERROR = (RequestEnd.INVALID, RequestEnd.FAILED)
_SAMPLED = 1
"""The one flag that a `traceparent` has (W3C Trace Context, section 3.2.2.5.1)."""
_NS = 1_000_000_000
Attributes = dict[str, str | bool | int | float]


class LeftOutSpans(CountOf):
    """How many requests have no spans because their second had its share, for Prometheus."""

    def __init__(self, n_left_out: Callable[[], int]) -> None:
        super().__init__(
            "hybridserve_spans_left_out",
            "Requests without spans, as those before them had used up their second's share",
            n_left_out,
        )


class SpanSink:
    """A RecordSink that makes spans; the provider's processor says when they are sent."""

    def __init__(
        self,
        provider: TracerProvider,
        *,
        served_model_name: str,
        max_requests_per_s: int,
    ) -> None:
        """Of more than `max_requests_per_s` requests a second, the first so many have spans.

        `n_left_out` counts the others; requests whose trace is not sampled are in neither.
        """
        self.n_left_out = 0
        self._max_requests_per_s = max_requests_per_s
        self._second_began_s = -math.inf
        self._n_this_second = 0
        self._tracer = provider.get_tracer("hybridserve_llm")
        self._propagator = TraceContextTextMapPropagator()
        self._model = served_model_name

    def requests_finished(self, finished: Sequence[FinishedRequest]) -> None:
        """Makes the requests' spans, with the times they had."""
        for one in finished:
            self._make_spans(one.ledger, one.latency_s, one.time_s)

    def _make_spans(self, ledger: Ledger, latency_s: float, time_s: float) -> None:
        if not _is_sampled(ledger):
            return
        if not self._has_room(time_s):
            self.n_left_out += 1
            return
        end_ns = int(time_s * _NS)
        start_ns = end_ns - int(latency_s * _NS)
        operation = _OPERATIONS[ledger.endpoint or Endpoint.CHAT]
        model = ledger.only_tier or self._model
        span = self._tracer.start_span(
            f"{operation} {model}",
            context=self._parent_of(ledger),
            kind=SpanKind.SERVER,
            start_time=start_ns,
            attributes=_request_attributes(ledger, operation, model),
        )
        if not span.is_recording():  # a sampler of the environment's left it out
            self._n_this_second -= 1
            return
        self._make_children(span, ledger, operation, start_ns, end_ns)
        if ledger.end in _ENDS_IN_ERROR:
            why = ledger.attempts[-1].reason if ledger.attempts else "no tier was asked"
            span.set_status(Status(StatusCode.ERROR, why))
        span.end(end_time=end_ns)

    def _make_children(
        self, span: Span, ledger: Ledger, operation: str, start_ns: int, end_ns: int
    ) -> None:
        """A span for every attempt, one after the other from the request's start."""
        inside = trace.set_span_in_context(span)
        at_ns = start_ns
        for attempt in ledger.attempts:
            child = self._tracer.start_span(
                f"{operation} {attempt.model}",
                context=inside,
                kind=SpanKind.CLIENT,
                start_time=at_ns,
                attributes=_attempt_attributes(attempt, operation),
            )
            if attempt.decision is Verdict.FAIL:
                child.set_status(Status(StatusCode.ERROR, attempt.reason))
            at_ns = min(end_ns, at_ns + int((attempt.latency_s or 0.0) * _NS))
            child.end(end_time=at_ns)

    def _parent_of(self, ledger: Ledger) -> Context:
        """The span of the client that sent its trace context; without one the trace begins here."""
        nobody = trace.set_span_in_context(trace.INVALID_SPAN)
        return nobody if ledger.trace is None else self._propagator.extract(ledger.trace, nobody)

    def _has_room(self, now_s: float) -> bool:
        """Counts the request; False where this second has had its share already.

        A request's spans take a third of a millisecond of CPU to make and send, as much as a third
        of all else that the front end does for it, so a busy one must not make them all.
        """
        if not 0 <= now_s - self._second_began_s < 1:  # the time of day may be set back
            self._second_began_s, self._n_this_second = now_s, 0
        self._n_this_second += 1
        return self._n_this_second <= self._max_requests_per_s

    def request_settled(self, energy: SettledEnergy) -> None:
        """Nothing: a span that has ended takes no more attributes; records have the joules."""


def _is_sampled(ledger: Ledger) -> bool:
    """Whether its client wants the trace; one that sent no context leaves it to us."""
    return ledger.trace is None or bool(int(ledger.trace["traceparent"][-2:], 16) & _SAMPLED)


def _error_type(error: str | None, *, is_error: bool) -> str | None:
    """The class of an error, which the conventions want of whatever failed; `_OTHER` is theirs."""
    return (error or "_OTHER") if is_error else None


def _request_attributes(ledger: Ledger, operation: str, model: str) -> Attributes:
    return _known(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "hybridserve",
            "gen_ai.request.model": model,
            "gen_ai.response.model": ledger.model,
            "error.type": _error_type(ledger.error, is_error=ledger.end in _ENDS_IN_ERROR),
            "hybridserve.request_id": ledger.request_id,
            "hybridserve.tier": ledger.tier,
            "hybridserve.confidence": ledger.confidence,
            "hybridserve.certified": ledger.certified,
        }
    )


def _attempt_attributes(attempt: Attempt, operation: str) -> Attributes:
    return _known(
        {
            "gen_ai.operation.name": operation,
            "gen_ai.provider.name": "vllm",
            "gen_ai.request.model": attempt.model,
            "error.type": _error_type(attempt.error, is_error=attempt.decision is Verdict.FAIL),
            "gen_ai.usage.input_tokens": attempt.prompt_tokens,
            "gen_ai.usage.cache_read.input_tokens": attempt.cached_tokens,
            "gen_ai.usage.output_tokens": attempt.completion_tokens,
            "hybridserve.tier": attempt.tier,
            "hybridserve.decision": attempt.decision.value,
            "hybridserve.reason": attempt.reason,
            "hybridserve.score": attempt.score,
            "hybridserve.confidence": attempt.confidence,
            "hybridserve.risk": attempt.risk,
            "hybridserve.ttft_s": attempt.ttft_s,
        }
    )


def _known(values: Mapping[str, str | bool | int | float | None]) -> Attributes:
    """Attributes cannot be null: what is not known is left out."""
    return {name: value for name, value in values.items() if value is not None}
