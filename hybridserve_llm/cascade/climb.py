"""Follow one request up the tiers, and write its ledger."""

from dataclasses import dataclass, field

from hybridserve_llm.cascade.pace import Pace
from hybridserve_llm.cascade.policy import Bounds, Decision, Policy
from hybridserve_llm.errors import DeadlineExceeded, HybridServeError, RequestError
from hybridserve_llm.interfaces import Clock, Engine, RequestJournal, Scorer
from hybridserve_llm.values.answers import Assessment, Seen, Usage
from hybridserve_llm.values.ledger import Attempt, Gap, Ledger, RequestEnd, Uncovered, Verdict
from hybridserve_llm.values.requests import GenerateRequest

_NOT_ASSESSED = Assessment(score=None)
_NO_USAGE = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """Hold one tier as the cascade sees it; `model` is the checkpoint's name in ledgers.

    `timeout_s` bounds an attempt; None leaves that to the `pace` of its answers. `max_model_len` is
    what its engines hold, prompt and output together; None where they do not say.
    """

    name: str
    model: str
    engine: Engine
    scorer: Scorer
    needs_token_ids: bool = False
    timeout_s: float | None = None
    max_model_len: int | None = None
    pace: Pace = field(default_factory=Pace)


@dataclass(slots=True, kw_only=True)
class Climb:
    """Follow one request up the tiers, and write its ledger.

    Each attempt starts with `begin` and ends with `answered`, `failed` or `aborted`. `close` then
    writes the ledger and gives it to the journal; nothing else does.

    Attributes:
        uncovered: Why no certificate covers this request; None where one does.
        started_s: When the request arrived (monotonic).
        seen: The answers so far, as the policy reads them.
        failure: The error of the last attempt that failed.
        ttft_s: Seconds from the request's arrival to the first token that left for the client;
            None where it is not streamed.
        ledger: None until `close`.
    """

    request: GenerateRequest
    policy: Policy
    bounds: Bounds
    uncovered: Uncovered | None
    clock: Clock
    journal: RequestJournal
    energy_reason: str | None
    started_s: float
    seen: list[Seen] = field(default_factory=list)
    failure: HybridServeError | None = None
    ttft_s: float | None = None
    ledger: Ledger | None = None
    _attempts: list[Attempt] = field(default_factory=list, init=False)
    _tier: Tier | None = field(default=None, init=False)
    _begun_s: float = field(default=0.0, init=False)
    _attempt_ttft_s: float | None = field(default=None, init=False)

    @property
    def is_certified(self) -> bool:
        """Return whether the certificate's promise holds for the answer that is to come."""
        return self.policy.is_certified and self.gap is None

    @property
    def gap(self) -> Uncovered | None:
        """Return why no certificate covers the answer that is to come; None where one does."""
        if self.uncovered is None and self.failure is not None:
            return Uncovered(gap=Gap.FAILURE, reason=f"a tier gave no answer: {self.failure}")
        return self.uncovered

    @property
    def is_watched(self) -> bool:
        """Return whether the watch may learn from its decisions.

        It may not where the request demands more than the policy that is watched.
        """
        overrides = self.request.overrides
        is_plain = overrides.min_confidence is None and overrides.policy in (None, "default")
        return is_plain and self.is_certified

    def begin(self, tier: Tier) -> None:
        """Begin an attempt at `tier`."""
        self._tier = tier
        self._begun_s = self.clock.monotonic_s()

    def first_token_came(self) -> None:
        """Note the time of the first token of a live answer."""
        self.ttft_s = self._since(self.started_s)
        self._attempt_ttft_s = self._since(self._begun_s)

    def answered(
        self, decision: Decision, usage: Usage, assessment: Assessment | None = None
    ) -> None:
        """Record that the tier answered, and what was decided on its answer."""
        self._note_pace()
        self._record(decision.verdict, decision.reason, usage, assessment=assessment)

    def failed(self, error: HybridServeError, usage: Usage = _NO_USAGE) -> None:
        """Record that the attempt ended with `error`."""
        self.failure = error
        if isinstance(error, DeadlineExceeded):
            self._note_pace()
        self._record(Verdict.FAIL, str(error), usage, error=type(error).__name__)

    def aborted(self, usage: Usage = _NO_USAGE) -> None:
        """Record that the attempt was given up before it ended."""
        self._record(Verdict.ABORT, "given up", usage)

    def close(self, *, ended_by: HybridServeError | None = None) -> Ledger:
        """Write the ledger, and give it to the journal.

        The last attempt gave the answer if it was accepted. Without an answer `ended_by` is the
        error that the request ended with; None where its client gave up.
        """
        last = self._attempts[-1] if self._attempts else None
        answering = last if last is not None and last.decision is Verdict.ACCEPT else None
        latency_s = self._since(self.started_s)
        if answering is not None and self.request.stream and self.ttft_s is None:
            self.ttft_s = latency_s  # it was held: its first token leaves with its last
        self.ledger = Ledger(
            request_id=self.request.request_id,
            attempts=tuple(self._attempts),
            tier=answering.tier if answering else None,
            model=answering.model if answering else None,
            confidence=answering.confidence if answering else None,
            certified=answering is not None and self.is_certified,
            uncovered=None if answering is None else self.gap,
            endpoint=self.request.endpoint,
            end=_end(answering, ended_by),
            error=type(ended_by).__name__ if ended_by else None,
            ttft_s=self.ttft_s,
            energy_reason=self.energy_reason,
            only_tier=self.request.only_tier,
            assess=self.request.assess,
            trace=self.request.trace,
        )
        self.journal.request_finished(self.ledger, latency_s)
        return self.ledger

    def _note_pace(self) -> None:
        if self._tier is not None:
            self._tier.pace.took(self._since(self._begun_s))

    def _record(
        self,
        verdict: Verdict,
        reason: str,
        usage: Usage,
        *,
        assessment: Assessment | None = None,
        error: str | None = None,
    ) -> None:
        assert self._tier is not None  # noqa: S101 - an attempt ends only after it has begun
        known = assessment or _NOT_ASSESSED
        attempt = Attempt(
            tier=self._tier.name,
            model=self._tier.model,
            decision=verdict,
            reason=reason,
            score=known.score,
            confidence=known.confidence,
            risk=known.risk,
            prompt_tokens=usage.prompt_tokens,
            cached_tokens=usage.cached_tokens,
            completion_tokens=usage.completion_tokens,
            ttft_s=self._attempt_ttft_s,
            latency_s=self._since(self._begun_s),
            assessment=assessment if self.request.assess else None,
            error=error,
        )
        self._attempts.append(attempt)

    def _since(self, then_s: float) -> float:
        return self.clock.monotonic_s() - then_s


def _end(answering: Attempt | None, ended_by: HybridServeError | None) -> RequestEnd:
    if answering is not None:
        return RequestEnd.ANSWERED
    if ended_by is None:
        return RequestEnd.GIVEN_UP
    return RequestEnd.INVALID if isinstance(ended_by, RequestError) else RequestEnd.FAILED
