"""The checkpoints that ship: complete, small enough, of one tokenizer, each with its card."""

import json

import pytest

from hybridserve_llm.config.load import load_config
from launch.demo.card import n_parameters_of
from launch.demo.family import CHECKPOINTS, DEMO_CONFIG, FAMILY
from launch.demo.tokenizer import build_tokenizer

MAX_WEIGHT_BYTES = 24_000_000


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_a_checkpoint_is_complete_and_of_its_tiers_shape(name: str) -> None:
    folder, tier = CHECKPOINTS / name, FAMILY[name]
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert config["dtype"] == "bfloat16"
    assert (config["hidden_size"], config["num_hidden_layers"]) == (
        tier.hidden_size,
        tier.n_layers,
    )
    assert json.loads((folder / "generation_config.json").read_text())["temperature"] == 0.0
    assert n_parameters_of(folder) * 2 < (folder / "model.safetensors").stat().st_size


@pytest.mark.parametrize("name", sorted(FAMILY))
def test_a_checkpoint_has_the_familys_tokenizer_and_a_card(name: str) -> None:
    folder = CHECKPOINTS / name
    tokenizer = build_tokenizer()
    assert json.loads((folder / "tokenizer.json").read_text()) == json.loads(
        tokenizer.backend_tokenizer.to_str()
    )
    assert (folder / "chat_template.jinja").read_text() == tokenizer.chat_template
    card = (folder / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "test split" in card


def test_all_weights_together_stay_small() -> None:
    total = sum((CHECKPOINTS / name / "model.safetensors").stat().st_size for name in FAMILY)
    assert total <= MAX_WEIGHT_BYTES


def test_the_demo_configuration_names_them() -> None:
    tiers = load_config(DEMO_CONFIG).tiers
    assert [tier.model for tier in tiers] == [str(CHECKPOINTS / name) for name in FAMILY]
