"""What a plan that was not searched comes to, as far as it is known: by sizes and by profiles.

Nothing is modelled here. A figure that no profile holds is None, and it is said why.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.hardware import Gpu, Hardware
from hybridserve_llm.planner.host_memory import HostNeed
from hybridserve_llm.planner.plan import Placement, TierPlan
from hybridserve_llm.profiles.curve import curve_of_profile
from hybridserve_llm.profiles.grades import Grade
from hybridserve_llm.profiles.memory import kv_tokens, memory_use
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.queueing import ReplicaLoad, replica_load

_SAME_LENGTH = 0.05
_NOT_SHARED = "figures of engines that share a GPU cannot be read off profiles of single ones"


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredTier:
    """A tier that is placed as the file says, and what is known of it.

    Attributes:
        facts: The model's sizes; None where nobody knows them.
        reach: Share of requests that ask it.
        requests_per_s: That come to all its replicas.
        prompt_tokens: Mean of a request.
        output_tokens: Mean of an answer.
        memory_share: Part of a GPU that an engine may take; None where that is vLLM's to say.
        max_num_seqs: Requests an engine runs at a time; None where that is vLLM's to say.
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
        """Where the first replica runs; all have its shape."""
        return self.plan.placements[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaDemand:
    """What one replica is asked.

    Attributes:
        max_num_seqs: Requests that its engine runs at a time; None where that is vLLM's to say.
    """

    requests_per_s: float
    prompt_tokens: float
    output_tokens: float
    max_num_seqs: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredLoad:
    """A replica at its load; seconds are means, None is unknown.

    Attributes:
        utilisation: Its rate over what it carried with as many requests in flight as were measured.
        power_w: Watts of the replica, waiting included.
        unknown: Why any of these is None, one sentence each.
    """

    utilisation: float | None = None
    power_w: float | None = None
    ttft_s: float | None = None
    itl_s: float | None = None
    latency_s: float | None = None
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOutlook:
    """One tier; None is unknown. Watts are of all replicas, seconds are means.

    Attributes:
        gpu_type: Name of its GPUs; None on the CPU.
        places: Every replica's name, with the driver's numbers of its GPUs.
        memory_bytes_per_gpu: What an engine may take of a GPU, of it `weight_bytes_per_gpu` and
            `kv_bytes_per_gpu`.
        host_memory_bytes: What its engines take of the machine's memory, on the CPU.
        load: By the profile of this shape, with the reasons of what is unknown.
    """

    tier: ConfiguredTier
    gpu_type: str | None
    places: tuple[tuple[str, tuple[int, ...]], ...]
    shares_with: tuple[str, ...]
    memory_bytes_per_gpu: int | None
    weight_bytes_per_gpu: int | None
    kv_bytes_per_gpu: int | None
    kv_tokens: int | None
    host_memory_bytes: int | None
    load: MeasuredLoad

    @property
    def power_w(self) -> float | None:
        """Watts of all replicas."""
        each_w = self.load.power_w
        return None if each_w is None else each_w * len(self.places)

    @property
    def grade(self) -> Grade | None:
        """What the figures are worth; None where there are none."""
        return None if self.load.utilisation is None else "measured"

    @property
    def unknown(self) -> tuple[str, ...]:
        """Why figures are None, one sentence each."""
        name = self.tier.plan.tier
        return tuple(f"{name}: {reason}" for reason in self.load.unknown)


def outlook(tiers: Sequence[ConfiguredTier], hardware: Hardware) -> tuple[TierOutlook, ...]:
    """Every tier that is started, in order."""
    return tuple(_outlook(tier, tiers, hardware) for tier in tiers)


def host_need(tier: ConfiguredTier) -> HostNeed:
    """What the tier's engines take of the machine's memory, on the CPU."""
    return HostNeed(
        name=tier.plan.tier,
        replicas=len(tier.plan.placements),
        ranks=tier.placement.n_ranks,
        weight_bytes=None if tier.facts is None else tier.facts.weight_bytes,
        kv_bytes=tier.kv_bytes,
    )


def _outlook(
    tier: ConfiguredTier, tiers: Sequence[ConfiguredTier], hardware: Hardware
) -> TierOutlook:
    gpus = {gpu.uuid: gpu for gpu in hardware.gpus}
    here = [gpus[uuid] for place in tier.plan.placements for uuid in place.gpu_uuids]
    sharing = tuple(_sharing(tier, tiers))
    memory, weights, cache = _gpu_memory(tier, here)
    return TierOutlook(
        tier=tier,
        gpu_type=here[0].name if here else None,
        places=tuple(
            (place.name, tuple(gpus[uuid].index for uuid in place.gpu_uuids))
            for place in tier.plan.placements
        ),
        shares_with=sharing,
        memory_bytes_per_gpu=memory,
        weight_bytes_per_gpu=weights,
        kv_bytes_per_gpu=cache,
        kv_tokens=_kv_tokens(tier, cache if here else tier.kv_bytes),
        host_memory_bytes=None if here or tier.facts is None else host_need(tier).total_bytes,
        load=MeasuredLoad(unknown=(f"utilisation, power_w and times: {_NOT_SHARED}",))
        if sharing
        else _load(tier, here[0].name if here else None),
    )


def _sharing(tier: ConfiguredTier, tiers: Sequence[ConfiguredTier]) -> Iterator[str]:
    own = {uuid for place in tier.plan.placements for uuid in place.gpu_uuids}
    for other in tiers:
        theirs = {uuid for place in other.plan.placements for uuid in place.gpu_uuids}
        if other is not tier and own & theirs:
            yield other.plan.tier


def _gpu_memory(
    tier: ConfiguredTier, here: Sequence[Gpu]
) -> tuple[int | None, int | None, int | None]:
    """Bytes that an engine may take of a GPU, those of weights, and those left for KV cache."""
    share = tier.placement.gpu_memory_share or tier.memory_share
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
    reason = (
        f"no profile of it on {where} with tensor_parallel_size {wanted[1]} "
        "(hs-profile makes one, tiers[].profiles names it)"
    )
    return MeasuredLoad(unknown=(f"utilisation, power_w and times: {reason}",))


def measured_load(profile: Profile, demand: ReplicaDemand) -> MeasuredLoad:
    """What `profile` says of a replica under `demand`, as far as its table reaches.

    Requests come as a Poisson process (`profiles/queueing.py`); a batch of n takes what n requests
    in flight were measured to take, prompts of others included. Nothing is said where lengths are
    not those that were measured, to 5 %, or where batches beyond the table would be the rule for
    more than 5 % of tokens.
    """
    for what, wanted, measured in (
        ("prompt_tokens", demand.prompt_tokens, profile.prompt_tokens),
        ("output_tokens", demand.output_tokens, profile.output_tokens),
    ):
        if abs(wanted - measured) > _SAME_LENGTH * measured:
            return _nothing(f"its profile was measured with {what} {measured:g}, not {wanted:g}")
    last = int(profile.points[-1].concurrency)
    is_cut = demand.max_num_seqs is None or demand.max_num_seqs > last
    try:
        curve = curve_of_profile(profile, last if is_cut else demand.max_num_seqs)
    except ConfigError as exc:
        return _nothing(str(exc))
    if is_cut:
        # The last batch stands for all beyond it, which nobody measured.
        curve = replace(curve, measured_to=last - 1, grade="datasheet")
    load = replica_load(
        curve,
        [demand.requests_per_s],
        output_tokens=profile.output_tokens,
        prompt_tokens=profile.prompt_tokens,
        idle_w=profile.idle_w,
    )
    if load.utilisation[0] >= 1 or load.grades[0] != "measured":
        return _nothing(
            f"{demand.requests_per_s:.4g} requests/s on each replica are more than its profile "
            f"tells of: it was measured up to {last} requests at a time, {load.max_rate_per_s:.4g} "
            "requests/s"
        )
    return _told(profile, load)


def _told(profile: Profile, load: ReplicaLoad) -> MeasuredLoad:
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


def _nothing(reason: str) -> MeasuredLoad:
    return MeasuredLoad(unknown=(f"utilisation, power_w and times: {reason}",))
