"""Make models and policies of a certificate, and find out what the scorers must read for them."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from hybridserve_llm.cascade.coverage import Coverage, sampling_of
from hybridserve_llm.cascade.risk_policy import RiskBand, RiskPolicy, RiskRule
from hybridserve_llm.confidence.day_zero import Reads
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES
from hybridserve_llm.confidence.risk_models import (
    LinearModel,
    RiskModels,
    State,
    StateModel,
    state_feature_names,
)
from hybridserve_llm.config.certificate import BandPart, Certificate, LinearPart, PolicyPart
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.values.requests import Endpoint

_MARGINS = ("mean_margin", "min_margin", "first_margin")


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedParts:
    """Hold what a certificate is served by; the policies are None where nothing was certified."""

    models: RiskModels
    policy: RiskPolicy | None
    strict_policy: RiskPolicy | None
    coverage: Coverage
    reads: Reads


def certified_parts(
    certificate: Certificate, tiers: Sequence[str], *, is_certified: bool
) -> CertifiedParts:
    """Return the parts for a cascade of `tiers`; `is_certified`: its fingerprint matches.

    Raises:
        ConfigError: The certificate is for other tiers, or a model reads a feature that this
            version does not know.
    """
    if tuple(tiers) != certificate.tiers:
        raise ConfigError(
            f"the certificate is for the tiers {', '.join(certificate.tiers)}, and the "
            f"configuration has {', '.join(tiers)}"
        )
    index = {name: i for i, name in enumerate(tiers)}
    models = _models(certificate, index)

    def policy(part: PolicyPart | None) -> RiskPolicy | None:
        if part is None:
            return None
        return RiskPolicy(
            chain=tuple(index[name] for name in certificate.chain),
            rules={
                tuple(index[name] for name in rule.asked): RiskRule(
                    accept_at_most=_bound(rule.accept_at_risk),
                    bands=tuple(_band(band, index) for band in rule.else_ask),
                )
                for rule in part.rules
            },
            share=part.share,
            judge=models,
            is_certified=is_certified,
        )

    return CertifiedParts(
        models=models,
        policy=policy(certificate.policy),
        strict_policy=policy(certificate.strict_policy),
        coverage=Coverage(
            endpoints=frozenset(map(Endpoint, certificate.endpoints)),
            sampling=sampling_of(certificate.sampling),
            demands=frozenset(map(frozenset, certificate.demands)),
        ),
        reads=_reads(certificate),
    )


def last_only(n_tiers: int, judge: RiskModels) -> RiskPolicy:
    """Return the policy that asks the last tier for everything, and so loses nothing against it."""
    return RiskPolicy(chain=(n_tiers - 1,), rules={}, judge=judge, is_certified=True)


def _models(certificate: Certificate, index: dict[str, int]) -> RiskModels:
    states: dict[State, StateModel] = {}
    for part in certificate.models:
        state = tuple(index[name] for name in part.asked)
        known = state_feature_names(certificate.tiers, state)
        states[state] = StateModel(
            wrong=_linear(part.wrong, known), last_right=_linear(part.last_right, known)
        )
    gate = certificate.gate
    return RiskModels(
        states=states, gate=None if gate is None else _linear(gate, PROMPT_FEATURE_NAMES)
    )


def _linear(part: LinearPart, known: Sequence[str]) -> LinearModel:
    places = {name: i for i, name in enumerate(known)}
    unknown = [name for name in part.features if name not in places]
    if unknown:
        raise ConfigError(f"the certificate reads the feature {unknown[0]!r}, unknown here")
    return LinearModel(
        intercept=part.intercept,
        columns=tuple(places[name] for name in part.features),
        slopes=part.slopes,
        means=part.means,
    )


def _reads(certificate: Certificate) -> Reads:
    """Return what the models read besides scores."""
    agreements: set[str] = set()
    own: set[str] = set()
    for part in certificate.models:
        read = {*part.wrong.features, *part.last_right.features}
        agreements |= read & {f"agree.{a}.{b}" for a, b in itertools.combinations(part.asked, 2)}
        own |= {name for name in FEATURE_NAMES if f"{part.asked[-1]}.{name}" in read}
    return Reads(
        agreement=bool(agreements), features=bool(own), margins=not own.isdisjoint(_MARGINS)
    )


def _bound(value: float | None) -> float:
    return -math.inf if value is None else value


def _band(band: BandPart, index: dict[str, int]) -> RiskBand:
    return RiskBand(risk_above=_bound(band.risk_above), to_tier=index[band.tier])
