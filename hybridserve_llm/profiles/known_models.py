"""List public models by hub id, with the sizes in their `config.json` that facts are derived from.

The same code reads a checkpoint's own configuration, so a figure here can be checked against the
hub. Only keys that sizes follow from are kept. Encoders of images and sound are left out.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.checkpoint_shapes import facts_of_config

_FP8 = {"quant_method": "fp8"}
_MXFP4 = {"quant_method": "mxfp4"}


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownModel:
    """Hold one shape, the keys of `config.json` as they are, and the hub ids that have it."""

    ids: tuple[str, ...]
    config: Mapping[str, Any]


def _llama(hidden: int, inner: int, layers: int, heads: int, **rest: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
        "tie_word_embeddings": False,
        **rest,
    }


def _qwen3(
    hidden: int, inner: int, layers: int, heads: int, *, tied: bool = False
) -> dict[str, Any]:
    return {
        "model_type": "qwen3",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 151936,
        "tie_word_embeddings": tied,
    }


def _qwen3_moe(
    hidden: int, inner: int, layers: int, heads: int, kv_heads: int, experts: int = 128
) -> dict[str, Any]:
    return {
        **_qwen3(hidden, inner, layers, heads),
        "model_type": "qwen3_moe",
        "num_key_value_heads": kv_heads,
        "moe_intermediate_size": inner,
        "num_experts": experts,
        "num_experts_per_tok": 8,
    }


def _gemma3(hidden: int, inner: int, layers: int, heads: int, kv_heads: int, head: int) -> Any:
    return {
        "model_type": "gemma3_text",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head,
        "vocab_size": 262208,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "tie_word_embeddings": True,
    }


def _llama4(experts: int, moe_step: int) -> dict[str, Any]:
    return {
        "model_type": "llama4_text",
        "hidden_size": 5120,
        "intermediate_size": 8192,
        "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "vocab_size": 202048,
        "num_local_experts": experts,
        "num_experts_per_tok": 1,
        "interleave_moe_layer_step": moe_step,
        "attention_chunk_size": 8192,
        "tie_word_embeddings": False,
    }


def _gpt_oss(layers: int, experts: int) -> dict[str, Any]:
    return {
        "model_type": "gpt_oss",
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "num_hidden_layers": layers,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "vocab_size": 201088,
        "num_local_experts": experts,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "sliding_window_pattern": 2,
        "attention_bias": True,
        "tie_word_embeddings": False,
        "quantization_config": _MXFP4,
    }


def _nemotron_h(hidden: int, inner: int, pattern: str) -> dict[str, Any]:
    return {
        "model_type": "nemotron_h",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "hybrid_override_pattern": pattern,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "mamba_num_heads": 128,
        "mamba_head_dim": 80,
        "ssm_state_size": 128,
        "n_groups": 8,
        "conv_kernel": 4,
        "vocab_size": 131072,
        "tie_word_embeddings": False,
    }


def _mixtral(hidden: int, inner: int, layers: int, heads: int, vocabulary: int) -> dict[str, Any]:
    return {
        **_llama(hidden, inner, layers, heads, vocab_size=vocabulary),
        "model_type": "mixtral",
        "num_local_experts": 8,
        "num_experts_per_tok": 2,
    }


_DEEPSEEK_V3: dict[str, Any] = {
    "model_type": "deepseek_v3",
    "hidden_size": 7168,
    "intermediate_size": 18432,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 128,
    "qk_rope_head_dim": 64,
    "v_head_dim": 128,
    "n_routed_experts": 256,
    "n_shared_experts": 1,
    "num_experts_per_tok": 8,
    "first_k_dense_replace": 3,
    "vocab_size": 129280,
    "tie_word_embeddings": False,
    "quantization_config": _FP8,
}
# Meta quantised the feed-forward layers but for the first and the last ("The Llama 3 Herd of
# Models", arXiv:2407.21783, section 6.2); attention stayed at 16 bits.
_LLAMA_405B_FP8 = {
    "quant_method": "fbgemm_fp8",
    "modules_to_not_convert": ["self_attn", "layers.0.mlp", "layers.125.mlp"],
}
_LLAMA_405B = _llama(16384, 53248, 126, 128)
_QWEN3_30B = _qwen3_moe(2048, 768, 48, 32, 4)
_QWEN3_235B = _qwen3_moe(4096, 1536, 94, 64, 4)
_QWEN3_480B = _qwen3_moe(6144, 2560, 62, 96, 8, 160)
# Llama 4's FP8 checkpoint keeps all but the routed experts at 16 bits.
_MAVERICK_FP8 = {
    "quant_method": "compressed-tensors",
    "ignore": ["self_attn", "shared_expert", "gate_proj", "up_proj", "down_proj"],
    "config_groups": {
        "group_0": {"weights": {"num_bits": 8}, "input_activations": {"num_bits": 8}}
    },
}

_SHAPES: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("meta-llama/Llama-3.2-1B-Instruct", "meta-llama/Llama-3.2-1B"),
        _llama(2048, 8192, 16, 32, head_dim=64, tie_word_embeddings=True),
    ),
    (
        ("meta-llama/Llama-3.2-3B-Instruct", "meta-llama/Llama-3.2-3B"),
        _llama(3072, 8192, 28, 24, head_dim=128, tie_word_embeddings=True),
    ),
    (
        ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
        _llama(4096, 14336, 32, 32),
    ),
    (
        (
            "meta-llama/Llama-3.1-70B-Instruct",
            "meta-llama/Llama-3.1-70B",
            "meta-llama/Llama-3.3-70B-Instruct",
        ),
        _llama(8192, 28672, 80, 64),
    ),
    (("meta-llama/Llama-3.1-405B-Instruct", "meta-llama/Llama-3.1-405B"), _LLAMA_405B),
    (
        ("meta-llama/Llama-3.1-405B-Instruct-FP8", "meta-llama/Llama-3.1-405B-FP8"),
        {**_LLAMA_405B, "quantization_config": _LLAMA_405B_FP8},
    ),
    (
        ("meta-llama/Llama-2-70b-chat-hf", "meta-llama/Llama-2-70b-hf"),
        _llama(8192, 28672, 80, 64, vocab_size=32000),
    ),
    (
        ("mistralai/Mistral-7B-Instruct-v0.3",),
        _llama(4096, 14336, 32, 32, vocab_size=32768, model_type="mistral"),
    ),
    (
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", "mistralai/Mixtral-8x7B-v0.1"),
        _mixtral(4096, 14336, 32, 32, 32000),
    ),
    (
        ("mistralai/Mixtral-8x22B-Instruct-v0.1",),
        _mixtral(6144, 16384, 56, 48, 32768),
    ),
    (("Qwen/Qwen3-0.6B",), _qwen3(1024, 3072, 28, 16, tied=True)),
    (("Qwen/Qwen3-1.7B",), _qwen3(2048, 6144, 28, 16, tied=True)),
    (("Qwen/Qwen3-4B",), _qwen3(2560, 9728, 36, 32, tied=True)),
    (("Qwen/Qwen3-8B", "Qwen/Qwen3-VL-8B-Instruct"), _qwen3(4096, 12288, 36, 32)),
    (("Qwen/Qwen3-14B",), _qwen3(5120, 17408, 40, 40)),
    (("Qwen/Qwen3-32B", "Qwen/Qwen3-VL-32B-Instruct"), _qwen3(5120, 25600, 64, 64)),
    (
        (
            "Qwen/Qwen3-30B-A3B",
            "Qwen/Qwen3-30B-A3B-Instruct-2507",
            "Qwen/Qwen3-30B-A3B-Thinking-2507",
            "Qwen/Qwen3-Coder-30B-A3B-Instruct",
            "Qwen/Qwen3-Omni-30B-A3B-Instruct",
            "Qwen/Qwen3-VL-30B-A3B-Instruct",
        ),
        _QWEN3_30B,
    ),
    (
        (
            "Qwen/Qwen3-235B-A22B",
            "Qwen/Qwen3-235B-A22B-Instruct-2507",
            "Qwen/Qwen3-235B-A22B-Thinking-2507",
            "Qwen/Qwen3-VL-235B-A22B-Instruct",
        ),
        _QWEN3_235B,
    ),
    (
        (
            "Qwen/Qwen3-235B-A22B-FP8",
            "Qwen/Qwen3-235B-A22B-Instruct-2507-FP8",
            "Qwen/Qwen3-235B-A22B-Thinking-2507-FP8",
            "Qwen/Qwen3-VL-235B-A22B-Instruct-FP8",
        ),
        {**_QWEN3_235B, "quantization_config": _FP8},
    ),
    (("Qwen/Qwen3-Coder-480B-A35B-Instruct",), _QWEN3_480B),
    (
        ("Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8",),
        {**_QWEN3_480B, "quantization_config": _FP8},
    ),
    (("google/gemma-3-12b-it",), _gemma3(3840, 15360, 48, 16, 8, 256)),
    (("google/gemma-3-27b-it",), _gemma3(5376, 21504, 62, 32, 16, 128)),
    (("meta-llama/Llama-4-Scout-17B-16E-Instruct",), _llama4(16, 1)),
    (("meta-llama/Llama-4-Maverick-17B-128E-Instruct",), _llama4(128, 2)),
    (
        ("meta-llama/Llama-4-Maverick-17B-128E-Instruct-FP8",),
        {**_llama4(128, 2), "quantization_config": _MAVERICK_FP8},
    ),
    (("openai/gpt-oss-20b",), _gpt_oss(24, 32)),
    (("openai/gpt-oss-120b",), _gpt_oss(36, 128)),
    (
        ("deepseek-ai/DeepSeek-V3", "deepseek-ai/DeepSeek-R1", "deepseek-ai/DeepSeek-V3.1",
         "deepseek-ai/DeepSeek-V3-0324", "deepseek-ai/DeepSeek-R1-0528"),
        _DEEPSEEK_V3,
    ),
    (
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2",),
        _nemotron_h(4480, 15680, "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"),
    ),
    (
        ("nvidia/NVIDIA-Nemotron-Nano-12B-v2", "nvidia/NVIDIA-Nemotron-Nano-12B-v2-VL-BF16"),
        _nemotron_h(5120, 20480, "M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M*-M-M-M-M-"),
    ),
)  # fmt: skip
KNOWN_MODELS: Mapping[str, KnownModel] = {
    ids[0]: KnownModel(ids=ids, config=config) for ids, config in _SHAPES
}


def known_model_facts(model: str) -> ModelFacts | None:
    """Return the facts of the public model with this hub id; None where it is not listed."""
    wanted = model.casefold()
    for known in KNOWN_MODELS.values():
        if wanted in {name.casefold() for name in known.ids}:
            return facts_of_config(known.config)
    return None
