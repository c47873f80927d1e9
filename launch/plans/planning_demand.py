"""Derive the demand of a plan from the configuration and the certificate, and list assumptions."""

import math
from pathlib import Path

from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.config.certificate import Certificate, certified_reach
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.demand import Demand, Slo, TierDemand
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.profile_file import read_profile
from launch.plans.model_config import model_facts

ASSUMED_REQUESTS_PER_S = 1.0
ASSUMED_PROMPT_TOKENS = 512.0
ASSUMED_OUTPUT_TOKENS = 256.0
_ASSUMED_PASSED_ON = 0.5


class UnknownModel(ConfigError):  # noqa: N818 - reads as the sentence it stands for
    """Raise where the planner has no figures for a model or a GPU type."""


def demand_of(
    config: CascadeConfig, certificate: Certificate | None
) -> tuple[Demand, tuple[str, ...]]:
    """Return the demand of the tiers that are to be started, and the assumptions in it.

    Raises:
        UnknownModel: A model's sizes are not known.
        ConfigError: A profile cannot be read.
    """
    assumptions: list[str] = []
    workload = config.planner.workload
    given: dict[str, float] = {}
    for key, value, assumed in (
        ("requests_per_s", workload.requests_per_s, ASSUMED_REQUESTS_PER_S),
        ("prompt_tokens", workload.prompt_tokens, ASSUMED_PROMPT_TOKENS),
        ("output_tokens", workload.output_tokens, ASSUMED_OUTPUT_TOKENS),
    ):
        given[key] = assumed if value is None else value
        if value is None:
            assumptions.append(f"planner.workload.{key} is not given: {assumed:g}")
    reaches = reaches_of(config, certificate, assumptions)
    tiers = tuple(
        _tier_demand(config, tier, reaches[tier.name], given, assumptions)
        for tier in config.tiers
        if not tier.endpoints
    )
    demand = Demand(
        tiers=tiers,
        requests_per_s=given["requests_per_s"],
        objective=config.planner.objective,
        slo=Slo(**config.planner.slo.model_dump()),
        head_room=config.planner.head_room,
    )
    return demand, tuple(assumptions)


def _tier_demand(
    config: CascadeConfig,
    tier: TierConfig,
    reach: float,
    given: dict[str, float],
    assumptions: list[str],
) -> TierDemand:
    own, common = tier.workload, config.planner.workload
    prompt = given["prompt_tokens"] if own.prompt_tokens is None else own.prompt_tokens
    output = given["output_tokens"] if own.output_tokens is None else own.output_tokens
    p95_output = own.p95_output_tokens or common.p95_output_tokens
    if p95_output is None and config.planner.slo.p95_latency_s is not None:
        assumptions.append(
            f"p95_output_tokens of {tier.name} is not given: all answers as long as the mean"
        )
    max_tokens = tier.engine.max_model_len
    if max_tokens is None:
        max_tokens = math.ceil(prompt + output)
        assumptions.append(
            f"engine.max_model_len of {tier.name} is not given: room for {max_tokens} tokens"
        )
    return TierDemand(
        name=tier.name,
        facts=facts_of(tier),
        reach=reach,
        prompt_tokens=prompt,
        output_tokens=output,
        p95_output_tokens=p95_output,
        max_tokens=max_tokens,
        max_num_seqs=tier.engine.max_num_seqs,
        tensor_parallel_size=tier.tensor_parallel_size,
        replicas=tier.replicas,
        memory_share=tier.engine.gpu_memory_utilization,
        profiles=tuple(read_profile(path) for path in tier.profiles),
    )


def facts_of(tier: TierConfig, *, asks_the_hub: bool = True) -> ModelFacts:
    """Return the facts given, else those of the public model, else of the checkpoint itself.

    Args:
        tier: The tier with the model.
        asks_the_hub: True allows to look up a hub id, which can take seconds.

    Raises:
        UnknownModel: There are no facts; the message says why, and what to do.
    """
    facts = tier.facts or known_model_facts(tier.model)
    if facts is not None:
        return facts
    if not asks_the_hub and not Path(tier.model).expanduser().is_dir():
        raise UnknownModel(
            f"tier {tier.name}: the sizes of {tier.model} are not known without asking the hub; "
            "give them as the tier's facts"
        )
    try:
        return model_facts(tier.model)
    except ConfigError as exc:
        raise UnknownModel(
            f"tier {tier.name}: the sizes of {tier.model} are not known ({exc}); give them as the "
            "tier's facts"
        ) from exc


def reaches_of(
    config: CascadeConfig, certificate: Certificate | None, assumptions: list[str]
) -> dict[str, float]:
    """Return the share of requests that ask each tier: the file's, else the certificate's.

    Without either, half of the requests that ask a tier are assumed to ask the next one. Every
    assumption is added to `assumptions`.
    """
    found: dict[str, float] = {}
    certified = None
    if certificate is not None:
        certified = certified_reach(certificate, shadow_share=config.watch.shadow_share)
    expected = 1.0
    for tier in config.tiers:
        if tier.workload.reach is not None:
            expected = tier.workload.reach
        elif certified is not None:
            expected = certified.get(tier.name, 0.0)
        elif found:
            assumptions.append(f"reach of {tier.name} is not given: {expected:.4g} of requests")
        found[tier.name] = expected
        expected *= _ASSUMED_PASSED_ON
    return found
