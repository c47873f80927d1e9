"""Compute how an engine fills a GPU's memory: weights, overhead, and the rest for KV cache."""

import math
from dataclasses import dataclass

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.step_work import seen_tokens
from hybridserve_llm.units import GIB, MIB

# Activations of a full step, CUDA graphs and the context take 3 to 3.5 GB of an H100, by vLLM's
# profiling run; NCCL's buffers take 0.35 to 0.4 GB.
_OVERHEAD_BYTES = 3 * GIB
_NCCL_BYTES = 384 * MIB


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """Hold bytes on a replica's fullest GPU; `kv_bytes` is below 0 where weights do not fit."""

    weight_bytes: int
    overhead_bytes: int
    kv_bytes: int


def memory_use(
    facts: ModelFacts,
    *,
    memory_bytes_per_gpu: int,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    overhead_bytes: int = _OVERHEAD_BYTES,
) -> MemoryUse:
    """Return how an engine that may take `memory_bytes_per_gpu` of each GPU fills it.

    Args:
        facts: The model.
        memory_bytes_per_gpu: Bytes that the engine may take: usable memory times
            `gpu_memory_utilization`.
        tensor_parallel_size: GPUs that share every layer.
        pipeline_parallel_size: Stages; the fullest has the layers rounded up.
        overhead_bytes: Bytes that an engine takes on one GPU without weights and KV cache.
    """
    weights = math.ceil(
        facts.weight_bytes * _stage_share(facts, pipeline_parallel_size) / tensor_parallel_size
    )
    n_gpus = tensor_parallel_size * pipeline_parallel_size
    overhead = overhead_bytes + (_NCCL_BYTES if n_gpus > 1 else 0)
    return MemoryUse(
        weight_bytes=weights,
        overhead_bytes=overhead,
        kv_bytes=memory_bytes_per_gpu - weights - overhead,
    )


def kv_capacity_tokens(
    facts: ModelFacts,
    *,
    memory_bytes_per_gpu: int,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    overhead_bytes: int = _OVERHEAD_BYTES,
) -> int:
    """Return the tokens that a replica's KV cache holds; 0 or below where weights do not fit.

    Every layer is taken to keep every token. With window layers a cache holds more sequences than
    that, see `kv_capacity_sequences`. A model without attention has no such limit: `sys.maxsize`
    would be a lie, so one token is taken to cost one byte.
    """
    use = memory_use(
        facts,
        memory_bytes_per_gpu=memory_bytes_per_gpu,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        overhead_bytes=overhead_bytes,
    )
    return kv_tokens(
        facts,
        use.kv_bytes,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
    )


def kv_tokens(
    facts: ModelFacts, kv_bytes: int, *, tensor_parallel_size: int, pipeline_parallel_size: int
) -> int:
    """Return the tokens that `kv_bytes` on each rank hold; counted as `kv_capacity_tokens` is."""
    share = _kv_share(facts, tensor_parallel_size, pipeline_parallel_size)
    return math.floor(kv_bytes / max(facts.kv_bytes_per_token * share, 1))


def kv_capacity_sequences(
    facts: ModelFacts,
    *,
    context_tokens: float,
    memory_bytes_per_gpu: int,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    overhead_bytes: int = _OVERHEAD_BYTES,
) -> int:
    """Return how many sequences of `context_tokens` fit; 0 or below where weights do not.

    Window layers count with their window only, and the states of Mamba layers count too.
    """
    use = memory_use(
        facts,
        memory_bytes_per_gpu=memory_bytes_per_gpu,
        tensor_parallel_size=tensor_parallel_size,
        pipeline_parallel_size=pipeline_parallel_size,
        overhead_bytes=overhead_bytes,
    )
    layer_bytes = facts.kv_bytes_per_token / max(facts.n_attention_layers, 1)
    kept = float(seen_tokens(facts, context_tokens)) * layer_bytes
    share = _kv_share(facts, tensor_parallel_size, pipeline_parallel_size)
    state_share = _stage_share(facts, pipeline_parallel_size) / tensor_parallel_size
    each = kept * share + facts.state_bytes_per_sequence * state_share
    return math.floor(use.kv_bytes / max(each, 1))


def _stage_share(facts: ModelFacts, pipeline_parallel_size: int) -> float:
    """Return the share of the layers in the fullest stage."""
    return math.ceil(facts.n_layers / pipeline_parallel_size) / facts.n_layers


def _kv_share(facts: ModelFacts, tensor_parallel_size: int, pipeline_parallel_size: int) -> float:
    """Return the share of a token's KV cache on the fullest GPU.

    GPUs hold whole heads, which are repeated where GPUs are more.
    """
    heads = math.ceil(facts.n_kv_heads / tensor_parallel_size) / facts.n_kv_heads
    return heads * _stage_share(facts, pipeline_parallel_size)
