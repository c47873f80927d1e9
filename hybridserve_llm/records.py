"""The values that pass between layers, all frozen but `Work`; the attempt record is `eval/`'s too.

Absent is None everywhere: an unknown token count, a score that could not be computed and energy
that nobody measured are None, never 0.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, NamedTuple

import msgspec

JsonObject = Mapping[str, Any]
"""A decoded JSON object as it came over the wire."""


class Endpoint(StrEnum):
    """Which OpenAI endpoint a request came to, and so which one the engine is asked."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Overrides:
    """What one request asks of the cascade beyond its configuration; None asks nothing."""

    min_confidence: float | None = None
    min_tier: str | None = None
    max_tier: str | None = None
    policy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateRequest:
    """One client request, checked and free of HTTP.

    Attributes:
        request_id: Unique id; returned as `x-request-id`, sent to engines, key of all records.
        payload: The body for an engine without `model`, `stream`, `stream_options`, the
            log-probability fields and `hybridserve`, which are set per attempt.
        max_output_tokens: The client's own limit, or None. An answer cut at it is scored as it is.
        client_top_logprobs: Log-probabilities the client asked for (0 = sampled token only), or
            None when it asked for none.
        deadline_s: Reading of the monotonic clock after which no answer is wanted.
        json_answer: Whether the client asked for an answer that parses as JSON.
        tool_names: Names of the tools offered; a call of any other fails its check.
        assess: Whether every answer is to be scored, the final tier's too, and all that is known
            of it is to be told; for calibration.
        trace: The client's W3C trace context, its headers `traceparent` and, if sent, `tracestate`;
            engines get them as they are. None where it sent none.
        is_shadow: Whether the watch asks, to compare an answer that a user got already.
        only_tier: The tier whose own name the client gave as model; None for the cascade.
    """

    request_id: str
    endpoint: Endpoint
    payload: JsonObject
    stream: bool = False
    include_usage: bool = False
    max_output_tokens: int | None = None
    client_top_logprobs: int | None = None
    overrides: Overrides = field(default_factory=Overrides)
    deadline_s: float | None = None
    json_answer: bool = False
    tool_names: frozenset[str] = frozenset()
    assess: bool = False
    trace: Mapping[str, str] | None = None
    is_shadow: bool = False
    only_tier: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRequest:
    """What one engine is asked: a client request, with how many log-probabilities to send back.

    `top_logprobs` is None for none, 0 for the sampled token's alone.
    """

    request: GenerateRequest
    top_logprobs: int | None
    needs_token_ids: bool = False


class Usage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Tokens an engine counted for one attempt; None where it did not say."""

    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """One tool call of an answer; `arguments` is the text the model wrote, not yet parsed."""

    name: str
    arguments: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One choice of a completion, as far as scoring needs it.

    Attributes:
        text: The answer without reasoning; empty when the model wrote none.
        logprobs: Log-probability (natural log) of every generated token, reasoning and markup
            included, shape [n_tokens]; None when the engine sent none. An entry is None where the
            engine left one token's out.
        token_ids: Ids of the same tokens, shape [n_tokens]; None when not asked for.
        token_bytes: Text of the same tokens in UTF-8, shape [n_tokens]; None when the engine did
            not tell every token's. vLLM gives a character that several tokens share to the last
            of them and leaves the others empty; other engines may give each its own bytes.
        margins: Probability of the likeliest token minus that of the next, among the alternatives
            that the engine returned, shape [n_tokens]; an entry is None where it returned fewer
            than two, and the whole is None where that is so for all.
    """

    text: str
    finish_reason: str | None
    logprobs: tuple[float | None, ...] | None = None
    token_ids: tuple[int, ...] | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    token_bytes: tuple[bytes, ...] | None = None
    margins: tuple[float | None, ...] | None = None


