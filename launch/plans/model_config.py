"""From a model's Hugging Face configuration to its facts, without loading weights.

A folder's own `config.json` is read as it is; a hub id goes through `transformers.AutoConfig`,
which looks into the local cache first and then asks the hub, where that answers. Where safetensors
files or their index lie beside a local configuration, the bytes of weights are taken from them.
"""

import json
import socket
import struct
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.checkpoint_shapes import facts_of_config
from hybridserve_llm.units import MIB
from launch.machine.checkpoints import is_hub_id

_INDEX = "model.safetensors.index.json"
_HEADER_LIMIT_BYTES = 100 * MIB
_CONNECT_TIMEOUT_S = 3.0
# Tensors of encoders of images and sound, and of heads for speculation, are not the text model's.
_NOT_TEXT = ("visual", "vision", "audio", "talker", "code2wav", "multi_modal", "mtp.")


def model_facts(model: str) -> ModelFacts:
    """The facts of the checkpoint `model`: a folder, or a hub id.

    Raises:
        ConfigError: There is no configuration to be had, or it is of a kind not known here.
    """
    folder = Path(model).expanduser()
    if (folder / "config.json").is_file():
        facts = facts_of_config(_json(folder / "config.json"))
        stored = stored_weight_bytes(folder)
        return facts if stored is None else _with_weight_bytes(facts, stored)
    if folder.is_dir() or not is_hub_id(model):
        raise ConfigError(f"{model} holds no config.json; a model is a folder with one or a hub id")
    return facts_of_config(_hub_config(model))


def stored_weight_bytes(folder: Path) -> int | None:
    """Bytes of the text model's tensors in the safetensors files of `folder`; None without any.

    Only the headers of the files are read.

    Raises:
        ConfigError: A file is not a safetensors file, or the index names a file that is not there.
    """
    files = sorted(folder.glob("*.safetensors"))
    index = folder / _INDEX
    if index.is_file():
        named = _json(index).get("weight_map")
        if not isinstance(named, dict):
            raise ConfigError(f"{index} has no weight_map")
        files = [folder / name for name in sorted(set(map(str, named.values())))]
        if not all(path.is_file() for path in files):
            return None  # the index alone was fetched; its total counts encoders too
    if not files:
        return None
    return sum(_tensor_bytes(path) for path in files)


def _with_weight_bytes(facts: ModelFacts, stored: int) -> ModelFacts:
    """The same with the bytes that lie on the disk; experts keep their share of them."""
    share = facts.expert_weight_bytes / facts.weight_bytes
    values = {"weight_bytes": stored, "expert_weight_bytes": round(stored * share)}
    return ModelFacts.model_validate({**facts.model_dump(), **values})


def _tensor_bytes(path: Path) -> int:
    """Bytes of a safetensors file's tensors: its head is their number of bytes and JSON."""
    try:
        with path.open("rb") as file:
            (n_bytes,) = struct.unpack("<Q", file.read(8))
            if n_bytes > _HEADER_LIMIT_BYTES:
                raise ConfigError(f"{path} is not a safetensors file: its header is too long")
            header: dict[str, Any] = json.loads(file.read(n_bytes))
        return sum(
            tensor["data_offsets"][1] - tensor["data_offsets"][0]
            for name, tensor in header.items()
            if name != "__metadata__" and not any(part in name for part in _NOT_TEXT)
        )
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
        raise ConfigError(f"{path} is not a safetensors file") from exc


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except OSError as exc:
        raise ConfigError(f"cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"{path} is not JSON") from exc
    if not isinstance(values, dict):
        raise ConfigError(f"{path} is not a JSON object")
    return values


def _hub_config(model: str) -> dict[str, Any]:
    """The configuration of a hub id, as transformers reads it: of the cache, else of the hub."""
    try:
        from huggingface_hub import constants  # heavy, and only where engines are installed
        from transformers import AutoConfig
    except ImportError as exc:
        raise ConfigError(
            f"the configuration of {model} is read with transformers, which is not installed; "
            "install an engine (extra gpu or cpu), or give the tier's facts"
        ) from exc
    # Where nobody answers transformers tries for most of a minute, and says so line by line.
    offline = constants.HF_HUB_OFFLINE or not answers(constants.ENDPOINT)
    try:
        config: dict[str, Any] = AutoConfig.from_pretrained(
            model, local_files_only=offline
        ).to_dict()
    except (OSError, ValueError) as exc:
        if offline:
            reason = "it is not in the local cache, and the hub does not answer"
        else:
            reason = str(exc).splitlines()[0] if str(exc) else type(exc).__name__
        raise ConfigError(f"no configuration of {model} is to be had: {reason}") from exc
    return config


def answers(url: str) -> bool:
    """Whether a server takes connections at `url`; behind a proxy it is taken to.

    Waits a few seconds at most.
    """
    parts = urlsplit(url)
    if parts.scheme in getproxies() or parts.hostname is None:
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname, port), timeout=_CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
