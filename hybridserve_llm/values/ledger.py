"""Hold the attempts of one request and how it ended.

Absent is None everywhere, never 0. Servers write these classes as JSON into responses and records,
and `eval/` reads that JSON back into the same classes. Bounds are checked where JSON is read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import msgspec

from hybridserve_llm.values.answers import Assessment, Completion
from hybridserve_llm.values.requests import Endpoint

Count = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0)]


class Verdict(StrEnum):
    """Name what became of an attempt (design section 2); ABORT: given up before it ended."""

    ACCEPT = "accept"
    ESCALATE = "escalate"
    SKIP = "skip"
    ABORT = "abort"
    FAIL = "fail"


class RequestKind(StrEnum):
    """Name what a request asks: the cascade, a tier by its own name, or a calibration answer."""

    CASCADE = "cascade"
    TIER = "tier"
    CALIBRATION = "calibration"


class RequestEnd(StrEnum):
    """Name how a request ended; INVALID: the request was at fault, GIVEN_UP: its client left."""

    ANSWERED = "answered"
    INVALID = "invalid"
    FAILED = "failed"
    GIVEN_UP = "given_up"


class Gap(StrEnum):
    """Name why no certificate covers an answer.

    UNKNOWN_FIELD, DEMAND, SETTING and ENDPOINT are of the request's body (`cascade.coverage`).
    TIERS: it may not ask the tiers that were certified. CUT: its limit of tokens cut the answer.
    FAILURE: a tier gave no answer, so another one answered than was certified.
    """

    NO_CERTIFICATE = "no_certificate"
    UNKNOWN_FIELD = "unknown_field"
    DEMAND = "demand"
    SETTING = "setting"
    ENDPOINT = "endpoint"
    TIERS = "tiers"
    CUT = "cut"
    FAILURE = "failure"


class Uncovered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold why no certificate covers an answer, as a kind and in words."""

    gap: Gap
    reason: str


class TierWork(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold what every record of an attempt has: one tier's work for one request.

    Attributes:
        model: The checkpoint. A measured run does not keep it for its served requests.
        reason: Why the attempt was decided so, why there is no score, or why it failed.
        latency_s: From the call of the engine to the end of its answer.
        energy_j: Active joules. A server settles them after the answer, so its ledger has none yet.
        energy_source: The meter of the joules, as the server names it.
    """

    tier: str
    model: str | None = None
    reason: str | None = None
    score: float | None = None
    prompt_tokens: Count | None = None
    cached_tokens: Count | None = None
    completion_tokens: Count | None = None
    latency_s: Amount | None = None
    energy_j: Amount | None = None
    energy_source: str | None = None


class Attempt(TierWork, frozen=True, kw_only=True, gc=False):
    """Hold one tier's work for a request as a line of the ledger, with what was decided of it.

    `assessment` holds what else is known of the answer, where the request asked for it. `error` is
    the class of the error that a failed attempt ended with.
    """

    decision: Verdict
    confidence: float | None = None
    risk: float | None = None
    ttft_s: Amount | None = None
    assessment: Assessment | None = None
    error: str | None = None


class Ledger(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold a request's attempts in order; `tier` and `model` name the one that answered, if any.

    `uncovered` says why an answer is not certified; None where it is, and without an answer.
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
    uncovered: Uncovered | None = None
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
        """Return the kind of request, since the kinds are counted apart."""
        if self.assess:
            return RequestKind.CALIBRATION
        return RequestKind.CASCADE if self.only_tier is None else RequestKind.TIER


class FinishedRequest(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Hold the ledger of a request that ended, the seconds it took, and its end in Unix time."""

    ledger: Ledger
    latency_s: float
    time_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Hold what the cascade returns for a request that is answered whole."""

    completion: Completion
    ledger: Ledger
