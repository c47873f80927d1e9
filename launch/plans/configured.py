"""Report a plan that is placed as the file says: on the CPU, and on GPUs that are not known."""

from collections.abc import Iterator, Sequence

from msgspec import structs

from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.as_configured import plan_as_configured
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.host_memory import host_shortfall
from hybridserve_llm.planner.outlook import ConfiguredTier, host_need, outlook
from hybridserve_llm.planner.plan import Plan
from hybridserve_llm.planner.report import PlannedNode, PlannedTier, PlanReport, Shortfall
from hybridserve_llm.profiles.profile_file import Profile, read_profile
from hybridserve_llm.units import GIB
from launch.plans.planning_demand import (
    ASSUMED_OUTPUT_TOKENS,
    ASSUMED_PROMPT_TOKENS,
    ASSUMED_REQUESTS_PER_S,
    facts_of,
    reaches_of,
)


def configured_report(
    config: CascadeConfig,
    hardware: Hardware,
    certificate: Certificate | None,
    *,
    why: str,
    asks_the_hub: bool,
) -> PlanReport:
    """Return the plan that the file describes, and what is known of it.

    Args:
        config: The cascade.
        hardware: This machine.
        certificate: For the reaches of tiers.
        why: Why nothing was searched.
        asks_the_hub: True allows to look up a model's size by its hub id, which can take seconds.
            It is asked only for sizes that are not given, in the catalogue or on the disk.

    Raises:
        ConfigError: A profile cannot be read.
    """
    try:
        plan = plan_as_configured(config, hardware)
    except CannotBeDone as exc:
        missing = Shortfall(reason=str(exc))
        return _report(config, hardware, reason=missing.reason, missing=missing)
    assumptions: list[str] = []
    remarks: list[str] = []
    tiers = _tiers(config, plan, certificate, assumptions, remarks, asks_the_hub=asks_the_hub)
    remarks += _remarks(hardware, plan)
    lack = _host_shortfall(hardware, tiers)
    if lack is None:
        report = _report(config, hardware, reason=f"placed as the file says: {why}")
        report = _with_plan(report, plan, *outlook(tiers, hardware))
    else:
        report = _report(config, hardware, reason=lack.text, missing=lack)
    return structs.replace(report, assumptions=tuple(assumptions), remarks=tuple(remarks))


def _report(
    config: CascadeConfig, hardware: Hardware, *, reason: str, missing: Shortfall | None = None
) -> PlanReport:
    """Return what is reported whether the engines fit or not."""
    by_name: dict[str, list[Gpu]] = {}
    for gpu in hardware.gpus:
        by_name.setdefault(gpu.name, []).append(gpu)
    return PlanReport(
        fits=missing is None,
        searched=False,
        reason=reason,
        requests_per_s=config.planner.workload.requests_per_s or ASSUMED_REQUESTS_PER_S,
        gpus=len(hardware.gpus),
        cluster=tuple(
            PlannedNode(
                node="localhost",
                gpu_type=name,
                gpus=len(gpus),
                memory_gib_per_gpu=min(gpu.memory_bytes for gpu in gpus) / GIB,
            )
            for name, gpus in by_name.items()
        ),
        shortfall=missing,
    )


def _with_plan(
    report: PlanReport, plan: Plan, tiers: tuple[PlannedTier, ...], unknown: tuple[str, ...]
) -> PlanReport:
    """Return the report with the plan and its totals; a total is None if a part of it is."""
    n_used = len({uuid for placement in plan.placements for uuid in placement.gpu_uuids})
    parked_w = 0.0 if n_used == report.gpus else None
    power_w = _sum_of([*(tier.power_w for tier in tiers), parked_w])
    if parked_w is None:
        unknown = (*unknown, "parked_power_w: nobody has figures of these GPUs")
    return structs.replace(
        report,
        tiers=tiers,
        gpus_used=n_used,
        gpus_parked=report.gpus - n_used,
        parked_power_w=parked_w,
        power_w_total=power_w,
        energy_j_per_request=None
        if power_w is None or not tiers
        else power_w / report.requests_per_s,
        latency_s=_sum_of([_latency_s(tier) for tier in tiers]) if tiers else None,
        grade="measured" if {tier.grade for tier in tiers} == {"measured"} else None,
        unknown=unknown,
        plan=plan,
    )


def _latency_s(tier: PlannedTier) -> float | None:
    """Return the seconds that the tier adds to the mean request."""
    return None if tier.latency_s is None else tier.reach * tier.latency_s


def _sum_of(parts: Sequence[float | None]) -> float | None:
    known = [part for part in parts if part is not None]
    return sum(known) if len(known) == len(parts) else None


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
        yield "this machine's memory is not known, nor whether it holds the engines"


def _tiers(
    config: CascadeConfig,
    plan: Plan,
    certificate: Certificate | None,
    assumptions: list[str],
    remarks: list[str],
    *,
    asks_the_hub: bool,
) -> tuple[ConfiguredTier, ...]:
    """Return the tiers that are started; assumptions and remarks are added to the lists."""
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
        prompt_tokens, output_tokens = _lengths(config, tier, profiles, assumptions)
        reach = reaches[tier.name]
        found.append(
            ConfiguredTier(
                plan=placed,
                facts=_facts(tier, remarks, asks_the_hub=asks_the_hub),
                reach=reach,
                requests_per_s=rate * reach,
                prompt_tokens=prompt_tokens,
                output_tokens=output_tokens,
                memory_share=tier.engine.gpu_memory_utilization,
                max_num_seqs=tier.engine.max_num_seqs,
                kv_bytes=tier.engine.kv_cache_gib * GIB,
                profiles=profiles,
            )
        )
    return tuple(found)


def _lengths(
    config: CascadeConfig,
    tier: TierConfig,
    profiles: Sequence[Profile],
    assumptions: list[str],
) -> tuple[float, float]:
    """Return prompt and output tokens: the tier's, the workload's, the profile's, or assumed."""
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
    """Return the model's sizes; None, and a remark, where they are not known."""
    try:
        return facts_of(tier, asks_the_hub=asks_the_hub)
    except ConfigError as exc:
        remarks.append(f"memory is counted without weights of {tier.name}: {exc}")
        return None
