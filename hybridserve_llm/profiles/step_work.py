"""Count the work of one decoding step on a GPU: bytes to read and operations to do.

Step time and power both follow from it. Batches are arrays, so a whole curve is one call; they
need not be whole numbers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridserve_llm.config.model_facts import ModelFacts

Floats = NDArray[np.float64]
_ACTIVATION_BYTES = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """Count one step of one pipeline stage on one GPU; every array has the shape of the batch.

    Attributes:
        batch: Sequences that decode in the step.
        weight_bytes: Weights read, of routed experts included.
        expert_bytes: Of these, weights of routed experts.
        kv_bytes: KV cache and states read.
        flops: Operations of decoding, and of the prompt tokens computed in the same step.
        all_reduce_bytes: Bytes that a GPU sends and receives in all-reduces of tensor parallelism.
        n_all_reduces: All-reduces of the stage; 0 without tensor parallelism.
        n_layers: Layers of the stage.
        expert_share: Share of the routed experts that the step's tokens go to; 0 for dense models.
    """

    batch: Floats
    weight_bytes: Floats
    expert_bytes: Floats
    kv_bytes: Floats
    flops: Floats
    all_reduce_bytes: Floats
    n_all_reduces: float
    n_layers: float
    expert_share: Floats


def step_work(
    facts: ModelFacts,
    *,
    tensor_parallel_size: int,
    pipeline_parallel_size: int,
    batch: ArrayLike,
    context_tokens: ArrayLike,
    prefill_ratio: ArrayLike,
    expert_spread: float = 1.0,
) -> StepWork:
    """Return the work on each GPU of a step in which every one of `batch` gets one token.

    Args:
        facts: The model.
        tensor_parallel_size: GPUs that share every layer; experts are shared out over them too.
        pipeline_parallel_size: Stages that share the layers; `batch` is of one stage at a time.
        batch: Sequences.
        context_tokens: Mean tokens that a sequence has in its KV cache.
        prefill_ratio: Prompt tokens computed per output token, as chunked prefill mixes them in.
        expert_spread: Share of the tokens that choose experts of their own, see
            `expert_share_hit`.

    Source: the roofline model (Williams et al. 2009), with the terms of decoding as in LLM-Viewer
    (arXiv:2402.16363, section 3): 2 operations per active weight and token, 4 per attention head
    dimension and cached token. Deviations: attention inside a prompt is not counted, and experts
    are counted by `expert_share_hit`.
    """
    sequences, context, ratio = np.broadcast_arrays(
        *(np.asarray(values, dtype=np.float64) for values in (batch, context_tokens, prefill_ratio))
    )
    n_gpus = tensor_parallel_size * pipeline_parallel_size
    tokens = sequences * (1 + ratio)
    hit = expert_share_hit(facts, tokens, spread=expert_spread)
    expert_bytes = hit * facts.expert_weight_bytes
    shared_bytes = facts.weight_bytes - facts.expert_weight_bytes
    # Input embeddings are stored in 16 bits, also where the rest is not.
    read_bytes = shared_bytes - 2 * facts.n_lookup_parameters + expert_bytes
    seen = seen_tokens(facts, context)
    layer_bytes = facts.kv_bytes_per_token / max(facts.n_attention_layers, 1)
    # A GPU keeps whole heads: with more GPUs than heads of keys and values, heads are repeated.
    kv_gpus = pipeline_parallel_size * min(tensor_parallel_size, facts.n_kv_heads)
    matmul = 2 * (facts.n_active_parameters - facts.n_lookup_parameters) * tokens
    attention = 4 * seen * facts.n_heads * facts.head_dim * sequences
    n_layers = facts.n_layers / pipeline_parallel_size
    n_all_reduces = 2 * n_layers if tensor_parallel_size > 1 else 0.0
    # A ring all-reduce moves 2 (g - 1) / g of the message through each GPU.
    ring = 2 * (tensor_parallel_size - 1) / tensor_parallel_size
    return StepWork(
        batch=sequences,
        weight_bytes=read_bytes / n_gpus,
        expert_bytes=expert_bytes / n_gpus,
        kv_bytes=sequences
        * (seen * layer_bytes / kv_gpus + facts.state_bytes_per_sequence / n_gpus),
        flops=(matmul + attention) / n_gpus,
        all_reduce_bytes=n_all_reduces * ring * tokens * facts.hidden_size * _ACTIVATION_BYTES,
        n_all_reduces=n_all_reduces,
        n_layers=n_layers,
        expert_share=hit,
    )


def seen_tokens(facts: ModelFacts, context_tokens: ArrayLike) -> Floats:
    """Return the cached tokens that a new token attends to, added up over the layers."""
    context = np.asarray(context_tokens, dtype=np.float64)
    in_window = np.minimum(context, facts.window_tokens or np.inf)
    full = facts.n_attention_layers - facts.n_window_layers
    return np.asarray(full * context + facts.n_window_layers * in_window)


def expert_share_hit(facts: ModelFacts, tokens: ArrayLike, *, spread: float = 1.0) -> Floats:
    """Return the expected share of a layer's routed experts that `tokens` go to.

    It is 0 for a dense model, and `1 - (1 - k / E)^max(1, spread * tokens)` with k of E experts a
    token. With a `spread` of 1 each token chooses by itself. Below 1 similar tokens choose similar
    experts, so that fewer are hit.
    """
    counts = np.asarray(tokens, dtype=np.float64)
    if not facts.n_experts:
        return np.zeros_like(counts)
    missed = 1 - facts.n_experts_per_token / facts.n_experts
    return np.asarray(1 - missed ** np.maximum(spread * counts, 1.0))
