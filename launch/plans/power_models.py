"""What stands in for a meter: watts of a tier's replica, by its profile and the fitted model.

Made where a cascade is launched, since the plan says how a tier runs and the probe on what.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hybridserve_llm.books.meter_sites import PowerModel
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.energy.attribution import TokenWeights
from hybridserve_llm.planner.demand import TierDemand
from hybridserve_llm.planner.plan import Placement
from hybridserve_llm.planner.tabulate import ReplicaShape, profile_of
from hybridserve_llm.profiles.curve import BatchCurve, batch_curve, curve_of_profile
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.grades import worst_grade
from hybridserve_llm.profiles.profile_file import Profile, read_profile
from launch.plans.planning import Planned

_ASSUMED_BATCH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyModels:
    """By tier: what stands in for a meter, and what its tokens count when joules are shared."""

    power: Mapping[str, PowerModel]
    token_weights: Mapping[str, TokenWeights]


def energy_models(config: CascadeConfig, planned: Planned) -> EnergyModels:
    """The models of all tiers that are started here and of which enough is known.

    On a GPU that is known the fitted model gives watts, corrected by the tier's profile; only tiers
    with a profile weigh prompt tokens. On the CPU only a profile with watts, idle ones too, gives
    any.

    Raises:
        ConfigError: A profile cannot be read.
    """
    power: dict[str, PowerModel] = {}
    weights: dict[str, TokenWeights] = {}
    tiers = {tier.name: tier for tier in config.tiers}
    for tier_plan in planned.plan.tiers if planned.plan is not None else ():
        if not tier_plan.placements:
            continue
        name, placement = tier_plan.tier, tier_plan.placements[0]
        if placement.device == "cpu":
            profiles = [read_profile(path) for path in tiers[name].profiles]
            model = _cpu_model(profiles, placement)
            if model is not None:
                power[name] = model
            continue
        found = _on_gpu(planned, name, placement)
        if found is None:
            continue
        demand, shape = found
        profile = profile_of(demand, shape)
        power[name] = _gpu_model(demand, shape, profile)
        if profile is not None:
            weights[name] = _token_weights(demand, shape, profile)
    return EnergyModels(power=power, token_weights=weights)


def _on_gpu(
    planned: Planned, name: str, placement: Placement
) -> tuple[TierDemand, ReplicaShape] | None:
    """What the planner knows of the tier and its place; None where it was not searched."""
    searched = planned.searched
    if searched is None:
        return None
    types: dict[str, GpuType] = {
        uuid: node.gpu_type for node in searched.cluster.nodes for uuid in node.gpus
    }
    demand = next((one for one in searched.demand.tiers if one.name == name), None)
    kind = types.get(placement.gpu_uuids[0])
    if demand is None or kind is None:
        return None
    shape = ReplicaShape(
        gpu_type=kind,
        tensor_parallel_size=placement.tensor_parallel_size,
        pipeline_parallel_size=placement.pipeline_parallel_size,
        max_num_seqs=placement.max_num_seqs or _ASSUMED_BATCH,
    )
    return demand, shape


def _curve(
    demand: TierDemand, shape: ReplicaShape, profile: Profile | None, prefill_ratio: float
) -> BatchCurve:
    return batch_curve(
        demand.facts,
        shape.gpu_type,
        tensor_parallel_size=shape.tensor_parallel_size,
        pipeline_parallel_size=shape.pipeline_parallel_size,
        max_num_seqs=shape.max_num_seqs,
        context_tokens=demand.prompt_tokens + demand.output_tokens / 2,
        prefill_ratio=prefill_ratio,
        profile=profile,
    )


def _gpu_model(demand: TierDemand, shape: ReplicaShape, profile: Profile | None) -> PowerModel:
    curve = _curve(demand, shape, profile, demand.prompt_tokens / demand.output_tokens)
    if profile is not None and profile.idle_w is not None:
        return _power_model(curve, profile.idle_w, curve.grade)
    idle_w = shape.gpu_type.idle_awake_w * shape.n_gpus
    return _power_model(curve, idle_w, worst_grade([curve.grade, shape.gpu_type.idle_grade]))


def _cpu_model(profiles: list[Profile], placement: Placement) -> PowerModel | None:
    for profile in reversed(profiles):
        is_this = (
            profile.gpu is None and profile.tensor_parallel_size == placement.tensor_parallel_size
        )
        if is_this and profile.has_power and profile.idle_w is not None:
            if profile.points[0].concurrency > 1:
                continue  # what one request at a time draws is not known
            curve = curve_of_profile(profile)
            return _power_model(curve, profile.idle_w, curve.grade)
    return None


def _power_model(curve: BatchCurve, idle_w: float, grade: str) -> PowerModel:
    """Watts over the requests that run: idle without any, the curve from one on.

    Between none and one the replica is idle for a part of the time. Beyond the last batch it draws
    what it draws there, as more requests would wait.
    """
    if curve.power_w is None:
        raise ValueError("a power model needs a curve with power")
    return PowerModel(
        batch=(0.0, *curve.batch.tolist()),
        watts=(idle_w, *curve.power_w.tolist()),
        grade=grade,
    )


def _token_weights(demand: TierDemand, shape: ReplicaShape, profile: Profile) -> TokenWeights:
    """Seconds that a prompt token and an output token take, at a batch in the profile's middle.

    An output token shares its step with its batch: step_time / batch. The middle is the geometric
    mean of the loads measured.
    """
    curve = _curve(demand, shape, profile, 0.0)
    points = profile.points
    middle = math.sqrt(points[0].concurrency * points[-1].concurrency)
    at = min(max(middle, 1.0), float(curve.batch[-1]))
    step_s = float(np.interp(at, curve.batch, curve.step_time_s))
    return TokenWeights(prompt=(curve.prefill_token_s or 0.0) * at / step_s, output=1.0)