class Work(msgspec.Struct, array_like=True, eq=False, gc=False):
    """One replica's work on one request, kept up to date by whoever has it done.

    Attributes:
        replica: As `tier/number`.
        number: Tells it from the replica's other work, that of the same request too.
        is_shadow: No client asked for it; `is_calibration`: the request wants to be assessed.
        start_s: Monotonic, like the other two.
        end_s: None while it goes on, whatever comes of it then.
        first_token_s: When its first token came; None where that was not seen.
        usage: The tokens that the engine reported.
    """

    request_id: str
    tier: str
    replica: str
    number: int
    is_shadow: bool
    is_calibration: bool
    start_s: float
    end_s: float | None = None
    first_token_s: float | None = None
    usage: Usage = Usage()


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """An engine's whole answer: the parts we read, and `body`, the JSON it sent."""

    answers: tuple[Answer, ...]
    usage: Usage
    body: JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One event of an engine's stream: the JSON it sent, and its usage where the event says it."""

    body: JsonObject
    usage: Usage | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Assessment:
    """What is said of an answer: by a scorer from its own tokens, then by a judge from all so far.

    Attributes:
        score: None when no score may be given (a missing log-probability, an empty answer, a
            failed check); `reason` then says why.
        confidence: Calibrated P(right); None without calibration.
        risk: Calibrated P(accepting it does harm); None without calibration.
        answer_key: Normal form of the answer: equal keys agree. None where nobody reads it.
        features: The answer's features by name; None where nobody reads them, or none are known.
        output_type: Kind of answer, known with the features.
    """

    score: float | None
    confidence: float | None = None
    reason: str | None = None
    risk: float | None = None
    answer_key: str | None = None
    features: Mapping[str, float | None] | None = None
    output_type: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """An answer of the tier with index `tier` that a request has got so far."""

    tier: int
    assessment: Assessment


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


class Source(StrEnum):
    """The rungs of the ladder, best first; a sum carries the worst of its parts."""

    NVML_ENERGY = "nvml_energy"
    ZEUS_ENERGY = "zeus_energy"
    RAPL = "rapl"
    NVML_POWER = "nvml_power_integrated"
    ZEUS_POWER = "zeus_power_integrated"
    MODEL = "model"
    UNAVAILABLE = "unavailable"


class Flag(StrEnum):
    """What a reader of an amount has to know beside its source."""

    STALLED = "counter_stalled"
    RESET = "counter_reset"
    JUMPED = "counter_jumped"
    WRAPPED = "counter_wrapped"
    INCONSISTENT = "inconsistent"
    """Counter and integrated power differed by more than 10 % in the last comparison."""
    ALLOCATED = "allocated"
    """A shared device was split by a rule, not by measured activity."""
    ESTIMATED = "estimated"
    """The tokens of a request were not known, so its share was estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joules:
    """Energy of a span of time.

    Attributes:
        energy_j: None where it is not known; `reason` then says why.
        edge_j: By how much it may be off because a span begins or ends between two readings.
        grade: What a model rests on (`measured`, `calibrated-2pt`, `fleet-fit`, `datasheet`,
            `user`); None for measured energy.
    """

    energy_j: float | None
    source: Source
    reason: str | None = None
    edge_j: float = 0.0
    grade: str | None = None
    flags: frozenset[Flag] = frozenset()

    @property
    def label(self) -> str:
        """The source as records show it, a model with its grade: `model:datasheet`."""
        return self.source if self.grade is None else f"{self.source}:{self.grade}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What a replica did in a span: what a power model may look at.

    Attributes:
        running: Requests running, on average.
        prompt_tokens_per_s: Prompt tokens computed; None where no request told.
        output_tokens_per_s: Tokens generated; None where no request told.
    """

    running: float
    prompt_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None


class ComponentEnergy(NamedTuple):
    """Energy of one component (`gpu`, `cpu`, `dram`); None where it is not known, with why.

    A tuple for the same reason as `SettledEnergy`.

    Attributes:
        energy_j: While serving, without idle time.
        source: The meter, the worst of all that took part (docs/energy.md).
        edge_j: By how much it may be off because meters are read ten times a second.
        flags: What else a reader has to know: `allocated`, `estimated`, `counter_reset`, …
    """

    energy_j: float | None
    source: str
    reason: str | None = None
    edge_j: float | None = None
    flags: tuple[str, ...] = ()


class SettledEnergy(NamedTuple):
    """What a request cost in the end, over every tier it visited, retries included.

    A tuple, as a frozen dataclass of so many fields takes four times as long to make, and one is
    made for every request.

    Attributes:
        booking: `user`, `shadow` or `calibration`: whose joules they are.
        tier: The tier that answered; None where none did.
        component: What `active_j` and `loaded_j` are of: `gpu` where engines run on GPUs.
        active_j: Energy while serving, shared by tokens computed.
        loaded_j: The same plus its share of the idle energy of its tiers in the last hour.
        source: The worst of all meters that took part.
        reason: Why joules are null, or why the best meter was not used.
        tiers: Active joules by tier.
        components: All components, `component` among them.
    """

    request_id: str
    booking: str
    tier: str | None
    component: str
    active_j: float | None
    loaded_j: float | None
    source: str
    reason: str | None
    edge_j: float | None
    flags: tuple[str, ...]
    tiers: Mapping[str, float | None]
    components: Mapping[str, ComponentEnergy]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What the cascade gives for a request that is answered whole."""

    completion: Completion
    ledger: Ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What a running engine says of itself; None where it does not say."""

    model: str
    max_model_len: int | None = None


HealthState = Literal["unknown", "up", "down"]
