"""Estimate the figures of a plan that was not searched, from model sizes and profiles alone.

Nothing is modelled here. A figure that no profile holds is None, with a sentence that says why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.host_memory import HostNeed
from hybridserve_llm.planner.plan import Placement, TierPlan
from hybridserve_llm.planner.report import PlannedTier, ReplicaGpus
from hybridserve_llm.profiles.curve import curve_of_profile
from hybridserve_llm.profiles.memory import kv_tokens, memory_use
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.queueing import ReplicaLoad, replica_load
from hybridserve_llm.units import GIB

_SAME_LENGTH = 0.05
_NOT_SHARED = "figures of engines that share a GPU cannot be read off profiles of single ones"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredTier:
    """Hold a tier that is placed as the configuration says, and what is known of it.

    Attributes:
        facts: The model's sizes; None where they are not known.
        reach: Share of requests that ask it.
        requests_per_s: Requests to all its replicas.
        prompt_tokens: Mean of a request.
        output_tokens: Mean of an answer.
        memory_share: Part of a GPU that an engine may take; None leaves it to vLLM.
        max_num_seqs: Requests an engine runs at a time; None leaves it to vLLM.
        kv_bytes: KV cache of a rank on the CPU.
        profiles: Measurements of the model.
    """

    plan: TierPlan
    facts: ModelFacts | None
    reach: float
    requests_per_s: float
    prompt_tokens: float
    output_tokens: float
    memory_share: float | None
    max_num_seqs: int | None
    kv_bytes: int
    profiles: Sequence[Profile] = ()

    @property
    def placement(self) -> Placement:
        """Return where the first replica runs; all have its shape."""
        return self.plan.placements[0]

    @property
    def gpu_uuids(self) -> tuple[str, ...]:
        """Return the GPUs of all replicas."""
        return tuple(uuid for place in self.plan.placements for uuid in place.gpu_uuids)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDemand:
    """Hold what one replica must carry.

    Attributes:
        max_num_seqs: Requests that its engine runs at a time; None leaves it to vLLM.
    """

    requests_per_s: float
    prompt_tokens: float
    output_tokens: float
    max_num_seqs: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLoad:
    """Hold the figures of a replica at its load; seconds are means, None is unknown.

    Attributes:
        utilisation: Its rate over the rate with as many requests in flight as were measured.
        power_w: Watts of the replica, waiting included.
        unknown: Why any of these is None, one sentence each.
    """

    utilisation: float | None = None
    power_w: float | None = None
    ttft_s: float | None = None
    itl_s: float | None = None
    latency_s: float | None = None
    unknown: tuple[str, ...] = ()


def outlook(
    tiers: Sequence[ConfiguredTier], hardware: Hardware
) -> tuple[tuple[PlannedTier, ...], tuple[str, ...]]:
    """Return every tier that is started, in order, and why figures are None."""
    found, unknown = [], []
    for tier in tiers:
        sharing = tuple(_sharing(tier, tiers))
        load = _unknown(_NOT_SHARED) if sharing else _load(tier, _gpu_name(tier, hardware))
        found.append(_planned_tier(tier, hardware, sharing, load))
        unknown += [f"{tier.plan.tier}: {reason}" for reason in load.unknown]
    return tuple(found), tuple(unknown)


def host_need(tier: ConfiguredTier) -> HostNeed:
    """Return how much of the machine's memory the tier's engines take, on the CPU."""
    return HostNeed(
        name=tier.plan.tier,
        replicas=len(tier.plan.placements),
        ranks=tier.placement.n_ranks,
        weight_bytes=None if tier.facts is None else tier.facts.weight_bytes,
        kv_bytes=tier.kv_bytes,
    )


def measured_load(profile: Profile, demand: ReplicaDemand) -> MeasuredLoad:
    """Return the figures that `profile` has for a replica under `demand`.

    Requests come as a Poisson process (`profiles/queueing.py`). A batch of n takes the time that
    was measured with n requests in flight, prompts of others included. All figures are None if
    lengths differ from those measured by more than 5 %. The same holds if more than 5 % of tokens
    would come of batches beyond the table.
    """
    for what, wanted, measured in (
        ("prompt_tokens", demand.prompt_tokens, profile.prompt_tokens),
        ("output_tokens", demand.output_tokens, profile.output_tokens),
    ):
        if abs(wanted - measured) > _SAME_LENGTH * measured:
            return _unknown(f"its profile was measured with {what} {measured:g}, not {wanted:g}")
    last = int(profile.points[-1].concurrency)
    is_cut = demand.max_num_seqs is None or demand.max_num_seqs > last
    try:
        curve = curve_of_profile(profile, last if is_cut else demand.max_num_seqs)
    except ConfigError as exc:
        return _unknown(str(exc))
    if is_cut:
        # The last batch stands for all larger ones, which nobody measured.
        curve = replace(curve, measured_to=last - 1, grade="datasheet")
    load = replica_load(
        curve,
        [demand.requests_per_s],
        output_tokens=profile.output_tokens,
        prompt_tokens=profile.prompt_tokens,
        idle_w=profile.idle_w,
    )
    if load.utilisation[0] >= 1 or load.grades[0] != "measured":
        return _unknown(
            f"{demand.requests_per_s:.4g} requests/s on each replica are more than its profile "
            f"covers: it was measured up to {last} requests at a time, {load.max_rate_per_s:.4g} "
            "requests/s"
        )
    return _known(profile, load)


def _known(profile: Profile, load: ReplicaLoad) -> MeasuredLoad:
    unknown = []
    if load.power_w is None:
        missing = "idle_w" if profile.has_power else "power_w"
        unknown.append(f"power_w: its profile has no {missing}")
    has_ttft = all(point.ttft_s is not None for point in profile.points)
    has_itl = all(point.itl_s is not None for point in profile.points)
    if not (has_ttft and has_itl):
        unknown.append("ttft_s, itl_s: its profile does not have both at all points")
    return MeasuredLoad(
        utilisation=float(load.utilisation[0]),
        power_w=None if load.power_w is None else float(load.power_w[0]),
        ttft_s=float(load.ttft_s[0]) if has_ttft else None,
        itl_s=float(load.itl_s[0]) if has_itl else None,
        latency_s=float(load.latency_s[0]),
        unknown=tuple(unknown),
    )


def _unknown(reason: str) -> MeasuredLoad:
    return MeasuredLoad(unknown=(f"utilisation, power_w and times: {reason}",))


def _planned_tier(
    tier: ConfiguredTier, hardware: Hardware, sharing: tuple[str, ...], load: MeasuredLoad
) -> PlannedTier:
    gpus = {gpu.uuid: gpu for gpu in hardware.gpus}
    here = [gpus[uuid] for uuid in tier.gpu_uuids]
    place, replicas = tier.placement, tier.plan.placements
    share = place.gpu_memory_share or tier.memory_share
    memory, weights, cache = _gpu_memory(tier, here, share)
    is_counted = not here and tier.facts is not None
    return PlannedTier(
        name=tier.plan.tier,
        device=place.device,
        gpu_type=_gpu_name(tier, hardware),
        tensor_parallel_size=place.tensor_parallel_size,
        pipeline_parallel_size=place.pipeline_parallel_size,
        replicas=len(replicas),
        max_num_seqs=place.max_num_seqs or tier.max_num_seqs,
        placements=tuple(
            ReplicaGpus(
                replica=one.name,
                node=one.node,
                gpus=tuple(gpus[uuid].index for uuid in one.gpu_uuids),
            )
            for one in replicas
        ),
        shares_gpus_with=sharing,
        gpu_memory_utilization=None if place.device == "cpu" else share,
        memory_gib_per_gpu=_gib(memory),
        weight_gib_per_gpu=_gib(weights),
        kv_cache_gib_per_gpu=_gib(cache),
        kv_cache_tokens=_kv_tokens(tier, cache if here else tier.kv_bytes),
        host_memory_gib=_gib(host_need(tier).total_bytes) if is_counted else None,
        reach=tier.reach,
        requests_per_s=tier.requests_per_s,
        utilisation=load.utilisation,
        power_w=None if load.power_w is None else load.power_w * len(replicas),
        ttft_s=load.ttft_s,
        itl_s=load.itl_s,
        latency_s=load.latency_s,
        grade=None if load.utilisation is None else "measured",
    )


def _gib(n_bytes: int | None) -> float | None:
    return None if n_bytes is None else n_bytes / GIB


def _gpu_name(tier: ConfiguredTier, hardware: Hardware) -> str | None:
    """Return the driver's name of the tier's first GPU; None on the CPU."""
    return next((gpu.name for gpu in hardware.gpus if gpu.uuid in tier.gpu_uuids[:1]), None)


def _sharing(tier: ConfiguredTier, tiers: Sequence[ConfiguredTier]) -> Iterator[str]:
    """Yield the names of other tiers on the same GPUs."""
    for other in tiers:
        if other is not tier and not set(tier.gpu_uuids).isdisjoint(other.gpu_uuids):
            yield other.plan.tier


def _gpu_memory(
    tier: ConfiguredTier, here: Sequence[Gpu], share: float | None
) -> tuple[int | None, int | None, int | None]:
    """Return the bytes of a GPU that an engine may take, of weights, and of KV cache."""
    memory = None
    if here and share is not None:
        memory = int(share * min(gpu.memory_bytes for gpu in here))
    if not here or tier.facts is None:
        return memory, None, None
    use = memory_use(
        tier.facts,
        memory_bytes_per_gpu=memory or 0,
        tensor_parallel_size=tier.placement.tensor_parallel_size,
        pipeline_parallel_size=tier.placement.pipeline_parallel_size,
    )
    return memory, use.weight_bytes, None if memory is None else use.kv_bytes


def _kv_tokens(tier: ConfiguredTier, kv_bytes: int | None) -> int | None:
    if tier.facts is None or kv_bytes is None:
        return None
    return kv_tokens(
        tier.facts,
        kv_bytes,
        tensor_parallel_size=tier.placement.tensor_parallel_size,
        pipeline_parallel_size=tier.placement.pipeline_parallel_size,
    )


def _load(tier: ConfiguredTier, gpu: str | None) -> MeasuredLoad:
    place = tier.placement
    wanted = (gpu, place.tensor_parallel_size, place.pipeline_parallel_size)
    for profile in reversed(tier.profiles):
        sizes = (profile.tensor_parallel_size, profile.pipeline_parallel_size)
        if (profile.gpu, *sizes) == wanted:
            demand = ReplicaDemand(
                requests_per_s=tier.requests_per_s / len(tier.plan.placements),
                prompt_tokens=tier.prompt_tokens,
                output_tokens=tier.output_tokens,
                max_num_seqs=place.max_num_seqs or tier.max_num_seqs,
            )
            return measured_load(profile, demand)
    where = "the CPU" if gpu is None else gpu
    return _unknown(
        f"no profile of it on {where} with tensor_parallel_size {wanted[1]} "
        "(hs-profile makes one, tiers[].profiles names it)"
    )
