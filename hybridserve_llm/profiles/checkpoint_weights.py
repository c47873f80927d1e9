"""Every weight of a checkpoint by name and shape, as its Hugging Face configuration implies.

Written from the layouts of the model classes in transformers 5; a test counts them against those
classes. One list gives parameters, bytes under quantisation (names decide what is left out of it)
and what a token meets.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hybridserve_llm.errors import ConfigError

Part = Literal["embedding", "linear", "expert", "other"]
Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Weight:
    """Tensors of one name; `part` says what quantisation and a decoding step do with them."""

    name: str
    n_parameters: int
    part: Part
    n_columns: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """What a model type fixes and its configuration does not say."""

    qkv_bias: bool = False
    has_head_norms: bool = False
    norms_per_layer: int = 2
    mlp_matrices: int = 3
    mlp_name: str = "mlp"


_GEMMA = _Family(norms_per_layer=4)
FAMILIES: Mapping[str, _Family] = {
    "llama": _Family(),
    "mistral": _Family(),
    "ministral": _Family(),
    "phi3": _Family(),
    "mixtral": _Family(mlp_name="block_sparse_moe"),
    "qwen2": _Family(qkv_bias=True),
    "qwen2_moe": _Family(qkv_bias=True),
    "qwen3": _Family(has_head_norms=True),
    "qwen3_moe": _Family(has_head_norms=True),
    "qwen3_vl_text": _Family(has_head_norms=True),
    "qwen3_vl_moe_text": _Family(has_head_norms=True),
    "gemma2": _GEMMA,
    "gemma3_text": _Family(norms_per_layer=4, has_head_norms=True),
    "llama4_text": _Family(mlp_name="feed_forward"),
    "gpt_oss": _Family(),
    "deepseek_v3": _Family(),
    "nemotron_h": _Family(norms_per_layer=1, mlp_matrices=2),
}

# Of the pattern in config.json, and of the words transformers makes of it.
_HYBRID_BLOCKS: Mapping[str, str] = {
    "M": "mamba",
    "*": "attention",
    "-": "mlp",
    "E": "moe",
    "linear_attention": "mamba",
    "full_attention": "attention",
}


def first_of(config: Values, *keys: str, default: Any = None) -> Any:
    """The first value among `keys` that is there and not null."""
    return next((config[key] for key in keys if config.get(key) is not None), default)


def whole_number(config: Values, *keys: str) -> int:
    """The whole number under the first of `keys` that is there.

    Raises:
        ConfigError: None is there, or it is not a whole number.
    """
    value = first_of(config, *keys)
    if not isinstance(value, int) or isinstance(value, bool):
        raise ConfigError(f"the model's configuration has {value!r} as {keys[0]}, not a number")
    return value


def weights_of(config: Values) -> Iterator[Weight]:
    """All weights of the language model that `config` describes; other towers are left out.

    Args:
        config: Of the text model itself: `text_config` of a model of text and images.

    Raises:
        ConfigError: Its `model_type` is not one of those known here, or a number is missing.
    """
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None:
        raise ConfigError(
            f"model type {config.get('model_type')!r} is not known; known are "
            f"{', '.join(sorted(FAMILIES))}; give the tier's facts by hand"
        )
    hidden, vocabulary = whole_number(config, "hidden_size"), whole_number(config, "vocab_size")
    yield Weight("model.embed_tokens", vocabulary * hidden, "embedding")
    if not config.get("tie_word_embeddings"):
        yield Weight("lm_head", vocabulary * hidden, "other", hidden)
    yield Weight("model.norm", hidden, "other")
    for layer, blocks in enumerate(layer_blocks(config)):
        name = f"model.layers.{layer}"
        yield Weight(f"{name}.norms", family.norms_per_layer * hidden, "other")
        for block in blocks:
            yield from _block(config, family, block, name)


def layer_blocks(config: Values) -> list[tuple[str, ...]]:
    """Of each layer the blocks it is made of: attention, mamba, mlp, moe."""
    if config.get("model_type") == "nemotron_h":
        listed = config.get("layers_block_type") or config.get("hybrid_override_pattern") or ()
        return [(_HYBRID_BLOCKS.get(block, str(block)),) for block in listed]
    n_layers = whole_number(config, "num_hidden_layers")
    return [("attention", "moe" if _is_moe(config, i) else "mlp") for i in range(n_layers)]


def n_routed_experts(config: Values) -> int:
    """Experts that a layer routes tokens to; 0 for a dense model."""
    keys = ("num_local_experts", "num_experts", "n_routed_experts")
    count = int(first_of(config, *keys, default=0))
    return count if count > 1 else 0


def has_experts(config: Values) -> bool:
    """Whether any layer routes; transformers gives dense hybrids a number of experts too."""
    return any("moe" in blocks for blocks in layer_blocks(config))


def _is_moe(config: Values, layer: int) -> bool:
    if not n_routed_experts(config):
        return False
    if config.get("moe_layers"):
        return layer in config["moe_layers"]
    if layer < (config.get("first_k_dense_replace") or 0):
        return False
    if layer in (config.get("mlp_only_layers") or ()):
        return False
    step = first_of(config, "interleave_moe_layer_step", "decoder_sparse_step", default=1)
    return (layer + 1) % int(step) == 0


def _block(config: Values, family: _Family, block: str, name: str) -> Iterator[Weight]:
    if block == "attention":
        kind = _latent_attention if config.get("kv_lora_rank") else _attention
        yield from kind(config, family, f"{name}.self_attn")
    elif block == "mamba":
        yield from _mamba(config, f"{name}.mixer")
    elif block == "moe":
        yield from _moe(config, family, f"{name}.{family.mlp_name}")
    elif block == "mlp":
        inner = whole_number(config, "intermediate_size_mlp", "intermediate_size")
        yield from _mlp(config, family, f"{name}.{family.mlp_name}", inner)
    else:
        raise ConfigError(f"the model's configuration has a layer {block!r}, which is not known")


def _matrix(name: str, rows: int, columns: int) -> Weight:
    return Weight(name, rows * columns, "linear", columns)


def head_dim(config: Values) -> int:
    """Numbers in an attention head."""
    default = whole_number(config, "hidden_size") // whole_number(config, "num_attention_heads")
    return int(first_of(config, "head_dim", default=default))


def _attention(config: Values, family: _Family, name: str) -> Iterator[Weight]:
    hidden, heads = whole_number(config, "hidden_size"), whole_number(config, "num_attention_heads")
    kv_heads = whole_number(config, "num_key_value_heads", "num_attention_heads")
    width, kv_width = heads * head_dim(config), kv_heads * head_dim(config)
    yield _matrix(f"{name}.q_proj", width, hidden)
    yield _matrix(f"{name}.k_proj", kv_width, hidden)
    yield _matrix(f"{name}.v_proj", kv_width, hidden)
    yield _matrix(f"{name}.o_proj", hidden, width)
    has_bias = bool(config.get("attention_bias"))
    n_biases = (width + 2 * kv_width) * (family.qkv_bias or has_bias) + hidden * has_bias
    if config.get("model_type") == "gpt_oss":
        n_biases += heads  # attention sinks
    if family.has_head_norms:
        n_biases += 2 * head_dim(config)
    yield Weight(f"{name}.vectors", n_biases, "other")


def _latent_attention(config: Values, _family: _Family, name: str) -> Iterator[Weight]:
    """DeepSeek's multi-head latent attention (arXiv:2405.04434, section 2.1)."""
    hidden, heads = whole_number(config, "hidden_size"), whole_number(config, "num_attention_heads")
    rank, rope = whole_number(config, "kv_lora_rank"), whole_number(config, "qk_rope_head_dim")
    nope, value = whole_number(config, "qk_nope_head_dim"), whole_number(config, "v_head_dim")
    query = heads * (nope + rope)
    if q_rank := config.get("q_lora_rank"):
        yield _matrix(f"{name}.q_a_proj", q_rank, hidden)
        yield _matrix(f"{name}.q_b_proj", query, q_rank)
        yield Weight(f"{name}.q_a_layernorm", q_rank, "other")
    else:
        yield _matrix(f"{name}.q_proj", query, hidden)
    yield _matrix(f"{name}.kv_a_proj_with_mqa", rank + rope, hidden)
    yield _matrix(f"{name}.kv_b_proj", heads * (nope + value), rank)
    yield Weight(f"{name}.kv_a_layernorm", rank, "other")
    yield _matrix(f"{name}.o_proj", hidden, heads * value)


