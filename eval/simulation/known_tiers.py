"""Collect what is known of a plan's tiers, from the configuration or else the plan's report."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.config.certificate import certified_reach, load_certificate
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.demand import Slo
from hybridserve_llm.planner.report import DemandedTier, PlanDemand, PlanReport
from hybridserve_llm.profiles.checkpoint_shapes import facts_of_config
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.profile_file import Profile, read_profile


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTier:
    """Hold what is known of a tier, apart from where it runs.

    Attributes:
        prompt_scale: Mean prompt of this tier over the mean of all; `output_scale` likewise.
        max_tokens: The file's `engine.max_model_len`.
    """

    name: str
    facts: ModelFacts
    reach: float
    prompt_scale: float = 1.0
    output_scale: float = 1.0
    max_num_seqs: int | None
    memory_share: float | None
    max_tokens: int | None
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownCascade:
    """Hold all tiers, cheapest first, and the bounds that their plan must keep.

    Attributes:
        requests_per_s: Load that the plan was made for; None where it is not known.
    """

    tiers: tuple[KnownTier, ...]
    requests_per_s: float | None
    slo: Slo
    head_room: float


def known_cascade(config: CascadeConfig | None, report: PlanReport | None) -> KnownCascade:
    """Return the cascade of the configuration if one is given, else of the report.

    Reaches and common lengths that the configuration does not give are the report's.

    Raises:
        ConfigError: There is neither; or a reach, a length or the sizes of a model are not known;
            or a file cannot be read.
    """
    demand = None if report is None else report.demand
    if config is not None:
        planned_for_per_s = None if report is None or demand is None else report.requests_per_s
        return KnownCascade(
            tiers=_configured(config, demand),
            requests_per_s=config.planner.workload.requests_per_s or planned_for_per_s,
            slo=Slo(**config.planner.slo.model_dump()),
            head_room=config.planner.head_room,
        )
    if report is None or demand is None or report.slo is None or report.head_room is None:
        raise ConfigError(
            "the plan's file does not say what it was made for: give the whole report of "
            "hs-launch --dry-run --json, or --config"
        )
    return KnownCascade(
        tiers=tuple(_reported(tier, demand) for tier in demand.tiers),
        requests_per_s=report.requests_per_s,
        slo=report.slo,
        head_room=report.head_room,
    )


def _reported(tier: DemandedTier, demand: PlanDemand) -> KnownTier:
    return KnownTier(
        name=tier.name,
        facts=tier.facts,
        reach=tier.reach,
        prompt_scale=_scale(tier.name, "prompt_tokens", tier.prompt_tokens, demand.prompt_tokens),
        output_scale=_scale(tier.name, "output_tokens", tier.output_tokens, demand.output_tokens),
        max_num_seqs=tier.max_num_seqs,
        memory_share=tier.gpu_memory_utilization,
        max_tokens=tier.max_model_len,
        profiles=tier.profiles,
    )


def _configured(config: CascadeConfig, demand: PlanDemand | None) -> tuple[KnownTier, ...]:
    common = config.planner.workload
    prompt, output = common.prompt_tokens, common.output_tokens
    if demand is not None:
        prompt = demand.prompt_tokens if prompt is None else prompt
        output = demand.output_tokens if output is None else output
    reaches = _reaches(config, demand)
    return tuple(
        KnownTier(
            name=tier.name,
            facts=tier.facts or facts_of_model(tier.model),
            reach=reaches[tier.name],
            prompt_scale=_scale(tier.name, "prompt_tokens", tier.workload.prompt_tokens, prompt),
            output_scale=_scale(tier.name, "output_tokens", tier.workload.output_tokens, output),
            max_num_seqs=tier.engine.max_num_seqs,
            memory_share=tier.engine.gpu_memory_utilization,
            max_tokens=tier.engine.max_model_len,
            profiles=tuple(read_profile(profile) for profile in tier.profiles),
        )
        for tier in config.tiers
    )


def _scale(name: str, key: str, own: float | None, common: float | None) -> float:
    """Return a tier's mean length over the mean of all; 1 where it has none of its own."""
    if own is None or own == common:
        return 1.0
    if not common:
        raise ConfigError(
            f"tier {name} has workload.{key} {own:g}, and planner.workload.{key} is "
            f"{'not given' if common is None else 0}: give what all requests have on average"
        )
    return own / common


def _reaches(config: CascadeConfig, demand: PlanDemand | None) -> dict[str, float]:
    certified: Mapping[str, float] | None = None
    if config.certificate is not None:
        certified = certified_reach(
            load_certificate(config.certificate.file), shadow_share=config.watch.shadow_share
        )
    planned = {} if demand is None else {tier.name: tier.reach for tier in demand.tiers}
    return {
        tier.name: _reach(tier, certified, planned, is_first=not place)
        for place, tier in enumerate(config.tiers)
    }


def _reach(
    tier: TierConfig,
    certified: Mapping[str, float] | None,
    planned: Mapping[str, float],
    *,
    is_first: bool,
) -> float:
    if tier.workload.reach is not None:
        return tier.workload.reach
    if certified is not None:
        return certified.get(tier.name, 0.0)
    if tier.name in planned:
        return planned[tier.name]
    if is_first:
        return 1.0
    raise ConfigError(
        f"tier {tier.name} has no workload.reach, and neither a certificate nor the plan's file "
        "has it: give the share of requests that ask it, between 0 and 1"
    )


def facts_of_model(model: str) -> ModelFacts:
    """Return the facts of a public model by its hub id, else of the checkpoint in folder `model`.

    Raises:
        ConfigError: It is neither, or the folder's `config.json` does not have its sizes.
    """
    facts = known_model_facts(model)
    if facts is not None:
        return facts
    try:
        values: dict[str, Any] = orjson.loads((Path(model) / "config.json").read_bytes())
    except (OSError, orjson.JSONDecodeError) as exc:
        raise ConfigError(
            f"the sizes of {model} are not known: it is no public model of the catalogue, and has "
            f"no readable config.json ({exc}); a tier may give them as its facts"
        ) from exc
    return facts_of_config(values)
