"""Describe a plan: where every replica runs. Planners make it, the launcher carries it out.

Its JSON form is the file `plan.json`; pydantic checks it when it is read.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from hybridserve_llm.errors import ConfigError

SCHEMA_VERSION = 2
"""Number of the file's form; it rises when a reader of the old form would misread the new one."""

MAX_SHARED_GPU_MEMORY = 0.9
"""Share of a GPU's memory for all engines that share it; their CUDA contexts need the rest."""

SHARE_STEPS = 1000
"""vLLM takes a share of memory; ours have three digits and are rounded down."""

_SHARE_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Hold where and how one replica runs: one engine, one process group.

    Attributes:
        name: `tier/index`, unique in the plan, such as `small/0`.
        node: Host the engine runs on; `localhost` is the launcher's own. If pipeline stages are on
            several nodes, it has their names joined by `+`.
        gpu_uuids: NVML UUIDs, shape [tensor_parallel_size * pipeline_parallel_size] on a GPU,
            empty on the CPU.
        gpu_memory_share: Part of each of its GPUs' memory, in (0, 1]; None leaves it to the tier's
            own setting or vLLM's default, which expects a GPU of its own.
        max_num_seqs: Requests the engine runs at a time; None leaves it to the tier's own setting
            or vLLM's default.
        cpu_threads: OpenMP threads per rank on the CPU; None on a GPU.
        cpu_core_groups: Cores each rank is bound to, shape [n_ranks, n_cores]; empty: not bound.
    """

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    name: str
    device: Literal["cpu", "gpu"]
    node: str = "localhost"
    tensor_parallel_size: int = 1
    pipeline_parallel_size: int = 1
    gpu_uuids: tuple[str, ...] = ()
    gpu_memory_share: float | None = None
    max_num_seqs: int | None = None
    cpu_threads: int | None = None
    cpu_core_groups: tuple[tuple[int, ...], ...] = ()

    @property
    def n_ranks(self) -> int:
        """Return the number of worker processes of the engine, one per GPU or CPU core group."""
        return self.tensor_parallel_size * self.pipeline_parallel_size

    def faults(self) -> tuple[str, ...]:
        """Return each contradiction in this placement as a sentence; empty if there is none."""
        rules = {
            f"tensor_parallel_size {self.tensor_parallel_size} and pipeline_parallel_size "
            f"{self.pipeline_parallel_size} must be at least 1": self.tensor_parallel_size >= 1
            and self.pipeline_parallel_size >= 1,
            **(self._gpu_rules() if self.device == "gpu" else self._cpu_rules()),
        }
        return tuple(rule for rule, is_kept in rules.items() if not is_kept)

    def _gpu_rules(self) -> dict[str, bool]:
        share = self.gpu_memory_share
        return {
            f"{self.n_ranks} different GPUs needed, {len(set(self.gpu_uuids))} named": len(
                self.gpu_uuids
            )
            == len(set(self.gpu_uuids))
            == self.n_ranks,
            f"gpu_memory_share {share} must be above 0 and at most 1": share is None
            or 0 < share <= 1,
            f"max_num_seqs {self.max_num_seqs} must be at least 1": self.max_num_seqs is None
            or self.max_num_seqs >= 1,
            "cpu_threads and cpu_core_groups are for device cpu": self.cpu_threads is None
            and not self.cpu_core_groups,
        }

    def _cpu_rules(self) -> dict[str, bool]:
        groups = self.cpu_core_groups
        cores = [core for group in groups for core in group]
        return {
            "gpu_uuids and gpu_memory_share are for device gpu": not self.gpu_uuids
            and self.gpu_memory_share is None,
            f"cpu_threads {self.cpu_threads} must be at least 1": (self.cpu_threads or 0) >= 1,
            f"{self.n_ranks} core groups needed, {len(groups)} given": len(groups) == self.n_ranks
            or (self.n_ranks == 1 and not groups),
            "a core group is empty, or two hold the same core": all(groups)
            and len(cores) == len(set(cores)),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class TierPlan:
    """Hold one tier: replicas to start, or endpoints that run already; never both."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    tier: str
    placements: tuple[Placement, ...] = ()
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Hold every tier's replicas, cheapest tier first."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)

    tiers: tuple[TierPlan, ...]
    schema_version: int = SCHEMA_VERSION

    @property
    def placements(self) -> tuple[Placement, ...]:
        """Return all replicas that are to be started."""
        return tuple(placement for tier in self.tiers for placement in tier.placements)

    def check(self) -> None:
        """Check that the plan does not contradict itself.

        Raises:
            ConfigError: It does; the message names every fault.
        """
        faults = [*self._tier_faults(), *self._memory_faults()]
        for placement in self.placements:
            faults += [f"{placement.name}: {fault}" for fault in placement.faults()]
        if faults:
            raise ConfigError(f"plan: {'; '.join(faults)}")

    def _tier_faults(self) -> list[str]:
        faults = [] if self.tiers else ["it has no tiers"]
        tiers = [tier.tier for tier in self.tiers]
        faults += [f"tier {tier} is there twice" for tier in _twice(tiers)]
        replicas = [placement.name for placement in self.placements]
        faults += [f"replica {name} is there twice" for name in _twice(replicas)]
        for tier in self.tiers:
            if bool(tier.placements) == bool(tier.endpoints):
                faults.append(f"tier {tier.tier} needs either placements or endpoints")
            faults += [
                f"{placement.name} must be called {tier.tier}/NUMBER"
                for placement in tier.placements
                if not _is_replica_name(placement.name, of=tier.tier)
            ]
        return faults

    def _memory_faults(self) -> list[str]:
        faults = []
        uuids = sorted({uuid for placement in self.placements for uuid in placement.gpu_uuids})
        for uuid in uuids:
            here = [placement for placement in self.placements if uuid in placement.gpu_uuids]
            if len(here) == 1:
                continue
            without = [placement.name for placement in here if placement.gpu_memory_share is None]
            total = sum(placement.gpu_memory_share or 0.0 for placement in here)
            if without:
                faults.append(f"{', '.join(without)} share GPU {uuid} without gpu_memory_share")
            elif total > MAX_SHARED_GPU_MEMORY + _SHARE_ROUNDING:
                faults.append(
                    f"engines take {total:.3f} of GPU {uuid}, at most {MAX_SHARED_GPU_MEMORY}"
                )
        return faults

    def to_json(self) -> str:
        """Return the plan as indented JSON; `from_json` gives an equal plan back."""
        return _PLAN.dump_json(self, indent=2).decode() + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> "Plan":
        """Return the plan in `text`, checked.

        Raises:
            ConfigError: It is not JSON, has another schema version, or an unknown or missing key,
                or the plan contradicts itself.
        """
        try:
            version = _VERSION.validate_json(text).schema_version
            if version != SCHEMA_VERSION:
                raise ConfigError(
                    f"plan has schema_version {version}, this program reads {SCHEMA_VERSION}: "
                    "plan anew"
                )
            plan = _PLAN.validate_json(text)
        except ValidationError as exc:
            faults = (
                f"{'.'.join(map(str, error['loc'])) or 'text'}: {error['msg']}"
                for error in exc.errors()
            )
            raise ConfigError(f"plan: {'; '.join(faults)}") from exc
        plan.check()
        return plan


@dataclass(frozen=True, slots=True, kw_only=True)
class _Version:
    schema_version: int


_PLAN = TypeAdapter(Plan)
_VERSION = TypeAdapter(_Version)


def rounded_share(share: float) -> float:
    """Return a share of memory, rounded down to a multiple of 1 / `SHARE_STEPS`."""
    return math.floor(share * SHARE_STEPS + 1e-6) / SHARE_STEPS


def _twice(names: list[str]) -> list[str]:
    return sorted({name for name in names if names.count(name) > 1})


def _is_replica_name(name: str, *, of: str) -> bool:
    tier, _, index = name.rpartition("/")
    return tier == of and index.isascii() and index.isdigit()
