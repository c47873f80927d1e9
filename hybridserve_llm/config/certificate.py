"""Define the certificate file, in which `hs-calibrate` writes what it found.

It is JSON that a person can read and compare. Tiers and features go by name, numbers are plain,
-inf ("never") is null. Reading it checks its form. The fingerprint decides if it holds for a
running cascade.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.faults import first_fault
from hybridserve_llm.files import read_bytes

Finite = Annotated[float, Field(allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


class _CertificatePart(BaseModel):
    """Forbid unknown keys and changes in every part of a certificate."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LinearPart(_CertificatePart):
    """Hold a logistic model: `sigmoid(intercept + sum_i slopes_i (features_i - means_i))`.

    An absent feature adds 0.
    """

    intercept: Finite
    features: tuple[str, ...]
    slopes: tuple[Finite, ...]
    means: tuple[Finite, ...]

    @model_validator(mode="after")
    def _check_lengths(self) -> Self:
        if not len(self.features) == len(self.slopes) == len(self.means):
            raise ValueError("features, slopes and means must be of one length")
        return self


class StatePart(_CertificatePart):
    """Hold the models of the answer of the last of `asked`, given all answers so far."""

    asked: tuple[str, ...] = Field(min_length=1)
    wrong: LinearPart
    last_right: LinearPart


class BandPart(_CertificatePart):
    """Send a prompt with a risk above `risk_above` (null: any risk) to `tier`."""

    risk_above: Finite | None
    tier: str


class RulePart(_CertificatePart):
    """Accept where risk <= `accept_at_risk` (null: nothing), else apply the last band that fits."""

    asked: tuple[str, ...]
    accept_at_risk: Finite | None
    else_ask: tuple[BandPart, ...] = Field(min_length=1)


class PolicyPart(_CertificatePart):
    """Hold a whole policy and its figures on the certify split.

    Attributes:
        share: Of all prompts, how many go through the chain, by a number made from their text; the
            others go to the last tier at once.
        acceptance: Share of all certify questions that each tier below the last answers.
        disagreement: Upper bound on the share of all requests that are answered below the last tier
            and disagree with it; the watch tests this bound.
    """

    rules: tuple[RulePart, ...]
    share: float = Field(default=1.0, gt=0, le=1)
    n: int = Field(ge=1)
    n_lost: int = Field(ge=0)
    n_rescued: int = Field(ge=0)
    p_value: Share
    acceptance: dict[str, Share]
    disagreement: Share
    mean_cost: float = Field(gt=0)


class CostPart(_CertificatePart):
    """Hold the mean cost of a request at each tier, in the cascade, and at the last tier alone.

    `cascade` and `last` are those of the test questions, or of the certify questions without any.
    """

    source: str
    tiers: dict[str, float]
    cascade: float = Field(gt=0)
    last: float = Field(gt=0)


class FingerprintPart(_CertificatePart):
    """Hold what the certificate is valid for; `hash` is of `parts`."""

    hash: str
    parts: dict[str, Any]


class Certificate(_CertificatePart):
    """Hold a fitted cascade with its promise, or the finding that no promise pays.

    Attributes:
        demands: What the questions demanded of the form of their answers, each combination once;
            the empty one is free text (`cascade.coverage`).
    """

    schema_: Literal["hybridserve-certificate/1"] = Field(alias="schema")
    created: str
    certified: bool
    preset: Literal["accuracy", "energy"]
    labels: Literal["reference", "agreement"]
    loss: Literal["net", "harm"]
    epsilon: Share
    delta: Share
    tiers: tuple[str, ...] = Field(min_length=2)
    chain: tuple[str, ...] = Field(min_length=1)
    n_fit: int = Field(ge=1)
    n_certify: int = Field(ge=1)
    estimand: Literal["question", "question_of_group"] = "question"
    data_sha256: str
    endpoints: tuple[Literal["/v1/chat/completions", "/v1/completions"], ...] = Field(min_length=1)
    sampling: dict[str, Any]
    demands: tuple[tuple[str, ...], ...] = ((),)
    fingerprint: FingerprintPart | None
    cost: CostPart
    models: tuple[StatePart, ...]
    gate: LinearPart | None
    policy: PolicyPart | None
    strict_policy: PolicyPart | None

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        order = {name: i for i, name in enumerate(self.tiers)}
        rules = [r for p in (self.policy, self.strict_policy) if p for r in p.rules]
        named = [self.chain, *(s.asked for s in self.models), *(r.asked for r in rules)]
        named += [tuple(band.tier for band in rule.else_ask) for rule in rules]
        named += [(*rule.asked, band.tier) for rule in rules for band in rule.else_ask]
        for names in named:
            unknown = [name for name in names if name not in order]
            if unknown:
                raise ValueError(f"tier {unknown[0]!r} is not among tiers {', '.join(order)}")
            places = [order[name] for name in names]
            if places != sorted(set(places)):
                raise ValueError(f"tiers {', '.join(names)} are not in order, each once")
        if self.chain[-1] != self.tiers[-1]:
            raise ValueError(f"the chain must end in the last tier, {self.tiers[-1]!r}")
        if self.cost.tiers.keys() != order.keys():
            raise ValueError(f"cost.tiers must name the tiers {', '.join(order)}, each once")
        if self.certified != (self.policy is not None):
            raise ValueError("certified must be true with a policy, and false without one")
        return self

    @property
    def dropped(self) -> tuple[str, ...]:
        """Return the tiers that do not pay, and are asked nothing."""
        return tuple(name for name in self.tiers if name not in self.chain)

    @property
    def cost_ratio(self) -> float:
        """Return the cost of the last tier alone over the cascade's."""
        return self.cost.last / self.cost.cascade

    def to_json(self) -> str:
        """Return the file's text: indented, keys in the order of this class."""
        values = self.model_dump(mode="json", by_alias=True)
        return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode() + "\n"


def load_certificate(path: Path) -> Certificate:
    """Read the certificate in the file `path`.

    Raises:
        ConfigError: The file cannot be read, or is not a certificate of a schema known here.
    """
    data = read_bytes(path, name=f"certificate {path}")
    try:
        return Certificate.model_validate(orjson.loads(data))
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"certificate {path} is not JSON: {exc}") from exc
    except ValidationError as exc:
        raise ConfigError(f"certificate {path}: {first_fault(exc)}") from exc


def certified_reach(certificate: Certificate, *, shadow_share: float) -> dict[str, float]:
    """Return the share of requests that ask each tier of the certificate's chain, at most.

    A tier below the last is asked by those of the policy's `share` of prompts that no lower tier
    answered; gates and skips only make that less. The last is asked by all prompts that no tier
    answered, and by the watch's shadows. Acceptance counts all prompts, those outside the share
    too. Without a policy all go to the last tier.

    Args:
        certificate: The certificate of the cascade.
        shadow_share: Share of the accepted answers that are asked of the last tier too
            (`watch.shadow_share`).
    """
    last = certificate.chain[-1]
    if certificate.policy is None:
        return {last: 1.0}
    answered, reach = 0.0, {}
    for name in certificate.chain[:-1]:
        reach[name] = max(certificate.policy.share - answered, 0.0)
        answered += certificate.policy.acceptance.get(name, 0.0)
    left = max(1 - answered, 0.0)
    reach[last] = left + shadow_share * (1 - left)
    return reach
