"""Choose the policy of a request by what it asks for and by what the certificate covers."""

from dataclasses import dataclass
from typing import Literal

from hybridserve_llm.cascade.coverage import Coverage
from hybridserve_llm.cascade.policy import Policy
from hybridserve_llm.errors import InvalidRequest
from hybridserve_llm.interfaces import Watcher
from hybridserve_llm.values.ledger import Gap, Uncovered
from hybridserve_llm.values.requests import GenerateRequest

_TO_LAST = frozenset({Gap.UNKNOWN_FIELD, Gap.DEMAND})
"""List the gaps at which the last tier answers unless the configuration says otherwise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Hold the policies of one cascade.

    Attributes:
        default: The policy, unless the request or the watch asks for another one.
        last_only: Asks the last tier for everything; taken when the watch says so.
        strict: The stricter certified policy, if there is one.
        coverage: The requests that the certificate covers; None where none holds.
        uncertified: Why no certificate holds, where that is so.
        uncovered: Who answers what the certificate does not cover: the last tier alone, or the
            cascade without a promise. None leaves settings to the cascade, and unknown fields and
            demands on the form of the answer to the last tier.
        watcher: Checks that the certificate still holds; None without a certificate.
    """

    default: Policy
    last_only: Policy
    strict: Policy | None = None
    coverage: Coverage | None = None
    uncertified: str = "no certificate"
    uncovered: Literal["last", "cascade"] | None = None
    watcher: Watcher | None = None

    def pick(self, request: GenerateRequest, gap: Uncovered | None = None) -> Policy:
        """Return the policy for this request, which the certificate does not cover if it has a gap.

        Raises:
            InvalidRequest: The request asks for the stricter policy, and none exists.
        """
        level = self.watcher.level if self.watcher is not None else "normal"
        wished = request.overrides.policy or "default"
        if wished == "strict" and self.strict is None:
            raise InvalidRequest(
                "policy 'strict' does not exist: no stricter policy is certified",
                parameter="hybridserve.policy",
            )
        if wished == "last" or level == "escalate" or self._goes_to_last(gap):
            return self.last_only
        if self.strict is not None and (wished == "strict" or level == "strict"):
            return self.strict
        return self.default

    def gap(self, request: GenerateRequest) -> Uncovered | None:
        """Return why no certificate covers the request's body; None where one does."""
        if self.coverage is None:
            return Uncovered(gap=Gap.NO_CERTIFICATE, reason=self.uncertified)
        return self.coverage.gap(request)

    def _goes_to_last(self, gap: Uncovered | None) -> bool:
        if gap is None or gap.gap is Gap.NO_CERTIFICATE:
            return False
        return gap.gap in _TO_LAST if self.uncovered is None else self.uncovered == "last"
