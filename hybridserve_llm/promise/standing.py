"""Decide what the running cascade may promise, and which policies follow from that.

no certificate                      thresholds on the raw score: uncertified
certificate, same fingerprint       its policy: certified
certificate, other fingerprint      everything to the last tier; or, where a person allowed it
                                    by a flag, its policy: uncertified
certificate that certifies nothing  everything to the last tier
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hybridserve_llm.cascade.coverage import Coverage
from hybridserve_llm.cascade.policy import Policy, ScorePolicy, SkipRule, TierRule
from hybridserve_llm.cascade.risk_policy import RiskPolicy
from hybridserve_llm.confidence.day_zero import Reads
from hybridserve_llm.confidence.risk_models import RiskModels
from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.promise.certified import certified_parts, last_only
from hybridserve_llm.promise.fingerprint import Fingerprint, differences

State = Literal["certified", "uncertified", "last_tier_only"]
STATES: tuple[State, ...] = ("certified", "uncertified", "last_tier_only")
CertificateStatus = Literal["none", "valid", "of_another_cascade", "certifies_nothing"]
CERTIFICATE_STATUSES: tuple[CertificateStatus, ...] = (
    "none",
    "valid",
    "of_another_cascade",
    "certifies_nothing",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Hold what is promised, the reasons, and the policies to decide by.

    `certificate` is the standing of the certificate alone, without what a person allowed.
    """

    state: State
    certificate: CertificateStatus
    reasons: tuple[str, ...]
    default: Policy
    last_only: RiskPolicy
    strict: RiskPolicy | None = None
    coverage: Coverage | None = None
    reads: Reads


def standing_of(
    config: CascadeConfig,
    certificate: Certificate | None,
    fingerprint: Fingerprint,
    *,
    allow_uncertified: bool,
) -> Standing:
    """Return the standing of a cascade that runs with this fingerprint.

    Raises:
        ConfigError: The certificate is for other tiers, or needs another version of this program.
    """
    names = [tier.name for tier in config.tiers]
    if certificate is None:
        return Standing(
            state="uncertified",
            certificate="none",
            reasons=("no certificate: thresholds are on the raw score",),
            default=score_policy(config),
            last_only=last_only(len(names), RiskModels(states={})),
            reads=Reads(),
        )
    changes = _changes(certificate, fingerprint)
    parts = certified_parts(certificate, names, is_certified=not changes)
    alone = last_only(len(names), parts.models)
    reasons = tuple(f"fingerprint differs: {change}" for change in changes)
    if parts.policy is None:
        reasons = ("the certificate says that nothing which pays can be certified", *reasons)
    is_served = parts.policy is not None and (not changes or allow_uncertified)
    state: State = "uncertified" if changes else "certified"
    holds: CertificateStatus = "certifies_nothing" if parts.policy is None else "valid"
    return Standing(
        state=state if is_served else "last_tier_only",
        certificate="of_another_cascade" if changes else holds,
        reasons=reasons,
        default=parts.policy if parts.policy is not None and is_served else alone,
        last_only=alone,
        strict=parts.strict_policy if is_served else None,
        coverage=parts.coverage if is_served and not changes else None,
        reads=parts.reads,
    )


def score_policy(config: CascadeConfig) -> ScorePolicy:
    """Return the policy of the thresholds on raw scores that `config` sets."""
    names = [tier.name for tier in config.tiers]
    return ScorePolicy(rules=tuple(_rule(tier, names) for tier in config.tiers))


def _changes(certificate: Certificate, fingerprint: Fingerprint) -> list[str]:
    if certificate.fingerprint is None:
        return ["the certificate has none: it was made from records of no known cascade"]
    if certificate.fingerprint.hash == fingerprint.hash:
        return []
    return differences(certificate.fingerprint.parts, fingerprint.parts) or ["hash"]


def _rule(config: TierConfig, names: Sequence[str]) -> TierRule:
    if config.accept is None:  # the last tier's rule is never asked
        return TierRule(accept_at=math.inf)
    return TierRule(
        accept_at=config.accept.score_at_least,
        skips=tuple(
            SkipRule(score_below=band.score_below, to_tier=names.index(band.to))
            for band in config.skip
        ),
    )
