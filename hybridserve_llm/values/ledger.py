"""Hold the attempts of one request and how it ended.

Absent is None everywhere, never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import msgspec

from hybridserve_llm.values.answers import Assessment, Completion
from hybridserve_llm.values.requests import Endpoint


class Verdict(StrEnum):
    """What became of an attempt (design section 2); ABORT: given up before it ended."""

    ACCEPT = "accept"
    ESCALATE = "escalate"
    SKIP = "skip"
    ABORT = "abort"
    FAIL = "fail"


class RequestKind(StrEnum):
    """What a request is: to the cascade, to a tier by its own name, or for calibration."""

    CASCADE = "cascade"
    TIER = "tier"
    CALIBRATION = "calibration"


class RequestEnd(StrEnum):
    """How a request ended; INVALID: the request was at fault, GIVEN_UP: its client left."""

    ANSWERED = "answered"
    INVALID = "invalid"
    FAILED = "failed"
    GIVEN_UP = "given_up"


class Attempt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One tier's work for one request: a line of the ledger, and the record `eval/` reads.

    `assessment` holds what else is known of the answer, where the request asked for it; `error` is
    the class of the error that a failed one ended with.
    """

    tier: str
    model: str
    decision: Verdict
    reason: str
    score: float | None = None
    confidence: float | None = None
    risk: float | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    ttft_s: float | None = None
    latency_s: float | None = None
    energy_j: float | None = None
    energy_source: str | None = None
    assessment: Assessment | None = None
    error: str | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A request's attempts in order; `tier` and `model` name the one that answered, if any did.

    `ttft_s` is the time from the request's arrival to the first token that left for the client,
    where it was streamed; `error` the class of the error that it ended with, if it did.
    `energy_reason` says why it has no joules; the last three are as in the request.
    """

    request_id: str
    attempts: tuple[Attempt, ...]
    tier: str | None = None
    model: str | None = None
    confidence: float | None = None
    certified: bool = False
    endpoint: Endpoint | None = None
    end: RequestEnd = RequestEnd.ANSWERED
    error: str | None = None
    ttft_s: float | None = None
    energy_reason: str | None = None
    only_tier: str | None = None
    assess: bool = False
    trace: Mapping[str, str] | None = None

    @property
    def kind(self) -> RequestKind:
        """What was asked of the cascade, of one tier, and for calibration is counted apart."""
        if self.assess:
            return RequestKind.CALIBRATION
        return RequestKind.CASCADE if self.only_tier is None else RequestKind.TIER


class FinishedRequest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A request that ended, answered or not: its ledger, seconds it took, Unix time of its end."""

    ledger: Ledger
    latency_s: float
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the cascade gives for a request that is answered whole."""

    completion: Completion
    ledger: Ledger
