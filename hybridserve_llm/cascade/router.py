"""Run the cascade's one loop: ask a tier, score its answer, accept it or go on up.

Time runs down the page. A streamed request differs only in how the final tier answers:

    tier 0   complete ── assess ── decide: escalate ─┐
    tier 1                                  complete ── assess ── decide: accept ──> Outcome
    final tier, streamed                                          first chunk ──────> LiveAnswer

A tier below the final one is asked for its whole answer, so no token of it leaves before that
answer is accepted. The tokens of a rejected tier therefore cannot reach a client.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from hybridserve_llm.cascade.climb import Climb, Tier
from hybridserve_llm.cascade.coverage import rescoring_of
from hybridserve_llm.cascade.live import LiveAnswer, go_live
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.policy import Bounds, Decision
from hybridserve_llm.errors import (
    ContextLengthExceeded,
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    HybridServeError,
    InvalidRequest,
    RequestError,
)
from hybridserve_llm.interfaces import Clock, RequestJournal
from hybridserve_llm.values.answers import Assessment, Completion, Seen
from hybridserve_llm.values.ends import unfit_end
from hybridserve_llm.values.ledger import Gap, Outcome, Uncovered
from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest, Rescoring


class CascadeRouter:
    """Route requests up the tiers; it keeps no state between requests."""

    def __init__(
        self,
        tiers: Sequence[Tier],
        policies: Policies,
        *,
        journal: RequestJournal,
        clock: Clock,
        energy_reason: str | None = None,
    ) -> None:
        """Take the tiers, cheapest first; ledgers say `energy_reason` in place of joules."""
        self._tiers = tuple(tiers)
        self._policies = policies
        self._index = {tier.name: i for i, tier in enumerate(self._tiers)}
        self._journal = journal
        self._clock = clock
        self._energy_reason = energy_reason

    async def answer(self, request: GenerateRequest) -> Outcome | LiveAnswer:
        """Return the accepted answer; a LiveAnswer if a streamed request reached its final tier.

        A tier that is down, fails, takes too long, rejects the request or cannot hold the prompt is
        passed over, and the ledger says so. Cancelling closes the engine's connection, which aborts
        its work. The attempt is then recorded as aborted.

        Raises:
            InvalidRequest: An override cannot be met, or the final tier rejected the request.
            ContextLengthExceeded: The prompt is longer than the final tier holds.
            DeadlineExceeded: The request's time ran out.
            EngineUnavailable: The final tier, and so the request's last resort, is down.
            EngineFailed: The final tier answered with an error, or with half an answer.
        """
        climb = self._start(request)
        try:
            return await self._go_up(climb)
        except HybridServeError as exc:
            exc.ledger = climb.close(ended_by=exc)
            raise
        except asyncio.CancelledError:
            climb.close()
            raise

    def _start(self, request: GenerateRequest) -> Climb:
        gap = self._policies.gap(request)
        # A request that names one tier goes to that tier, also where no certificate covers it.
        policy = self._policies.pick(request, gap if request.only_tier is None else None)
        if request.overrides.min_confidence is not None and not policy.has_confidence:
            raise InvalidRequest(
                "min_confidence needs a calibrated cascade; this one is uncertified, "
                "so no answer has a confidence",
                parameter="hybridserve.min_confidence",
            )
        bounds = self._bounds(request)
        return Climb(
            request=request,
            policy=policy,
            bounds=bounds,
            uncovered=gap or self._other_tiers(bounds),
            clock=self._clock,
            journal=self._journal,
            energy_reason=self._energy_reason,
            started_s=self._clock.monotonic_s(),
        )

    def _other_tiers(self, bounds: Bounds) -> Uncovered | None:
        """Return why the request's tiers are not those that were certified; None where they are.

        A tier in the middle to begin at makes the cascade another one, not a stricter one.
        """
        last = len(self._tiers) - 1
        if bounds.final_tier == last and bounds.first_tier in (0, last):
            return None
        names = (self._tiers[bounds.first_tier].name, self._tiers[bounds.final_tier].name)
        reason = f"only tiers from {names[0]!r} to {names[1]!r} may answer"
        return Uncovered(gap=Gap.TIERS, reason=reason)

    def _bounds(self, request: GenerateRequest) -> Bounds:
        overrides, last = request.overrides, len(self._tiers) - 1
        first = self._tier_index(request.only_tier or overrides.min_tier, "min_tier", default=0)
        final = self._tier_index(request.only_tier or overrides.max_tier, "max_tier", default=last)
        if first > final:
            raise InvalidRequest(
                f"min_tier {overrides.min_tier!r} is above max_tier {overrides.max_tier!r}",
                parameter="hybridserve.min_tier",
            )
        return Bounds(first_tier=first, final_tier=final, min_confidence=overrides.min_confidence)

    def _tier_index(self, name: str | None, parameter: str, *, default: int) -> int:
        if name is None:
            return default
        if name not in self._index:
            raise InvalidRequest(
                f"{parameter} {name!r} is no tier; allowed: {', '.join(self._index)}",
                parameter=f"hybridserve.{parameter}",
            )
        return self._index[name]

    async def _go_up(self, climb: Climb) -> Outcome | LiveAnswer:
        at = climb.policy.entry(climb.request, climb.bounds)
        while at <= climb.bounds.final_tier:
            tier = self._tiers[at]
            climb.begin(tier)
            try:
                if climb.request.stream and at == climb.bounds.final_tier:
                    return await go_live(climb, tier, self._attempt_deadline_s(climb, at))
                completion = await self._ask(climb, at)
            except (RequestError, EngineUnavailable, EngineFailed) as exc:
                # What one engine rejects (an image, a tool, a role) the next may take.
                climb.failed(exc)
                at = self._above(climb, at)
                continue
            except HybridServeError as exc:
                climb.failed(exc)
                if isinstance(exc, DeadlineExceeded) and self._has_time_above(climb, at):
                    at = self._above(climb, at)
                    continue
                raise
            except asyncio.CancelledError:
                climb.aborted()
                raise
            fault = _unfit(completion) if at == climb.bounds.final_tier else None
            if fault is not None:
                climb.failed(EngineFailed(f"tier {tier.name!r}: {fault}"), completion.usage)
                break
            assessment, decision = self._judge(climb, at, completion)
            climb.answered(decision, completion.usage, assessment)
            if decision.next_tier is None:
                return self._accepted(climb, at, completion, assessment)
            at = decision.next_tier
        raise climb.failure or EngineUnavailable("no tier could be asked")

    @staticmethod
    def _above(climb: Climb, at: int) -> int:
        """Return the tier to ask where `at` gave no answer: the final one before giving up."""
        above, final = climb.policy.above(at), climb.bounds.final_tier
        return min(above, final) if at < final else above

    async def _ask(self, climb: Climb, at: int) -> Completion:
        """Return the whole answer of tier `at`, with log-probabilities only if they are read."""
        tier, wanted = self._tiers[at], climb.request.client_top_logprobs
        is_scored = self._is_scored(climb, at)
        if is_scored:
            wanted = max(tier.scorer.top_logprobs(climb.request), wanted or 0)
        asked = EngineRequest(
            request=climb.request,
            top_logprobs=wanted,
            needs_token_ids=is_scored and tier.needs_token_ids,
            rescoring=rescoring_of(climb.request.payload) if is_scored else Rescoring.NEVER,
            attempt_deadline_s=self._attempt_deadline_s(climb, at),
        )
        try:
            return await tier.engine.complete(asked)
        except ContextLengthExceeded:
            # The client's limit may be more than the tier has room for, and no demand for so much.
            # An answer that is cut at the tier's own limit escalates.
            if not self._may_drop_limit(climb, at):
                raise
            return await tier.engine.complete(replace(asked, drops_output_limit=True))

    def _attempt_deadline_s(self, climb: Climb, at: int) -> float | None:
        """Return until when tier `at` may take, so that the tiers above keep time for an answer.

        Below the final tier that is at most half of the time that is left.
        """
        tier, now_s = self._tiers[at], self._clock.monotonic_s()
        if tier.timeout_s is not None:
            return now_s + tier.timeout_s
        if at >= climb.bounds.final_tier:
            return None
        allowed_s = [] if tier.pace.patience_s is None else [tier.pace.patience_s]
        if climb.request.deadline_s is not None:
            allowed_s.append((climb.request.deadline_s - now_s) / 2)
        return now_s + min(allowed_s) if allowed_s else None

    def _has_time_above(self, climb: Climb, at: int) -> bool:
        """Return whether a tier above `at` may still be asked, after `at` ran out of time."""
        deadline_s = climb.request.deadline_s
        is_late = deadline_s is not None and self._clock.monotonic_s() >= deadline_s
        return at < climb.bounds.final_tier and not is_late

    def _may_drop_limit(self, climb: Climb, at: int) -> bool:
        """Return whether the limit is one that the final tier has room for, and tier `at` has not.

        Without a limit a completion has one of 16, so only a chat's is left out.
        """
        final, limit = climb.bounds.final_tier, climb.request.max_output_tokens
        room = self._tiers[final].max_model_len
        if limit is None or room is None or climb.request.endpoint is not Endpoint.CHAT:
            return False
        return at < final and limit < room

    def _is_scored(self, climb: Climb, at: int) -> bool:
        """Return whether tier `at` is scored: not where its answer is always taken."""
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
        self, climb: Climb, at: int, completion: Completion, assessment: Assessment
    ) -> Outcome:
        """Close the request with this answer; a certified one below the last tier is watched."""
        is_below_last = at < len(self._tiers) - 1
        is_cut = any(one.finish_reason == "length" for one in completion.answers)
        if is_below_last and is_cut and climb.uncovered is None:
            reason = "the client's limit cut the answer, as it cut none of the calibration"
            climb.uncovered = Uncovered(gap=Gap.CUT, reason=reason)
        if is_below_last and climb.is_watched and self._policies.watcher is not None:
            self._policies.watcher.accepted(
                climb.request, self._tiers[at].name, completion, assessment
            )
        return Outcome(completion=completion, ledger=climb.close())


def _unfit(completion: Completion) -> str | None:
    """Return why this is no answer of the final tier, whose answers are not judged otherwise."""
    faults = (unfit_end(answer.finish_reason) for answer in completion.answers)
    return next((fault for fault in faults if fault is not None), None)
