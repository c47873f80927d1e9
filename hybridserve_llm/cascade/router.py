"""The cascade's one loop: ask a tier, score its answer, accept it or go on up.

Time runs down the page; a streamed request differs only in how the final tier answers:

    tier 0   complete ── assess ── decide: escalate ─┐
    tier 1                                  complete ── assess ── decide: accept ──> Outcome
    final tier, streamed                                          first chunk ──────> LiveAnswer

No token of a tier below the final one leaves before its answer is accepted, because such a tier is
asked for its whole answer; a rejected tier's tokens therefore cannot reach a client.
"""

import asyncio
from collections.abc import Sequence

from hybridserve_llm.cascade.climb import Climb, Tier
from hybridserve_llm.cascade.live import LiveAnswer
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.policy import Bounds, Decision
from hybridserve_llm.errors import (
    EngineFailed,
    EngineUnavailable,
    HybridServeError,
    InvalidRequest,
    RequestError,
)
from hybridserve_llm.interfaces import Clock, RequestJournal
from hybridserve_llm.values.answers import Assessment, Completion, Seen, Usage
from hybridserve_llm.values.ledger import Attempt, Ledger, Outcome, Verdict
from hybridserve_llm.values.requests import EngineRequest, GenerateRequest


class CascadeRouter:
    """Routes requests up the tiers; holds no state between requests."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        policies: Policies,
        *,
        journal: RequestJournal,
        clock: Clock,
        energy_reason: str | None = None,
    ) -> None:
        """`energy_reason` is why no ledger has joules when its answer leaves."""
        self._tiers = tuple(tiers)
        self._policies = policies
        self._index = {tier.name: i for i, tier in enumerate(self._tiers)}
        self._journal = journal
        self._clock = clock
        self._energy_reason = energy_reason

    async def answer(self, request: GenerateRequest) -> Outcome | LiveAnswer:
        """The accepted answer; a LiveAnswer where a streamed request reached its final tier.

        A tier that is down, fails, rejects the request or cannot hold the prompt is passed over
        upwards, and the ledger says so. Cancelling closes the engine's connection, which aborts its
        work; the attempt is recorded as aborted.

        Raises:
            InvalidRequest: An override cannot be met, or the final tier rejected the request.
            ContextLengthExceeded: The prompt is longer than the final tier holds.
            DeadlineExceeded: The request's time ran out.
            EngineUnavailable: The final tier, and so the request's last resort, is down.
            EngineFailed: The final tier answered with an error.
        """
        climb = self._start(request)
        try:
            return await self._climb(climb)
        except (HybridServeError, asyncio.CancelledError) as exc:
            ledger = climb.ledger(None, ended_by=exc if isinstance(exc, HybridServeError) else None)
            self._journal.request_finished(ledger, self._elapsed_s(climb.started_s))
            raise

    def _start(self, request: GenerateRequest) -> Climb:
        overrides, policy = request.overrides, self._policies.pick(request)
        if overrides.min_confidence is not None and not policy.has_confidence:
            raise InvalidRequest(
                "min_confidence needs a calibrated cascade; this one is uncertified, "
                "so no answer has a confidence",
                parameter="hybridserve.min_confidence",
            )
        last = len(self._tiers) - 1
        first = self._tier_index(overrides.min_tier, "min_tier", default=0)
        final = self._tier_index(overrides.max_tier, "max_tier", default=last)
        if first > final:
            raise InvalidRequest(
                f"min_tier {overrides.min_tier!r} is above max_tier {overrides.max_tier!r}",
                parameter="hybridserve.min_tier",
            )
        return Climb(
            request,
            policy,
            Bounds(first_tier=first, final_tier=final, min_confidence=overrides.min_confidence),
            # A tier in the middle to begin at makes the cascade another one, not a stricter one.
            is_covered=final == last and first in (0, last) and self._policies.covers(request),
            started_s=self._clock.monotonic_s(),
            energy_reason=self._energy_reason,
        )

    def _tier_index(self, name: str | None, parameter: str, *, default: int) -> int:
        if name is None:
            return default
        if name not in self._index:
            raise InvalidRequest(
                f"{parameter} {name!r} is no tier; allowed: {', '.join(self._index)}",
                parameter=f"hybridserve.{parameter}",
            )
        return self._index[name]

    async def _climb(self, climb: Climb) -> Outcome | LiveAnswer:
        at = climb.policy.entry(climb.request, climb.bounds)
        while at <= climb.bounds.final_tier:
            started_s = self._clock.monotonic_s()
            try:
                if climb.request.stream and at == climb.bounds.final_tier:
                    return await self._go_live(climb, self._tiers[at], started_s)
                completion = await self._ask(climb, at)
            except (RequestError, EngineUnavailable, EngineFailed) as exc:
                # What one engine rejects (an image, a tool, a role) the next may take.
                self._record_failure(climb, at, exc, started_s)
                climb.failure = exc
                at = self._above(climb, at)
                continue
            except HybridServeError as exc:
                self._record_failure(climb, at, exc, started_s)
                raise
            except asyncio.CancelledError:
                climb.attempts.append(self._attempt(at, Verdict.ABORT, "given up", started_s))
                raise
            assessment, decision = self._judge(climb, at, completion)
            attempt = self._answered(climb, at, completion, assessment, decision, started_s)
            climb.attempts.append(attempt)
            if decision.next_tier is None:
                return self._accepted(climb, at, completion, assessment, attempt)
            at = decision.next_tier
        raise climb.failure or EngineUnavailable("no tier could be asked")

    @staticmethod
    def _above(climb: Climb, at: int) -> int:
        """The tier to ask where `at` gave no answer: the final one is asked before giving up."""
        above, final = climb.policy.above(at), climb.bounds.final_tier
        return min(above, final) if at < final else above

    async def _ask(self, climb: Climb, at: int) -> Completion:
        """The whole answer of tier `at`; log-probabilities only where somebody reads them."""
        tier, wanted = self._tiers[at], climb.request.client_top_logprobs
        is_scored = self._is_scored(climb, at)
        if is_scored:
            wanted = max(tier.scorer.top_logprobs(climb.request), wanted or 0)
        return await tier.engine.complete(
            EngineRequest(
                request=climb.request,
                top_logprobs=wanted,
                needs_token_ids=is_scored and tier.needs_token_ids,
            )
        )

    def _is_scored(self, climb: Climb, at: int) -> bool:
        """Whether tier `at` is scored: not where its answer is taken whatever it says."""
        return at < climb.bounds.final_tier or climb.request.assess

    def _judge(self, climb: Climb, at: int, completion: Completion) -> tuple[Assessment, Decision]:
        assessment = Assessment(score=None)
        if self._is_scored(climb, at):
            assessment = self._tiers[at].scorer.assess(climb.request, completion)
        climb.seen.append(Seen(tier=at, assessment=assessment))
        assessment, decision = climb.policy.decide(climb.seen, climb.bounds)
        is_watched = climb.is_watched and at < climb.bounds.final_tier
        if is_watched and self._policies.watcher is not None:
            is_accepted = decision.next_tier is None
            self._policies.watcher.judged(self._tiers[at].name, assessment, is_accepted=is_accepted)
        return assessment, decision

    def _accepted(
        self,
        climb: Climb,
        at: int,
        completion: Completion,
        assessment: Assessment,
        attempt: Attempt,
    ) -> Outcome:
        """Closes the request with this answer; a certified one below the last tier is watched."""
        is_below_last = at < len(self._tiers) - 1
        if is_below_last and any(one.finish_reason == "length" for one in completion.answers):
            climb.is_covered = False  # the client's limit cut it, which no calibration question was
        if is_below_last and climb.is_watched and self._policies.watcher is not None:
            self._policies.watcher.accepted(
                climb.request, self._tiers[at].name, completion, assessment
            )
        latency_s = self._elapsed_s(climb.started_s)
        if climb.request.stream:  # it was held: its first token leaves with its last
            climb.ttft_s = latency_s
        ledger = climb.ledger(attempt)
        self._journal.request_finished(ledger, latency_s)
        return Outcome(completion=completion, ledger=ledger)

    async def _go_live(self, climb: Climb, tier: Tier, started_s: float) -> LiveAnswer:
        """Opens the final tier's stream; returns once its first chunk is here."""

        def finish(
            verdict: Verdict,
            reason: str,
            usage: Usage,
            ttft_s: float | None,
            ended_by: HybridServeError | None = None,
        ) -> Ledger:
            attempt = Attempt(
                tier=tier.name,
                model=tier.model,
                decision=verdict,
                reason=reason,
                prompt_tokens=usage.prompt_tokens,
                cached_tokens=usage.cached_tokens,
                completion_tokens=usage.completion_tokens,
                ttft_s=ttft_s,
                latency_s=self._elapsed_s(started_s),
                error=type(ended_by).__name__ if ended_by else None,
            )
            climb.attempts.append(attempt)
            answering = attempt if verdict is Verdict.ACCEPT else None
            ledger = climb.ledger(answering, ended_by=ended_by)
            self._journal.request_finished(ledger, self._elapsed_s(climb.started_s))
            return ledger

        chunks = tier.engine.stream(
            EngineRequest(request=climb.request, top_logprobs=climb.request.client_top_logprobs)
        )
        first = await anext(chunks, None)
        if first is None:
            raise EngineFailed(f"tier {tier.name!r} sent an empty stream")
        climb.ttft_s = self._elapsed_s(climb.started_s)
        return LiveAnswer(
            tier=tier.name,
            model=tier.model,
            first_chunk=first,
            ttft_s=self._elapsed_s(started_s),
            rest=chunks,
            finish=finish,
        )

    def _answered(
        self,
        climb: Climb,
        at: int,
        completion: Completion,
        assessment: Assessment,
        decision: Decision,
        started_s: float,
    ) -> Attempt:
        return Attempt(
            tier=self._tiers[at].name,
            model=self._tiers[at].model,
            decision=decision.verdict,
            reason=decision.reason,
            score=assessment.score,
            confidence=assessment.confidence,
            risk=assessment.risk,
            prompt_tokens=completion.usage.prompt_tokens,
            cached_tokens=completion.usage.cached_tokens,
            completion_tokens=completion.usage.completion_tokens,
            latency_s=self._elapsed_s(started_s),
            assessment=assessment if climb.request.assess else None,
        )

    def _attempt(
        self,
        at: int,
        verdict: Verdict,
        reason: str,
        started_s: float,
        error: str | None = None,
    ) -> Attempt:
        tier = self._tiers[at]
        return Attempt(
            tier=tier.name,
            model=tier.model,
            decision=verdict,
            reason=reason,
            latency_s=self._elapsed_s(started_s),
            error=error,
        )

    def _record_failure(
        self, climb: Climb, at: int, exc: HybridServeError, started_s: float
    ) -> None:
        error = type(exc).__name__
        climb.attempts.append(self._attempt(at, Verdict.FAIL, str(exc), started_s, error))

    def _elapsed_s(self, since_s: float) -> float:
        return self._clock.monotonic_s() - since_s
