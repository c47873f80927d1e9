"""Facts of checkpoints on the disk."""

import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import pytest

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.known_models import KNOWN_MODELS, known_model_facts
from launch.plans.model_config import answers, model_facts, stored_weight_bytes

ROOT = Path(__file__).parents[2]
CONFIG = {
    "model_type": "qwen3_moe",
    "hidden_size": 64,
    "moe_intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "vocab_size": 100,
    "tie_word_embeddings": False,
}


def checkpoint(folder: Path, config: dict[str, Any] = CONFIG) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_tensors(path: Path, n_bytes: dict[str, int]) -> None:
    header, at = {"__metadata__": {"format": "pt"}}, 0
    for name, size in n_bytes.items():
        header[name] = {"dtype": "U8", "shape": [size], "data_offsets": [at, at + size]}  # type: ignore[dict-item]
        at += size
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at))


@pytest.mark.parametrize("tier", ["small", "medium", "giant"])
def test_the_demo_family_is_counted_to_the_last_weight(tier: str) -> None:
    folder = ROOT / "launch/demo/checkpoints" / tier
    facts = model_facts(str(folder))
    stored = stored_weight_bytes(folder)
    assert stored is not None
    assert facts.weight_bytes == stored == 2 * facts.n_parameters


def test_bytes_on_the_disk_take_the_place_of_those_derived(tmp_path: Path) -> None:
    derived = model_facts(str(checkpoint(tmp_path)))
    write_tensors(tmp_path / "model.safetensors", {"a": 3000, "visual.b": 500, "c": 1000})
    stored = model_facts(str(tmp_path))
    assert stored.weight_bytes == 4000
    share = derived.expert_weight_bytes / derived.weight_bytes
    assert stored.expert_weight_bytes == pytest.approx(4000 * share, abs=1)
    assert stored.n_parameters == derived.n_parameters


def test_an_index_names_the_files_that_count(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    write_tensors(tmp_path / "one.safetensors", {"a": 100})
    write_tensors(tmp_path / "other.safetensors", {"b": 900})
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))
    assert stored_weight_bytes(tmp_path) == 100
    index.write_text(json.dumps({"weight_map": {"a": "not-here.safetensors"}}))
    assert stored_weight_bytes(tmp_path) is None
    index.write_text("{}")
    with pytest.raises(ConfigError, match="has no weight_map"):
        stored_weight_bytes(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"short", struct.pack("<Q", 9) + b"not json!", b"\xff" * 16]
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (checkpoint(tmp_path) / "model.safetensors").write_bytes(content)
    with pytest.raises(ConfigError, match="is not a safetensors file"):
        model_facts(str(tmp_path))


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "not a JSON object")])
def test_a_broken_configuration_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=message):
        model_facts(str(tmp_path))


def test_a_folder_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no config\.json"):
        model_facts(str(tmp_path))


def test_without_transformers_a_hub_id_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match="transformers, which is not installed"):
        model_facts("nobody/nothing")


@pytest.mark.parametrize(
    "model",
    ["meta-llama/Llama-3.1-8B-Instruct", "Qwen/Qwen3-30B-A3B", "google/gemma-3-12b-it"],
)
@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_a_configuration_that_transformers_has_read_gives_the_same_facts(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    transformers = pytest.importorskip("transformers")
    checkpoint(tmp_path, dict(KNOWN_MODELS[model].config))
    read = transformers.AutoConfig.from_pretrained
    monkeypatch.setattr("launch.plans.model_config.answers", lambda _: False)
    monkeypatch.setattr(
        transformers.AutoConfig,
        "from_pretrained",
        lambda _, local_files_only: read(tmp_path, local_files_only=local_files_only),
    )
    assert model_facts("somebody/something") == known_model_facts(model)


@pytest.mark.filterwarnings("ignore")  # transformers' own
def test_a_hub_id_that_is_not_in_the_cache_says_so_where_the_hub_does_not_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("transformers")
    monkeypatch.setattr("launch.plans.model_config.answers", lambda _: False)
    with pytest.raises(ConfigError, match=r"nobody/nothing .* not in the local cache, and the hub"):
        model_facts("nobody/nothing")


def test_whether_a_server_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert answers(f"http://127.0.0.1:{port}")
    assert not answers(f"http://127.0.0.1:{port}")


def test_behind_a_proxy_a_server_is_taken_to_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert answers("https://localhost")
