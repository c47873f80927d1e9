"""A plan as the file says and what is known of it: on the CPU, and on GPUs that nobody knows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.as_configured import plan_as_configured
from hybridserve_llm.planner.hardware import Hardware
from hybridserve_llm.planner.host_memory import host_shortfall
from hybridserve_llm.planner.outlook import ConfiguredTier, TierOutlook, host_need, outlook
from hybridserve_llm.planner.plan import Plan, TierPlan
from hybridserve_llm.planner.shortfall import Shortfall
from hybridserve_llm.profiles.profile_file import Profile, read_profile
from hybridserve_llm.units import GIB
from launch.plans.planning_demand import (
    ASSUMED_OUTPUT_TOKENS,
    ASSUMED_PROMPT_TOKENS,
    ASSUMED_REQUESTS_PER_S,
    facts_of,
    reaches_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """A plan that was not searched.

    Attributes:
        plan: None where it does not fit.
        tiers: Those that are started; empty where no plan could be made.
        requests_per_s: To the cascade.
        shortfall: What is missing; None where it fits.
        reason: Why this plan, or why none.
        assumptions: What is taken for granted because nobody said it.
        remarks: What to know of it.
    """

    plan: Plan | None
    hardware: Hardware
    tiers: tuple[TierOutlook, ...]
    requests_per_s: float
    shortfall: Shortfall | None
    reason: str
    assumptions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def power_w(self) -> float | None:
        """Watts of all tiers and of parked GPUs; None where any is not known."""
        parts = [*(tier.power_w for tier in self.tiers), self.parked_power_w]
        known = [watts for watts in parts if watts is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def parked_power_w(self) -> float | None:
        """Watts of GPUs that nothing runs on: 0 without any, else unknown."""
        return None if self.n_gpus_used < len(self.hardware.gpus) else 0.0

    @property
    def n_gpus_used(self) -> int:
        """GPUs that something runs on."""
        placements = () if self.plan is None else self.plan.placements
        return len({uuid for place in placements for uuid in place.gpu_uuids})

    @property
    def latency_s(self) -> float | None:
        """Mean seconds of a request in all tiers that it asks; None where any is not known."""
        parts = [
            None if tier.load.latency_s is None else tier.tier.reach * tier.load.latency_s
            for tier in self.tiers
        ]
        known = [latency_s for latency_s in parts if latency_s is not None]
        return sum(known) if parts and len(known) == len(parts) else None

    def unknown(self) -> Iterator[str]:
        """Why figures are None, one sentence each."""
        for tier in self.tiers:
            yield from tier.unknown
        if self.parked_power_w is None:
            yield "parked_power_w: nobody has figures of these GPUs"


def configured(
    config: CascadeConfig,
    hardware: Hardware,
    certificate: Certificate | None,
    *,
    why: str,
    asks_the_hub: bool,
) -> Configured:
    """The plan that the file spells out, and what is known of it.

    Args:
        config: The cascade.
        hardware: This machine.
        certificate: For the reaches of tiers.
        why: Why nothing was searched.
        asks_the_hub: Whether the sizes of models that are neither given nor in the catalogue nor on
            the disk may be looked up by hub id, which can take seconds.

    Raises:
        ConfigError: A profile cannot be read.
    """
    rate = config.planner.workload.requests_per_s or ASSUMED_REQUESTS_PER_S
    try:
        plan = plan_as_configured(config, hardware)
    except CannotBeDone as exc:
        lack = Shortfall(reason=str(exc), missing_memory_bytes=None, missing_gpus=None, changes=())
        return Configured(
            plan=None,
            hardware=hardware,
            tiers=(),
            requests_per_s=rate,
            shortfall=lack,
            reason=str(exc),
        )
    assumptions: list[str] = []
    remarks: list[str] = []
    tiers = _tiers(config, plan, certificate, assumptions, remarks, asks_the_hub=asks_the_hub)
    missing = _host_shortfall(hardware, tiers)
    remarks += _remarks(hardware, plan)
    return Configured(
        plan=plan if missing is None else None,
        hardware=hardware,
        tiers=outlook(tiers, hardware),
        requests_per_s=rate,
        shortfall=missing,
        reason=f"placed as the file says: {why}" if missing is None else missing.text,
        assumptions=tuple(assumptions),
        remarks=tuple(remarks),
    )


def _host_shortfall(hardware: Hardware, tiers: Sequence[ConfiguredTier]) -> Shortfall | None:
    if hardware.gpus or hardware.memory_bytes is None or not tiers:
        return None
    return host_shortfall([host_need(tier) for tier in tiers], hardware.memory_bytes)


def _remarks(hardware: Hardware, plan: Plan) -> Iterator[str]:
    n_threads = sum((place.cpu_threads or 0) * place.n_ranks for place in plan.placements)
    if n_threads > len(hardware.cpu_cores):
        yield (
            f"engines have {n_threads} threads in all on {len(hardware.cpu_cores)} cores: profiles "
            "are of one engine alone, and all take longer while several are busy"
        )
    if not hardware.gpus and hardware.memory_bytes is None and plan.placements:
        yield "nobody can tell this machine's memory: whether it holds the engines is not known"


def _tiers(
    config: CascadeConfig,
    plan: Plan,
    certificate: Certificate | None,
    assumptions: list[str],
    remarks: list[str],
    *,
    asks_the_hub: bool,
) -> tuple[ConfiguredTier, ...]:
    """The tiers that are started; what is assumed, and what is not known, is added to the lists."""
    workload = config.planner.workload
    rate = workload.requests_per_s
    if rate is None:
        rate = ASSUMED_REQUESTS_PER_S
        assumptions.append(f"planner.workload.requests_per_s is not given: {rate:g}")
    reaches = reaches_of(config, certificate, assumptions)
    found = []
    for tier, placed in zip(config.tiers, plan.tiers, strict=True):
        if not placed.placements:
            continue
        profiles = tuple(read_profile(path) for path in tier.profiles)
        lengths = _lengths(config, tier, profiles, assumptions)
        facts = _facts(tier, remarks, asks_the_hub=asks_the_hub)
        found.append(_tier(tier, placed, facts, (rate, reaches[tier.name]), lengths, profiles))
    return tuple(found)


def _tier(
    tier: TierConfig,
    placed: TierPlan,
    facts: ModelFacts | None,
    load: tuple[float, float],
    lengths: tuple[float, float],
    profiles: tuple[Profile, ...],
) -> ConfiguredTier:
    rate, reach = load
    return ConfiguredTier(
        plan=placed,
        facts=facts,
        reach=reach,
        requests_per_s=rate * reach,
        prompt_tokens=lengths[0],
        output_tokens=lengths[1],
        memory_share=tier.engine.gpu_memory_utilization,
        max_num_seqs=tier.engine.max_num_seqs,
        kv_bytes=tier.engine.kv_cache_gib * GIB,
        profiles=profiles,
    )


def _lengths(
    config: CascadeConfig,
    tier: TierConfig,
    profiles: Sequence[Profile],
    assumptions: list[str],
) -> tuple[float, float]:
    """Prompt and output tokens: the tier's, the workload's, the profile's, or assumed."""
    own, common = tier.workload, config.planner.workload
    measured = (ASSUMED_PROMPT_TOKENS, ASSUMED_OUTPUT_TOKENS)
    if profiles:
        measured = (profiles[-1].prompt_tokens, profiles[-1].output_tokens)
    found = []
    for key, of_tier, of_all, instead in (
        ("prompt_tokens", own.prompt_tokens, common.prompt_tokens, measured[0]),
        ("output_tokens", own.output_tokens, common.output_tokens, measured[1]),
    ):
        value = of_all if of_tier is None else of_tier
        if value is None:
            value = instead
            where = ", as in its profile" if profiles else ""
            assumptions.append(f"{key} of {tier.name} is not given: {value:g}{where}")
        found.append(value)
    return found[0], found[1]


def _facts(tier: TierConfig, remarks: list[str], *, asks_the_hub: bool) -> ModelFacts | None:
    """The model's sizes; None, and a remark, where nobody knows them."""
    try:
        return facts_of(tier, asks_the_hub=asks_the_hub)
    except ConfigError as exc:
        remarks.append(f"memory is counted without weights of {tier.name}: {exc}")
        return None
