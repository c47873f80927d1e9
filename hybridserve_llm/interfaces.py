"""The seams where the outside world is swapped; nothing else in the project is swappable."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

from hybridserve_llm.values.answers import Assessment, Chunk, Completion, Seen
from hybridserve_llm.values.engines import Work
from hybridserve_llm.values.joules import Activity, Joules, SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest, Ledger
from hybridserve_llm.values.requests import EngineRequest, GenerateRequest


class Clock(Protocol):
    """Time as the cascade sees it: monotonic for durations and deadlines, wall for records."""

    def monotonic_s(self) -> float:
        """Seconds since an arbitrary start; never goes back."""

    def wall_s(self) -> float:
        """Seconds since the Unix epoch."""


class Engine(Protocol):
    """One tier's engine, or several replicas of it behind one face.

    Raises (both methods): ContextLengthExceeded and InvalidRequest as the engine judged the
    request; DeadlineExceeded past the request's deadline; EngineUnavailable without a connection;
    EngineFailed on a server error or a malformed answer. Cancelling the caller closes the
    connection, which ends the work inside vLLM.
    """

    async def complete(self, request: EngineRequest) -> Completion:
        """The whole answer."""

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """The answer's chunks as they come; the last carries the usage."""


class Scorer(Protocol):
    """Judges an answer from its token log-probabilities; pure and quick, called on the hot path."""

    @property
    def name(self) -> str:
        """Name and version, part of the fingerprint."""

    def top_logprobs(self, request: GenerateRequest) -> int:
        """Alternatives per token that are read for it; 0 = the sampled token's own only."""

    def assess(self, request: GenerateRequest, completion: Completion) -> Assessment:
        """The score of the answer, or the reason why it has none."""


class Judge(Protocol):
    """Gives confidence and risk from all answers so far; pure and quick, on the hot path."""

    def judge(self, seen: Sequence[Seen]) -> Assessment:
        """The last of `seen` with confidence and risk, where they can be told."""

    def entry_risk(self, request: GenerateRequest) -> float | None:
        """P(the first tier's answer is wrong | prompt), for the gate; None without one."""


class Watcher(Protocol):
    """Looks whether a certified policy still keeps its promise; must not block and must not raise.

    `level` says which policy is to be used: the certified one, the stricter one, or the last tier
    for everything.
    """

    @property
    def level(self) -> Literal["normal", "strict", "escalate"]:
        """What the next request is decided by."""

    def judged(self, tier: str, assessment: Assessment, *, is_accepted: bool) -> None:
        """A tier below the last was judged, for a request that the certificate covers."""

    def accepted(
        self, request: GenerateRequest, tier: str, completion: Completion, assessment: Assessment
    ) -> None:
        """An answer below the last tier was accepted, for a request that the certificate covers."""


class RequestJournal(Protocol):
    """Is told of requests' ends as they come; must not block and must not raise."""

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """A request ended now, answered or not; its attempts are in the ledger."""


class RecordSink(Protocol):
    """Receives what happened; must not block and must not raise."""

    def requests_finished(self, finished: Sequence[FinishedRequest]) -> None:
        """Requests ended, the last of them up to a tenth of a second ago."""

    def request_settled(self, energy: SettledEnergy) -> None:
        """What a request cost is final; comes seconds after its end, and for shadows too."""


class WorkObserver(Protocol):
    """Is told when a replica works on a request; must not block and must not raise."""

    def observe(self, work: Work) -> None:
        """Work begins; when it has ended, `work` says so."""


class EnergyMeter(Protocol):
    """Joules of one component; an implementation that cannot tell gives None and says why."""

    @property
    def known_until_s(self) -> float:
        """Until when (monotonic) its joules are final; infinite where nothing is waited for."""

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Joules of a span that is not too long ago; only a model looks at the activity."""
