"""From a Hugging Face configuration, as a mapping, to the facts of the model; pure.

`launch/plans/model_config.py` fetches the configuration. Only the language model counts:
encoders of images and sound are left out, which a text request never runs.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.checkpoint_bytes import storage_of
from hybridserve_llm.profiles.checkpoint_weights import (
    Values,
    Weight,
    first_of,
    has_experts,
    head_dim,
    layer_blocks,
    mamba_state_numbers,
    n_routed_experts,
    number,
    weights_of,
)

_KV_NUMBER_BYTES = 2  # vLLM's default: the cache is kept in the 16 bits of the activations
_MAMBA_STATE_BYTES = 4  # mamba_ssm_cache_dtype is float32 in the configurations that have it


def facts_of_config(config: Mapping[str, Any]) -> ModelFacts:
    """The facts of the model that a Hugging Face `config.json` describes.

    Raises:
        ConfigError: Model type, data type or quantisation is not known, or a number is missing.
    """
    text = _text_config(config)
    weights = list(weights_of(text))
    storage = storage_of(text)
    expert = _sum(weights, lambda weight: weight.part == "expert")
    is_tied = bool(text.get("tie_word_embeddings"))
    lookup = 0 if is_tied else _sum(weights, lambda weight: weight.part == "embedding")
    layers = _attention_layers(text)
    latent = text.get("kv_lora_rank")
    n_experts = n_routed_experts(text) if has_experts(text) else 0
    return ModelFacts(
        n_parameters=_sum(weights, lambda _: True),
        n_layers=len(layer_blocks(text)),
        hidden_size=number(text, "hidden_size"),
        n_heads=number(text, "num_attention_heads"),
        n_kv_heads=1 if latent else number(text, "num_key_value_heads", "num_attention_heads"),
        head_dim=_scored_numbers(text),
        n_attention_layers=layers.n,
        n_window_layers=layers.n_window,
        window_tokens=layers.window_tokens if layers.n_window else None,
        n_experts=n_experts,
        n_experts_per_token=_experts_per_token(text) if n_experts else 0,
        n_expert_parameters=expert,
        n_lookup_parameters=lookup,
        weight_bytes=round(sum(w.n_parameters * storage.bits_of(w) for w in weights) / 8),
        expert_weight_bytes=round(
            sum(w.n_parameters * storage.bits_of(w) for w in weights if w.part == "expert") / 8
        ),
        matmul_bits=_matmul_bits(storage.matmul_bits),
        kv_bytes_per_token=layers.n * _kv_numbers(text) * _KV_NUMBER_BYTES,
        state_bytes_per_sequence=_state_bytes(text),
    )


def _text_config(config: Values) -> Values:
    """The language model's part, with what stands beside it and not in it."""
    inner = first_of(config, "text_config", "llm_config", default=None)
    if inner is None and "thinker_config" in config:
        return _text_config(config["thinker_config"])
    if not isinstance(inner, Mapping):
        return config
    outer = {
        key: config[key]
        for key in ("quantization_config", "dtype", "torch_dtype", "tie_word_embeddings")
        if config.get(key) is not None
    }
    return {**outer, **{key: value for key, value in inner.items() if value is not None}}


def _sum(weights: list[Weight], is_counted: Callable[[Weight], bool]) -> int:
    return sum(weight.n_parameters for weight in weights if is_counted(weight))


def _matmul_bits(bits: int) -> Literal[8, 16]:
    return 8 if bits == 8 else 16


def _experts_per_token(config: Values) -> int:
    return number(config, "num_experts_per_tok")


def _scored_numbers(config: Values) -> int:
    """Numbers of a head, or what latent attention multiplies in place of them.

    Its scores read the latent and the rotary part, its values the latent alone: the mean of both.
    """
    if rank := config.get("kv_lora_rank"):
        return int(rank + number(config, "qk_rope_head_dim") // 2)
    return head_dim(config)


def _kv_numbers(config: Values) -> int:
    """Numbers that one layer keeps of one token."""
    if rank := config.get("kv_lora_rank"):
        return int(rank + number(config, "qk_rope_head_dim"))
    n_heads = number(config, "num_key_value_heads", "num_attention_heads")
    return 2 * n_heads * head_dim(config)


@dataclass(frozen=True, slots=True)
class _AttentionLayers:
    n: int
    n_window: int
    window_tokens: int | None


def _attention_layers(config: Values) -> _AttentionLayers:
    n = sum("attention" in blocks for blocks in layer_blocks(config))
    window = first_of(config, "sliding_window", "attention_chunk_size")
    if window is None or config.get("use_sliding_window") is False:
        return _AttentionLayers(n, 0, None)
    if kinds := config.get("layer_types"):
        n_window = sum(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    elif pattern := first_of(config, "sliding_window_pattern", "_sliding_window_pattern"):
        n_window = n - n // int(pattern)  # every pattern-th layer sees everything
    elif config.get("model_type") == "llama4_text":
        n_window = n - n // 4  # no_rope_layer_interval: every 4th layer sees everything
    else:
        n_window = n if config.get("model_type") in ("mistral", "mixtral", "phi3") else 0
    return _AttentionLayers(n, n_window, int(window))


def _state_bytes(config: Values) -> int:
    n_layers = sum("mamba" in blocks for blocks in layer_blocks(config))
    if not n_layers:
        return 0
    convolved, recurrent = mamba_state_numbers(config)
    return n_layers * (convolved * _KV_NUMBER_BYTES + recurrent * _MAMBA_STATE_BYTES)
