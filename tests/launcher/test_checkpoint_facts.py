"""What the disk says of a checkpoint: when its hash changes, and how many parameters it has."""

import json
import shutil
import struct
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hybridserve_llm.config.load import load_config, parse_config
from hybridserve_llm.promise.fingerprint import CheckpointFacts
from launch.demo.family import CHECKPOINTS
from launch.machine import checkpoint_facts as facts_of
from launch.machine.checkpoint_facts import checkpoint_facts, content_hash

Folder = Callable[..., Path]


def safetensors(shapes: Mapping[str, list[int]]) -> bytes:
    """A safetensors file of float32 zeros.

    Its format: the header's length in 8 bytes, little-endian, the header in JSON, then the data
    (https://github.com/huggingface/safetensors#format).
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        n_bytes = 4
        for size in shape:
            n_bytes *= size
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + n_bytes]}
        end += n_bytes
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(end)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Folder:
    """Makes a small checkpoint in a folder of this name."""

    def make(name: str = "a", config: Any = None, **files: bytes) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({} if config is None else config))
        (folder / "tokenizer.json").write_text("{}")
        (folder / "chat_template.jinja").write_text("{{ messages }}")
        weights = safetensors({"embed": [5, 4], "norm": [4]})
        for file, content in (files or {"model": weights}).items():
            (folder / f"{file}.safetensors").write_bytes(content)
        return folder

    return make


def facts(folder: Path) -> CheckpointFacts:
    """Those of a tier whose model is `folder`."""
    tiers = [
        {"name": "small", "model": str(folder), "accept": {"score_at_least": -1}},
        {"name": "giant", "model": "g", "endpoints": ["http://elsewhere"]},
    ]
    found = checkpoint_facts(parse_config({"tiers": tiers}, source="test"))
    assert set(found) == {"small"}  # nothing is known of what runs elsewhere
    return found["small"]


def test_the_hash_is_of_the_content_and_not_of_the_place(checkpoint: Folder) -> None:
    one = checkpoint()
    other = shutil.copytree(one, one.with_name("b"))
    assert content_hash(one) == content_hash(other)
    assert content_hash(one).startswith("sha256:")
    (other / "README.md").write_text("what people read does not change answers")
    assert content_hash(one) == content_hash(other)


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "chat_template.jinja", "model.safetensors"]
)
def test_one_byte_of_any_file_changes_the_hash(checkpoint: Folder, name: str) -> None:
    folder = checkpoint()
    before = content_hash(folder)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert content_hash(folder) != before


def test_a_files_name_changes_the_hash(checkpoint: Folder) -> None:
    folder = checkpoint()
    before = content_hash(folder)
    (folder / "chat_template.jinja").rename(folder / "chat_templates.jinja")  # its place stays
    assert content_hash(folder) != before


def test_a_file_more_changes_the_hash_even_when_it_is_empty(checkpoint: Folder) -> None:
    folder = checkpoint()
    before = content_hash(folder)
    (folder / "generation_config.json").touch()
    assert content_hash(folder) != before


def test_of_a_large_file_samples_are_read(
    checkpoint: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 64 blocks of 4 bytes of 10,000: the first at 0, the last at the end, the others 158 or 159
    # bytes apart. Byte 100 lies between two blocks.
    monkeypatch.setattr(facts_of, "_READ_WHOLE_BYTES", 1_000)
    monkeypatch.setattr(facts_of, "_BLOCK_BYTES", 4)
    content = bytes(i % 251 for i in range(10_000))

    def hash_of(name: str, content: bytes) -> str:
        return content_hash(checkpoint(name, model=content))

    def changed_at(place: int) -> bytes:
        changed = bytearray(content)
        changed[place] ^= 1
        return bytes(changed)

    before = hash_of("whole", content)
    assert hash_of("head", changed_at(0)) != before
    assert hash_of("tail", changed_at(9_999)) != before
    assert hash_of("size", content + b"x") != before
    assert hash_of("retrained", bytes(10_000)) != before
    # What this buys with: a few bytes elsewhere are not seen.
    assert hash_of("between", changed_at(100)) == before


def llama_parameters(config: Mapping[str, int]) -> int:
    """Of a Llama with as many key heads as heads and an output layer of its own.

    Two embeddings; in each layer four square projections, three of the MLP and two norms; a norm.
    """
    width, hidden = config["hidden_size"], config["intermediate_size"]
    layer = 4 * width * width + 3 * width * hidden + 2 * width
    return 2 * config["vocab_size"] * width + config["num_hidden_layers"] * layer + width


@pytest.mark.parametrize("tier", ["small", "medium", "giant"])
def test_the_parameters_of_the_demo_are_the_sum_of_its_tensors(tier: str) -> None:
    folder = CHECKPOINTS / tier
    config = json.loads((folder / "config.json").read_text())
    assert facts(folder).active_parameters == llama_parameters(config)


def test_every_tier_of_the_demo_has_its_facts() -> None:
    found = checkpoint_facts(load_config(CHECKPOINTS.parent / "cascade.yaml"))
    assert list(found) == ["small", "medium", "giant"]
    assert len({facts.content for facts in found.values()}) == 3
    sizes = [facts.active_parameters or 0 for facts in found.values()]
    assert sizes == sorted(sizes)


def test_parameters_are_summed_over_files(checkpoint: Folder) -> None:
    # 5 * 4 + 4 = 24 and 2 * 3 * 7 = 42.
    shards = {
        "part-1": safetensors({"a": [5, 4], "b": [4]}),
        "part-2": safetensors({"c": [2, 3, 7]}),
    }
    assert facts(checkpoint(**shards)).active_parameters == 66


@pytest.mark.parametrize(
    "config",
    [
        {"num_experts": 8},
        {"num_local_experts": 128},
        {"n_routed_experts": 256},
        {"text_config": {"num_local_experts": 16}},
    ],
)
def test_of_a_mixture_of_experts_the_active_parameters_are_not_known(
    checkpoint: Folder, config: dict[str, Any]
) -> None:
    found = facts(checkpoint(config=config))
    assert found.active_parameters is None
    assert found.content is not None


@pytest.mark.parametrize("config", [{"num_experts": 1}, {"num_experts": None}, {"text_config": {}}])
def test_a_single_expert_is_no_mixture(checkpoint: Folder, config: dict[str, Any]) -> None:
    assert facts(checkpoint(config=config)).active_parameters == 24


BAD_WEIGHTS = {
    "empty": b"",
    "cut off": b"\x10\x00",
    "a length without a header": struct.pack("<Q", 50),
    "too long a header": struct.pack("<Q", 2**40) + b"{}",
    "no JSON": struct.pack("<Q", 2) + b"{]",
    "no object": struct.pack("<Q", 2) + b"[]",
    "no shape": struct.pack("<Q", 9) + b'{"a": {}}',
    "no tensor": struct.pack("<Q", 8) + b'{"a": 5}',
}


@pytest.mark.parametrize("content", BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_weights_that_cannot_be_read_have_no_known_parameters(
    checkpoint: Folder, content: bytes
) -> None:
    found = facts(checkpoint(model=content))
    assert found.active_parameters is None
    assert found.content is not None


@pytest.mark.parametrize("text", ["", "[]", "5", "no JSON", '{"num_experts": "many"}'])
def test_a_config_that_cannot_be_read_has_no_known_parameters(
    checkpoint: Folder, text: str
) -> None:
    folder = checkpoint()
    (folder / "config.json").write_text(text)
    assert facts(folder).active_parameters is None


def test_weights_in_another_format_have_no_known_parameters(checkpoint: Folder) -> None:
    folder = checkpoint()
    (folder / "model.safetensors").rename(folder / "model.bin")
    found = facts(folder)
    assert (found.active_parameters, found.content is not None) == (None, True)


def test_of_a_checkpoint_that_is_not_here_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert facts(tmp_path / "absent") == CheckpointFacts()
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)  # as where it is not installed
    assert facts(Path("org/model")) == CheckpointFacts()


def test_a_hub_checkpoint_is_looked_for_in_the_local_cache(
    checkpoint: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = checkpoint()
    cached = {("org/model", "config.json"): str(folder / "config.json")}
    hub = SimpleNamespace(try_to_load_from_cache=lambda *key: cached.get(key))
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    assert facts(Path("org/model")) == facts(folder)
    assert facts(Path("org/other")) == CheckpointFacts()
