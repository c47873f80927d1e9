"""Build the policies that a user names: a certificate's, or one threshold a tier."""

from collections.abc import Sequence
from pathlib import Path

from eval.rivals.policy_replay import ServedPolicy
from hybridserve_llm.cascade.policy import ScorePolicy, TierRule
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.promise.certified import certified_parts

_NEVER = float("inf")


def certified_policy(path: Path, certificate: Certificate, *, strict: bool) -> ServedPolicy:
    """Return the certificate's policy as a server has it; `path` names it in messages.

    Raises:
        CannotBeDone: It has no such policy.
    """
    parts = certified_parts(certificate, certificate.tiers, is_certified=True)
    policy = parts.strict_policy if strict else parts.policy
    if policy is None:
        which = "stricter policy" if strict else "policy"
        raise CannotBeDone(f"{path} certifies no {which}")
    return ServedPolicy(policy=policy, models=parts.models)


def threshold_policy(tiers: Sequence[str], accept: dict[str, float]) -> ScorePolicy:
    """Return the server's policy of one threshold a tier; a tier without one accepts nothing.

    Raises:
        ConfigError: A threshold is for the last tier, whose answer is always taken, or for none.
    """
    for name in accept:
        if name not in tiers[:-1]:
            allowed = ", ".join(tiers[:-1])
            raise ConfigError(f"--accept {name}: not a tier below the last; allowed: {allowed}")
    return ScorePolicy(rules=tuple(TierRule(accept_at=accept.get(name, _NEVER)) for name in tiers))
