"""What a replica does at a load by its profile alone: no model, and nothing beyond the table."""

from dataclasses import dataclass, replace

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.curve import curve_of_profile
from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.profiles.queueing import ReplicaLoad, replica_load

_SAME_LENGTH = 0.05


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
