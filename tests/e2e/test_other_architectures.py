"""Tiers of other architectures: nothing hangs on the demo's tokenizer or chat template.

Qwen3 (dense) and Qwen3-MoE checkpoints with random weights and a tokenizer of their own, with
merges and another template, are made here and served by real engines.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import yaml

from launch.demo.check import free_port

pytestmark = pytest.mark.engine

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = "the quick brown fox jumps over the lazy dog and the dog sleeps in the sun all day"


def save_tokenizer(folder: Path) -> int:
    """A byte-level BPE tokenizer with merges; gives its vocabulary size."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 20, trainer)
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    wrapped.chat_template = CHATML
    wrapped.save_pretrained(folder)
    return len(wrapped)


def save_checkpoints(folder: Path) -> dict[str, Path]:
    """Random Qwen3 and Qwen3-MoE checkpoints in bf16."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    paths = {name: folder / name for name in ("dense", "experts")}
    shape = {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 256,
        "intermediate_size": 128,
    }
    for name, path in paths.items():
        vocab_size = save_tokenizer(path)
        ids = {"vocab_size": vocab_size, "eos_token_id": 2, "pad_token_id": 0, "bos_token_id": None}
        if name == "dense":
            model = Qwen3ForCausalLM(Qwen3Config(**shape, **ids))
        else:
            experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
            model = Qwen3MoeForCausalLM(Qwen3MoeConfig(**shape, **ids, **experts))
        model.to(torch.bfloat16).save_pretrained(path)
    return paths


@pytest.fixture(scope="module")
def cascade(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("qwen")
    engine = {"enforce_eager": True, "dtype": "bfloat16", "max_model_len": 256}
    paths = save_checkpoints(folder)
    tiers = [{"name": name, "model": str(path), "engine": engine} for name, path in paths.items()]
    tiers[0]["tensor_parallel_size"] = 2  # two ranks on the CPU, each on a core of its own
    # Random weights are never sure of 8 tokens, so every answer escalates.
    tiers[0]["accept"] = {"score_at_least": -0.001}
    config = folder / "cascade.yaml"
    port = free_port()
    config.write_text(yaml.safe_dump({"tiers": tiers, "server": {"port": port}}))
    command = [sys.executable, "-m", "launch.cli", "--config", str(config), "--cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)
    try:
        assert process.stdout is not None
        assert any(line.startswith("ready:") for line in process.stdout)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 0


def test_a_mixture_of_experts_above_a_dense_model(cascade: str) -> None:
    with openai.OpenAI(base_url=cascade, api_key="none") as client:
        completion = client.chat.completions.create(
            model="hybridserve",
            messages=[{"role": "user", "content": "the quick brown fox"}],
            max_tokens=8,
            temperature=0,
            extra_body={"ignore_eos": True},
        )
    ledger = completion.model_extra["hybridserve"]
    assert [attempt["tier"] for attempt in ledger["attempts"]] == ["dense", "experts"]
    assert [attempt["decision"] for attempt in ledger["attempts"]] == ["escalate", "accept"]
    assert ledger["attempts"][0]["score"] < -0.001
    assert completion.model == "experts"
    assert completion.usage.completion_tokens == 8


def test_json_schema_is_decoded_and_checked_on_every_tier(cascade: str) -> None:
    schema = {
        "type": "object",
        "properties": {"sunny": {"type": "boolean"}},
        "required": ["sunny"],
        "additionalProperties": False,
    }
    response_format = {"type": "json_schema", "json_schema": {"name": "day", "schema": schema}}
    with openai.OpenAI(base_url=cascade, api_key="none") as client:
        completion = client.chat.completions.create(
            model="hybridserve",
            messages=[{"role": "user", "content": "the sun"}],
            max_tokens=60,
            temperature=0,
            response_format=response_format,
        )
    attempts = completion.model_extra["hybridserve"]["attempts"]
    assert attempts[0]["tier"] == "dense"
    assert completion.choices[0].message.content is not None
