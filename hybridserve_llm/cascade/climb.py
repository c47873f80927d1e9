"""One request on its way up the tiers, and the tiers that it climbs."""

from dataclasses import dataclass, field

from hybridserve_llm.cascade.policy import Bounds, Policy
from hybridserve_llm.errors import HybridServeError, RequestError
from hybridserve_llm.interfaces import Engine, Scorer
from hybridserve_llm.values.answers import Seen
from hybridserve_llm.values.ledger import Attempt, Ledger, RequestEnd
from hybridserve_llm.values.requests import GenerateRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class Tier:
    """One tier as the cascade sees it; `model` is the checkpoint's name in ledgers."""

    name: str
    model: str
    engine: Engine
    scorer: Scorer
    needs_token_ids: bool = False


@dataclass(slots=True)
class Climb:
    """One request on its way up: what was tried so far, and what went wrong last.

    `is_covered`: whether the certificate, if there is one, still speaks of this request. `ttft_s`:
    from its arrival to the first token that a streamed one got, of the tier that answers.
    """

    request: GenerateRequest
    policy: Policy
    bounds: Bounds
    is_covered: bool
    started_s: float
    attempts: list[Attempt] = field(default_factory=list)
    seen: list[Seen] = field(default_factory=list)
    failure: HybridServeError | None = None
    energy_reason: str | None = None
    ttft_s: float | None = None

    @property
    def is_certified(self) -> bool:
        """Whether the certificate's promise holds for the answer that is to come."""
        return self.policy.is_certified and self.is_covered and self.failure is None

    @property
    def is_watched(self) -> bool:
        """Whether its decisions tell of the policy that is watched, and not of a stricter one."""
        overrides = self.request.overrides
        is_plain = overrides.min_confidence is None and overrides.policy in (None, "default")
        return is_plain and self.is_certified

    def ledger(
        self, answering: Attempt | None, *, ended_by: HybridServeError | None = None
    ) -> Ledger:
        """What was done so far; `answering` is the attempt whose answer is taken, if one is.

        Without an answer `ended_by` is what went wrong, and None where the client gave up.
        """
        return Ledger(
            request_id=self.request.request_id,
            attempts=tuple(self.attempts),
            tier=answering.tier if answering else None,
            model=answering.model if answering else None,
            confidence=answering.confidence if answering else None,
            certified=answering is not None and self.is_certified,
            endpoint=self.request.endpoint,
            end=_end(answering, ended_by),
            error=type(ended_by).__name__ if ended_by else None,
            ttft_s=self.ttft_s,
            energy_reason=self.energy_reason,
            only_tier=self.request.only_tier,
            assess=self.request.assess,
            trace=self.request.trace,
        )


def _end(answering: Attempt | None, ended_by: HybridServeError | None) -> RequestEnd:
    if answering is not None:
        return RequestEnd.ANSWERED
    if ended_by is None:
        return RequestEnd.GIVEN_UP
    return RequestEnd.INVALID if isinstance(ended_by, RequestError) else RequestEnd.FAILED
