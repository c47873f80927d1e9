"""Describe a plan's report: one typed model, for plans that were searched and those as configured.

`hs-launch --dry-run --json` writes it, its text is made from it, and `hs-eval simulate` reads it.
docs/planner.md describes the keys. None means unknown.
"""

from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson
from pydantic import BaseModel, ValidationError

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.faults import first_fault
from hybridserve_llm.planner.demand import Objective, Slo
from hybridserve_llm.planner.plan import Plan
from hybridserve_llm.profiles.grades import Grade
from hybridserve_llm.profiles.profile_file import Profile

SCHEMA = "hybridserve-plan-report/1"
_DIGITS = 6
_AS_GIVEN = ("demand", "plan")


class ReplicaGpus(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the GPUs that a replica has on one node, by the driver's numbers."""

    replica: str
    node: str
    gpus: tuple[int, ...]


class PlannedTier(msgspec.Struct, frozen=True, kw_only=True):
    """Hold one tier as planned. Times are means; 95 % of requests keep those called p95.

    Attributes:
        placements: Every replica's GPUs; a replica on several nodes has an entry for each.
        shares_gpus_with: Tiers on the same GPUs.
        gpu_memory_utilization: Part of each GPU's memory that an engine of the tier may take.
        memory_gib_per_gpu: The same in GiB; it holds `weight_gib_per_gpu` and
            `kv_cache_gib_per_gpu`.
        kv_cache_tokens: Tokens that the KV cache of one replica holds.
        host_memory_gib: Memory of the machine that its engines take, on the CPU.
        reach: Share of requests that ask the tier.
        requests_per_s: Of all replicas together.
        utilisation: Of each replica: its rate over the rate that it could carry.
        power_w: Watts of all replicas.
    """

    name: str
    device: Literal["cpu", "gpu"]
    gpu_type: str | None
    tensor_parallel_size: int
    pipeline_parallel_size: int
    replicas: int
    max_num_seqs: int | None
    placements: tuple[ReplicaGpus, ...]
    shares_gpus_with: tuple[str, ...]
    gpu_memory_utilization: float | None
    memory_gib_per_gpu: float | None
    weight_gib_per_gpu: float | None
    kv_cache_gib_per_gpu: float | None
    kv_cache_tokens: int | None
    host_memory_gib: float | None = None
    reach: float
    requests_per_s: float
    utilisation: float | None
    power_w: float | None
    ttft_s: float | None
    itl_s: float | None
    latency_s: float | None
    p95_ttft_s: float | None = None
    p95_itl_s: float | None = None
    p95_latency_s: float | None = None
    grade: Grade | None


class PlannedNode(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the GPUs of one type on one node; `linked_size` as in `planner/cluster.py`."""

    node: str
    gpu_type: str
    gpus: int
    memory_gib_per_gpu: float
    linked_size: int | None = None


class Shortfall(msgspec.Struct, frozen=True, kw_only=True):
    """Hold why a demand cannot be met.

    Attributes:
        reason: One sentence that says what is missing, and how much.
        missing_memory_gib: Of all GPUs together: for the first tier that does not fit alone, or
            for all tiers that fit alone. Of the machine, on the CPU. None where memory is enough.
        missing_gpus: GPUs of the last node's type to add so that all fits; None where none help.
        changes: Changes in words that each make it fit, cheapest first.
    """

    reason: str
    missing_memory_gib: float | None = None
    missing_gpus: int | None = None
    changes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Return reason and changes as one message."""
        if not self.changes:
            return f"{self.reason}; no change of load, bounds or GPUs alone makes it fit"
        return f"{self.reason}; to make it fit: {', or '.join(self.changes)}"


class RunnerUp(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the best plan without some part of the one that was chosen; `tiers` in words."""

    tiers: tuple[str, ...]
    gpus_used: int
    power_w_total: float
    latency_s: float


class GearReplicas(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the replicas of one tier in a gear, all of one shape."""

    tier: str
    gpu_type: str
    replicas: int
    tensor_parallel_size: int
    pipeline_parallel_size: int
    max_num_seqs: int
    memory_gib_per_gpu: float
    shares_gpus_with: tuple[str, ...]


class PlannedGear(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the best plan for another load; `level` is that load over the one planned for."""

    level: float
    requests_per_s: float
    fits: bool
    gpus_used: int | None = None
    power_w_total: float | None = None
    energy_j_per_request: float | None = None
    tiers: tuple[str, ...] = ()
    replicas: tuple[GearReplicas, ...] = ()


class OffProfile(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the figures of the plan in a world where its profiles are wrong.

    Attributes:
        what: The error of the profiles, in words.
        power_w_total: Watts of all GPUs, parked ones included.
        utilisation: Of the fullest GPUs, tiers that share them added up; above 1 they do not
            keep up.
        broken: Bounds that no longer hold, in words.
        best_power_w_total: Watts of the plan made for that world; None where none keeps bounds.
    """

    what: str
    power_w_total: float
    utilisation: float
    broken: tuple[str, ...]
    best_power_w_total: float | None


class PlanExplanation(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the part of a report that `--explain` adds."""

    gears: tuple[PlannedGear, ...] = ()
    profile_off: tuple[OffProfile, ...] = ()


class DemandedTier(msgspec.Struct, frozen=True, kw_only=True):
    """Hold all that the search knew of a tier: model and profiles whole, lengths in tokens.

    `max_model_len`, `max_num_seqs` and `gpu_memory_utilization` are the configuration's.
    """

    name: str
    reach: float
    prompt_tokens: float
    output_tokens: float
    max_model_len: int | None
    max_num_seqs: int | None
    gpu_memory_utilization: float | None
    facts: ModelFacts
    profiles: tuple[Profile, ...]


class PlanDemand(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the demand that was searched for; lengths are means, and a tier may have its own."""

    prompt_tokens: float
    output_tokens: float
    tiers: tuple[DemandedTier, ...]


class PlanReport(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a plan with what it is expected to do, or the reason why there is none.

    Attributes:
        fits: True if there is a plan.
        searched: False for a plan that was placed as the configuration says.
        reason: Why this plan was chosen, or what is missing.
        objective: Aim of the search; with `throughput`, `requests_per_s` is the answer.
        power_w_total: Watts of all GPUs: of the tiers, and `parked_power_w` of those not used.
        energy_j_per_request: Of all GPUs; `latency_s` is a request's mean in all tiers it asks.
        grade: The worst grade of the tiers.
        unknown: Why figures are None, one sentence each.
        assumptions: Values that were assumed because nobody gave them.
        remarks: Facts about this machine that the operator should know.
    """

    schema: str = SCHEMA
    fits: bool
    searched: bool
    reason: str
    objective: Objective | None = None
    requests_per_s: float
    head_room: float | None = None
    slo: Slo | None = None
    tiers: tuple[PlannedTier, ...] = ()
    gpus: int
    gpus_used: int | None = None
    gpus_parked: int | None = None
    parked_power_w: float | None = None
    power_w_total: float | None = None
    energy_j_per_request: float | None = None
    latency_s: float | None = None
    grade: Grade | None = None
    unknown: tuple[str, ...] = ()
    assumptions: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    cluster: tuple[PlannedNode, ...] = ()
    shortfall: Shortfall | None = None
    runners_up: tuple[RunnerUp, ...] = ()
    explanation: PlanExplanation | None = None
    demand: PlanDemand | None = None
    plan: Plan | None = None

    def to_json(self) -> str:
        """Return the report as indented JSON.

        Figures are rounded to a millionth of their unit, so that runs compare byte by byte. The
        demand is not rounded: a program that reads it must see the numbers that the planner saw.
        """
        values = msgspec.to_builtins(self, enc_hook=_values_of)
        rounded = {
            key: value if key in _AS_GIVEN else _rounded(value) for key, value in values.items()
        }
        return orjson.dumps(rounded, option=orjson.OPT_INDENT_2).decode() + "\n"


def report_in(text: bytes, path: Path) -> PlanReport:
    """Return the report in `text`; keys that are not known here are ignored.

    Raises:
        ConfigError: A key is missing or has a wrong value; the message names it, and `path`.
    """
    try:
        return msgspec.json.decode(text, type=PlanReport, dec_hook=_model_of)
    except msgspec.DecodeError as exc:
        raise ConfigError(f"report {path} is not as hs-launch writes it: {exc}") from exc


def _values_of(model: Any) -> Any:
    """Return the JSON values of a model that is also read from files."""
    if isinstance(model, BaseModel):
        return model.model_dump(mode="json", by_alias=True)
    raise NotImplementedError(f"a report cannot hold {type(model).__name__}")


def _model_of(kind: type, values: Any) -> Any:
    """Return the model of this kind; the opposite of `_values_of`."""
    if not issubclass(kind, BaseModel):
        raise NotImplementedError(f"a report cannot hold {kind.__name__}")
    try:
        return kind.model_validate(values)
    except ValidationError as exc:
        raise ValueError(first_fault(exc)) from exc


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DIGITS)
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(item) for item in value]
    return value