def _mlp(config: Values, family: _Family, name: str, inner: int) -> Iterator[Weight]:
    hidden = whole_number(config, "hidden_size")
    names = ("gate_proj", "up_proj", "down_proj")[-family.mlp_matrices :]
    for matrix in names:
        yield _matrix(f"{name}.{matrix}", inner, hidden)
    if config.get("mlp_bias"):
        yield Weight(f"{name}.vectors", (len(names) - 1) * inner + hidden, "other")


def _moe(config: Values, family: _Family, name: str) -> Iterator[Weight]:
    hidden, n_experts = whole_number(config, "hidden_size"), n_routed_experts(config)
    inner = whole_number(config, "moe_intermediate_size", "intermediate_size")
    model_type = config.get("model_type")
    n_vectors = (inner * 2 + hidden) * (model_type == "gpt_oss")
    expert = family.mlp_matrices * inner * hidden + n_vectors
    yield Weight(f"{name}.experts", n_experts * expert, "expert", hidden)
    biases = n_experts * (model_type in ("gpt_oss", "deepseek_v3"))
    yield Weight(f"{name}.gate", n_experts * hidden + biases, "other")
    yield from _mlp(config, family, f"{name}.shared_expert", _shared_width(config, inner))
    if model_type == "qwen2_moe":
        yield Weight(f"{name}.shared_expert_gate", hidden, "other")


def _shared_width(config: Values, inner: int) -> int:
    if config.get("model_type") == "llama4_text":
        return inner
    shared = first_of(config, "shared_expert_intermediate_size", default=0)
    return int(shared) or inner * int(first_of(config, "n_shared_experts", default=0))


def _mamba(config: Values, name: str) -> Iterator[Weight]:
    """A Mamba-2 block (arXiv:2405.21060, section 7)."""
    hidden, heads = whole_number(config, "hidden_size"), whole_number(config, "mamba_num_heads")
    width = heads * whole_number(config, "mamba_head_dim")
    mixed = width + 2 * whole_number(config, "n_groups") * whole_number(config, "ssm_state_size")
    yield _matrix(f"{name}.in_proj", width + mixed + heads, hidden)
    yield _matrix(f"{name}.out_proj", hidden, width)
    kernel = whole_number(config, "conv_kernel")
    yield Weight(f"{name}.vectors", mixed * (kernel + 1) + 3 * heads + width, "other")


def mamba_state_numbers(config: Values) -> tuple[int, int]:
    """Numbers of one layer's state of one sequence: of the convolution, and of the recurrence."""
    width = whole_number(config, "mamba_num_heads") * whole_number(config, "mamba_head_dim")
    state = whole_number(config, "ssm_state_size")
    mixed = width + 2 * whole_number(config, "n_groups") * state
    return mixed * (whole_number(config, "conv_kernel") - 1), math.prod((width, state))
