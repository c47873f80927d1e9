"""From a plan, a configuration and a trace to the cascade that the simulator runs.

The plan says where replicas run; what it lacks, models, reaches and measurements, the configuration
says.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from eval.simulated_plan import PlanOnCluster
from eval.simulator.cascade import SimulatedCascade, SimulatedTier
from eval.simulator.step_table import ReplicaShape, StepTable, step_table
from eval.simulator.tier import ReplicaLife
from eval.simulator.workload import Requests
from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.config.certificate import Certificate, load_certificate
from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.plan import MAX_SHARED_GPU_MEMORY, Placement, TierPlan
from hybridserve_llm.profiles.checkpoint_shapes import facts_of_config
from hybridserve_llm.profiles.gpu_types import GpuType, gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.memory import kv_capacity_tokens
from hybridserve_llm.profiles.profile_file import Profile, read_profile
from hybridserve_llm.units import GIB

_MAX_NUM_SEQS = 256
# vLLM's defaults of max_num_batched_tokens for its server: by the memory of a GPU.
_LARGE_GPU_BYTES = 70 * GIB
_BATCHED_TOKENS_LARGE, _BATCHED_TOKENS_SMALL = 8192, 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownTier:
    """What the configuration says of a tier."""

    name: str
    facts: ModelFacts
    reach: float
    max_num_seqs: int | None
    memory_share: float | None
    max_tokens: int | None
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMaker:
    """Makes the table of every shape once.

    Attributes:
        prompt_tokens: Mean of the requests; `output_tokens` likewise.
        max_num_batched_tokens: Of every engine; None for vLLM's default.
    """

    prompt_tokens: float
    output_tokens: float
    max_num_batched_tokens: int | None

    @classmethod
    def of(cls, requests: Requests, max_num_batched_tokens: int | None) -> "TableMaker":
        """With the means of `requests`."""
        return cls(
            prompt_tokens=float(requests.prompt_tokens.mean()),
            output_tokens=float(requests.output_tokens.mean()),
            max_num_batched_tokens=max_num_batched_tokens,
        )

    def table(
        self,
        tier: KnownTier,
        kind: GpuType,
        *,
        tensor_parallel_size: int,
        pipeline_parallel_size: int,
        memory_bytes: int,
        max_num_seqs: int | None,
    ) -> StepTable:
        """The table of a replica of `tier` that may take `memory_bytes` of each GPU.

        Raises:
            CannotBeDone: The weights do not fit.
        """
        kv_tokens = kv_capacity_tokens(
            tier.facts,
            memory_bytes_per_gpu=memory_bytes,
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
        )
        if kv_tokens < 1:
            raise CannotBeDone(
                f"{tier.name} does not fit: {tensor_parallel_size * pipeline_parallel_size} GPUs "
                f"with {memory_bytes / GIB:.1f} GiB each have no room for its KV cache"
            )
        default = (
            _BATCHED_TOKENS_LARGE
            if kind.memory_bytes >= _LARGE_GPU_BYTES
            else _BATCHED_TOKENS_SMALL
        )
        n_seqs = max_num_seqs or tier.max_num_seqs or _MAX_NUM_SEQS
        return step_table(
            ReplicaShape(
                facts=tier.facts,
                gpu=kind,
                tensor_parallel_size=tensor_parallel_size,
                pipeline_parallel_size=pipeline_parallel_size,
                max_num_seqs=n_seqs,
                max_num_batched_tokens=max(self.max_num_batched_tokens or default, n_seqs),
                kv_cache_tokens=kv_tokens,
                max_model_len=tier.max_tokens,
            ),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
            profile=_profile_of(tier, kind, (tensor_parallel_size, pipeline_parallel_size)),
        )


def known_tiers(config: CascadeConfig) -> tuple[KnownTier, ...]:
    """Every tier, with its reach from the file or the certificate.

    Raises:
        ConfigError: A reach or the sizes of a model are not known, or a file cannot be read.
    """
    certificate = None if config.certificate is None else load_certificate(config.certificate)
    certified = {} if certificate is None else _certified_reach(certificate)
    tiers = []
    for tier in config.tiers:
        reach = tier.workload.reach
        if reach is None and certificate is not None:
            reach = certified.get(tier.name, 0.0)
        if reach is None:
            raise ConfigError(
                f"tier {tier.name} has no workload.reach, and there is no certificate to tell it: "
                "give the share of requests that ask it, between 0 and 1"
            )
        tiers.append(
            KnownTier(
                name=tier.name,
                facts=tier.facts or facts_of_model(tier.model),
                reach=reach,
                max_num_seqs=tier.engine.max_num_seqs,
                memory_share=tier.engine.gpu_memory_utilization,
                max_tokens=tier.engine.max_model_len,
                profiles=tuple(read_profile(profile) for profile in tier.profiles),
            )
        )
    return tuple(tiers)


def planned_cascade(
    planned: PlanOnCluster, tiers: Sequence[KnownTier], make: TableMaker
) -> SimulatedCascade:
    """The plan's replicas; GPUs of the cluster that it does not use are parked.

    Raises:
        ConfigError: The plan has other tiers than the configuration.
        CannotBeDone: A tier runs elsewhere, on the CPU, or shares GPUs with another.
    """
    known = {tier.name: tier for tier in tiers}
    names = [tier.tier for tier in planned.plan.tiers]
    if names != [tier.name for tier in tiers]:
        raise ConfigError(
            f"the plan has the tiers {', '.join(names)}, the configuration {', '.join(known)}"
        )
    uuids = [uuid for placement in planned.plan.placements for uuid in placement.gpu_uuids]
    if len(uuids) > len(set(uuids)):
        raise CannotBeDone(
            "the plan has engines that share a GPU: nobody measured how they share its time, and "
            "the simulator does not guess it"
        )
    kinds = {node.name: node.gpu_type for node in planned.cluster.nodes}
    made: dict[Placement, StepTable] = {}
    simulated = tuple(
        SimulatedTier(
            name=tier.tier,
            reach=known[tier.tier].reach,
            lives=tuple(
                ReplicaLife(table=table)
                for table in _tables(tier, known[tier.tier], planned, kinds, make, made)
            ),
        )
        for tier in planned.plan.tiers
    )
    cluster = planned.cluster
    return SimulatedCascade(tiers=simulated, n_gpus=cluster.n_gpus, parked_w=cluster.parked_w())


def _tables(
    tier: TierPlan,
    known: KnownTier,
    planned: PlanOnCluster,
    kinds: dict[str, GpuType],
    make: TableMaker,
    made: dict[Placement, StepTable],
) -> tuple[StepTable, ...]:
    if tier.endpoints:
        raise CannotBeDone(f"tier {tier.tier} runs at its endpoints, of which nothing is known")
    tables = []
    for placement in tier.placements:
        if placement.device == "cpu":
            raise CannotBeDone(f"{placement.name} runs on the CPU, for which there is no model")
        kind = _kind_of(placement, planned, kinds)
        # Replicas that differ in place alone have one table.
        share = placement.gpu_memory_share or known.memory_share or MAX_SHARED_GPU_MEMORY
        key = Placement(
            name=tier.tier,
            device="gpu",
            node=kind.name,
            tensor_parallel_size=placement.tensor_parallel_size,
            pipeline_parallel_size=placement.pipeline_parallel_size,
            gpu_memory_share=share,
            max_num_seqs=placement.max_num_seqs,
        )
        if key not in made:
            made[key] = make.table(
                known,
                kind,
                tensor_parallel_size=placement.tensor_parallel_size,
                pipeline_parallel_size=placement.pipeline_parallel_size,
                memory_bytes=int(share * planned.cluster.memory_bytes(kind)),
                max_num_seqs=placement.max_num_seqs,
            )
        tables.append(made[key])
    return tuple(tables)


def _kind_of(placement: Placement, planned: PlanOnCluster, kinds: dict[str, GpuType]) -> GpuType:
    types = planned.cluster.types
    return types[0] if len(types) == 1 else kinds[placement.node.split("+")[0]]


def facts_of_model(model: str) -> ModelFacts:
    """The facts of a public model by its hub id, else of the checkpoint in the folder `model`.

    Raises:
        ConfigError: It is neither, or the folder's `config.json` does not tell its sizes.
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


def _certified_reach(certificate: Certificate) -> dict[str, float]:
    """Share of requests that ask each tier: what no tier below answered."""
    if certificate.policy is None:
        return {certificate.tiers[-1]: 1.0}
    left, reaches = certificate.policy.share, {}
    for name in certificate.chain[:-1]:
        reaches[name] = max(left, 0.0)
        left -= certificate.policy.acceptance.get(name, 0.0)
    reaches[certificate.chain[-1]] = max(left, 0.0) + 1 - certificate.policy.share
    return reaches


def _profile_of(tier: KnownTier, kind: GpuType, sizes: tuple[int, int]) -> Profile | None:
    """The last measurements given of this shape."""
    for profile in reversed(tier.profiles):
        own = (profile.tensor_parallel_size, profile.pipeline_parallel_size)
        if profile.gpu is not None and gpu_type(profile.gpu).name == kind.name and own == sizes:
            return profile
    return None
