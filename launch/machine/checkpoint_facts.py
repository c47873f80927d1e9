"""What the disk says of a checkpoint: a hash of its content, and how many parameters it has.

Weights of giants are hundreds of gigabytes, so of a large file only samples are read: its head, its
tail and blocks in between, with its size. A retrained checkpoint changes all of them; a file with a
few changed bytes may not be told apart, which is why small files are read whole.
"""

import hashlib
import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.promise.fingerprint import CheckpointFacts
from hybridserve_llm.units import MIB
from launch.machine.checkpoints import is_hub_id

_READ_WHOLE_BYTES = 64 * MIB
_BLOCK_BYTES = 64 * 1024
_N_BLOCKS = 64
_HEADER_LIMIT_BYTES = 100 * MIB
_CONTENT = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors", "*.bin", "*.gguf")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")


def checkpoint_facts(config: CascadeConfig) -> dict[str, CheckpointFacts]:
    """What is known of the tiers that are started from here, by name."""
    return {tier.name: _facts(tier.model) for tier in config.tiers if not tier.endpoints}


def _facts(model: str) -> CheckpointFacts:
    folder = _snapshot_folder(model) if is_hub_id(model) else Path(model)
    if folder is None or not folder.is_dir():
        return CheckpointFacts()
    return CheckpointFacts(content=content_hash(folder), active_parameters=_parameters(folder))


def _snapshot_folder(model: str) -> Path | None:
    """The local copy of a hub checkpoint; None where none is there or cannot be looked for."""
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(model, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def content_hash(folder: Path) -> str:
    """SHA-256 over names, sizes and content of the files that make up a checkpoint."""
    digest = hashlib.sha256()
    files = {path for pattern in _CONTENT for path in folder.glob(pattern) if path.is_file()}
    for path in sorted(files):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        for block in _blocks(path, size):
            digest.update(block)
    return f"sha256:{digest.hexdigest()}"


def _blocks(path: Path, size: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        if size <= _READ_WHOLE_BYTES:
            yield file.read()
            return
        for i in range(_N_BLOCKS):
            file.seek(i * (size - _BLOCK_BYTES) // (_N_BLOCKS - 1))
            yield file.read(_BLOCK_BYTES)


def _parameters(folder: Path) -> int | None:
    """Elements of all weights in safetensors files; None for a mixture of experts, or other files.

    A mixture's active parameters are not the sum of what is stored.
    """
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        # Models of text and images keep the language model's part under a key of its own.
        parts = (config, config.get("text_config") or {})
        if any((part.get(key) or 0) > 1 for part in parts for key in _EXPERTS):
            return None
        shapes = [shape for path in folder.glob("*.safetensors") for shape in _shapes(path)]
    except (OSError, ValueError, LookupError, TypeError, AttributeError, struct.error):
        return None  # not what a checkpoint holds
    return sum(map(math.prod, shapes)) or None


def _shapes(path: Path) -> list[list[int]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        if length > _HEADER_LIMIT_BYTES:
            raise ValueError(f"{path} has no safetensors header")
        header: dict[str, Any] = json.loads(file.read(length))
    return [entry["shape"] for name, entry in header.items() if name != "__metadata__"]
