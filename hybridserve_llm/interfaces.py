"""Define the seams where the outside world is swapped; nothing else in the project is swappable."""

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

from hybridserve_llm.values.answers import Assessment, Chunk, Completion, Seen
from hybridserve_llm.values.engines import Work
from hybridserve_llm.values.joules import Activity, Joules, SettledEnergy
from hybridserve_llm.values.ledger import FinishedRequest, Ledger
from hybridserve_llm.values.requests import EngineRequest, GenerateRequest


class Clock(Protocol):
    """Give time to the cascade: monotonic for durations and deadlines, wall for records."""

    def monotonic_s(self) -> float:
        """Return seconds since an arbitrary start; they never go back."""

    def wall_s(self) -> float:
        """Return seconds since the Unix epoch."""


class Engine(Protocol):
    """Represent one tier's engine, or several replicas of it as one.

    Both methods raise ContextLengthExceeded and InvalidRequest as the engine judged the request;
    DeadlineExceeded past the request's deadline; EngineUnavailable without a connection;
    EngineFailed on a server error or a malformed answer. Cancelling the caller closes the
    connection, which ends the work inside vLLM.
    """

    async def complete(self, request: EngineRequest) -> Completion:
        """Return the whole answer."""

    def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer's chunks as they come; the last carries the usage."""


class Scorer(Protocol):
    """Score an answer from its token log-probabilities; pure and quick, called on the hot path."""

    @property
    def name(self) -> str:
        """Return name and version, which are part of the fingerprint."""

    def top_logprobs(self, request: GenerateRequest) -> int:
        """Return the alternatives per token that it reads; 0 = the sampled token's own only."""

    def assess(self, request: GenerateRequest, completion: Completion) -> Assessment:
        """Return the score of the answer, or the reason why it has none."""


class Judge(Protocol):
    """Compute confidence and risk from all answers so far; pure and quick, on the hot path."""

    def judge(self, seen: Sequence[Seen]) -> Assessment:
        """Return the last of `seen` with confidence and risk, where they can be computed."""

    def entry_risk(self, request: GenerateRequest) -> float | None:
        """Return P(the first tier's answer is wrong | prompt); None without a gate."""


class Watcher(Protocol):
    """Test if a certified policy still keeps its promise; must not block and must not raise.

    `level` names the policy to use: the certified one, the stricter one, or the last tier for
    everything.
    """

    @property
    def level(self) -> Literal["normal", "strict", "escalate"]:
        """Return the level that decides the next request."""

    def judged(self, tier: str, assessment: Assessment, *, is_accepted: bool) -> None:
        """Note that a tier below the last was judged, for a request under the certificate."""

    def accepted(
        self, request: GenerateRequest, tier: str, completion: Completion, assessment: Assessment
    ) -> None:
        """Note that a tier below the last gave the answer, for a request under the certificate."""


class RequestJournal(Protocol):
    """Take the ends of requests as they come; must not block and must not raise."""

    def request_finished(self, ledger: Ledger, latency_s: float) -> None:
        """Take a request that ended now, answered or not; the ledger holds its attempts."""


class RecordSink(Protocol):
    """Receive what happened; must not block and must not raise."""

    def requests_finished(self, finished: Sequence[FinishedRequest]) -> None:
        """Take requests that ended, the last of them up to a tenth of a second ago."""

    def request_settled(self, energy: SettledEnergy) -> None:
        """Take the final energy of a request; it comes seconds after its end, for shadows too."""


class WorkObserver(Protocol):
    """Learn when a replica works on a request; must not block and must not raise."""

    def observe(self, work: Work) -> None:
        """Take work that begins; `work` is filled in when it has ended."""


class EnergyMeter(Protocol):
    """Meter the joules of one component; where it cannot, it gives None and a reason."""

    @property
    def known_until_s(self) -> float:
        """Return until when (monotonic) its joules are final; infinite where none are awaited."""

    def between(self, start_s: float, end_s: float, activity: Activity) -> Joules:
        """Return the joules of a span that is not too long ago; only a model uses the activity."""
