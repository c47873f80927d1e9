"""Hold what a cascade is and what it may promise."""

from collections.abc import Mapping
from dataclasses import dataclass

from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.promise.fingerprint import Fingerprint
from hybridserve_llm.promise.standing import Standing


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeView:
    """Hold what the cascade is and may promise, for `/v1/cascade`; mappings are by tier.

    `gear` is the planner's name of the plan that runs, where it made several for several loads.
    """

    models: Mapping[str, str]
    active_parameters: Mapping[str, int | None]
    fingerprint: Fingerprint
    standing: Standing
    certificate: Certificate | None = None
    gear: str | None = None
