"""Facts of models, against sizes that their publishers or hub pages give."""

from typing import Any

import pytest
from pydantic import ValidationError

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.checkpoint_shapes import facts_of_config
from hybridserve_llm.profiles.known_models import KNOWN_MODELS, known_model_facts

# Bytes of model.safetensors.index.json (metadata.total_size) in 16 bits over 2, of public
# checkpoints; 0.6B to 4B tie their embeddings, and their files hold them once.
PARAMETERS = {
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.1-405B-Instruct": 405_853_388_800,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-32B": 32_762_123_264,
    "Qwen/Qwen3-30B-A3B": 30_532_122_624,
    "Qwen/Qwen3-235B-A22B": 235_093_634_560,
    "mistralai/Mixtral-8x7B-Instruct-v0.1": 46_702_792_704,
}


@pytest.mark.parametrize(("model", "expected"), PARAMETERS.items())
def test_parameters_are_those_of_the_published_checkpoint(model: str, expected: int) -> None:
    facts = known_model_facts(model)
    assert facts is not None
    assert facts.n_parameters == pytest.approx(expected, rel=1e-4)
    assert facts.weight_bytes == 2 * facts.n_parameters


@pytest.mark.parametrize(
    ("model", "active"),
    # Rounded, as the publishers say: 3.3B of 30.5B, 22B of 235B, 12.9B of 46.7B.
    [
        ("Qwen/Qwen3-30B-A3B", 3.3e9),
        ("Qwen/Qwen3-235B-A22B", 22e9),
        ("mistralai/Mixtral-8x7B-Instruct-v0.1", 12.9e9),
    ],
)
def test_a_token_meets_only_the_experts_it_goes_to(model: str, active: float) -> None:
    facts = known_model_facts(model)
    assert facts is not None
    assert facts.n_active_parameters == pytest.approx(active, rel=0.02)


@pytest.mark.parametrize(
    ("model", "n_bytes"),
    [
        # 2 (K and V) * 2 bytes * layers * heads of K and V * numbers of a head
        ("meta-llama/Llama-3.1-8B-Instruct", 2 * 2 * 32 * 8 * 128),
        ("meta-llama/Llama-3.1-70B-Instruct", 2 * 2 * 80 * 8 * 128),
        ("Qwen/Qwen3-30B-A3B", 2 * 2 * 48 * 4 * 128),
        # Latent attention keeps 512 + 64 numbers once: 61 layers * 576 * 2 bytes.
        ("deepseek-ai/DeepSeek-V3", 61 * 576 * 2),
        # A hybrid keeps K and V in its 4 attention layers (stars in its pattern) only.
        ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", 2 * 2 * 4 * 8 * 128),
    ],
)
def test_kv_bytes_of_a_token_follow_from_the_shape(model: str, n_bytes: int) -> None:
    facts = known_model_facts(model)
    assert facts is not None
    assert facts.kv_bytes_per_token == n_bytes


@pytest.mark.parametrize(
    ("model", "low_gb", "high_gb"),
    # Sizes of the files on the hub, in GB: 4-bit experts, and FP8 with scales.
    [
        ("openai/gpt-oss-20b", 12.5, 14.5),
        ("openai/gpt-oss-120b", 60, 66),
        ("Qwen/Qwen3-235B-A22B-FP8", 234, 239),
        ("deepseek-ai/DeepSeek-V3", 668, 690),
    ],
)
def test_quantised_weights_take_the_bytes_of_their_files(
    model: str, low_gb: float, high_gb: float
) -> None:
    facts = known_model_facts(model)
    assert facts is not None
    assert low_gb < facts.weight_bytes / 1e9 < high_gb


def test_every_known_model_has_facts_under_every_name() -> None:
    names = [name for known in KNOWN_MODELS.values() for name in known.ids]
    assert len(names) == len(set(names)) >= 40
    assert all(known_model_facts(name.upper()) is not None for name in names)
    assert known_model_facts("nobody/nothing") is None


def llama_config(**changes: Any) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 100,
        "tie_word_embeddings": True,
        **changes,
    }


def test_a_small_llama_is_counted_by_hand() -> None:
    # Embeddings 100 * 64; a layer: q and o 64 * 64 each, k and v 64 * 32 each, three matrices of
    # 64 * 128, two norms of 64; one norm at the end.
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128 + 2 * 64
    facts = facts_of_config(llama_config())
    assert facts.n_parameters == 100 * 64 + 2 * layer + 64
    assert facts.n_lookup_parameters == 0  # tied: a step multiplies by all of them
    assert facts.kv_bytes_per_token == 2 * 2 * 2 * 2 * 16


def test_untied_embeddings_are_counted_twice_and_looked_up_once() -> None:
    tied = facts_of_config(llama_config())
    untied = facts_of_config(llama_config(tie_word_embeddings=False))
    assert untied.n_parameters - tied.n_parameters == 100 * 64
    assert untied.n_lookup_parameters == 100 * 64


def test_a_model_of_text_and_images_is_its_text_model() -> None:
    inner = llama_config()
    outer = {"model_type": "llava", "text_config": inner, "vision_config": {"hidden_size": 9}}
    assert facts_of_config(outer) == facts_of_config(inner)


@pytest.mark.parametrize(
    ("quantisation", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4 + 20 / 128),
        ({"quant_method": "awq", "bits": 4, "group_size": -1}, 4),
        ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, 4.5),
        ({"quant_method": "mxfp4"}, 16),  # of dense models nothing is quantised
    ],
)
def test_quantisation_leaves_embeddings_and_norms_alone(
    quantisation: dict[str, Any], bits: float
) -> None:
    facts = facts_of_config(llama_config(quantization_config=quantisation))
    linear = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 128)
    rest = facts.n_parameters - linear
    assert facts.weight_bytes == pytest.approx((linear * bits + rest * 16) / 8, abs=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "rwkv"}, "model type 'rwkv' is not known"),
        ({"hidden_size": None}, "has None as hidden_size"),
        ({"torch_dtype": "int3"}, "data type 'int3' is not known"),
        ({"quantization_config": {"quant_method": "magic"}}, "quantisation 'magic' is not known"),
    ],
)
def test_a_configuration_that_is_not_known_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        facts_of_config(llama_config(**changes))


def test_facts_by_hand_need_five_numbers() -> None:
    facts = ModelFacts(n_parameters=1000, n_layers=2, hidden_size=8, n_heads=2)
    assert (facts.weight_bytes, facts.weight_bits) == (2000, 16)
    assert facts.n_active_parameters == 1000
    assert facts.kv_bytes_per_token == 2 * 2 * 2 * 4 * 2  # K and V, layers, heads, numbers, bytes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_experts_per_token": 2}, "at most n_experts"),
        ({"n_experts": 8, "n_experts_per_token": 2}, "must be given together"),
        ({"n_active_parameters": 1001}, "at most n_parameters"),
        ({"n_window_layers": 1}, "needs window_tokens"),
        ({"n_window_layers": 3, "window_tokens": 4}, "must hold"),
        ({"expert_weight_bytes": 3000}, "at most weight_bytes"),
    ],
)
def test_facts_that_contradict_each_other_are_refused(
    changes: dict[str, int], message: str
) -> None:
    values = {"n_parameters": 1000, "n_layers": 2, "hidden_size": 8, "n_heads": 2, **changes}
    with pytest.raises(ValidationError, match=message):
        ModelFacts.model_validate(values)
