"""Looks whether the checkpoints that engines will load are there, before any engine starts."""

import re
from pathlib import Path

from hybridserve_llm.config.cascade import CascadeConfig
from hybridserve_llm.errors import ConfigError

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def check_checkpoints(config: CascadeConfig) -> None:
    """Passes when every tier that is to be started has its checkpoint, as far as the disk can say.

    A Hugging Face id is let through: its engine downloads it, or says why not.

    Raises:
        ConfigError: A local checkpoint is not a folder with a `config.json`.
    """
    for tier in config.tiers:
        if tier.endpoints or is_hub_id(tier.model):
            continue
        folder = Path(tier.model)
        if not folder.is_dir():
            fault = "there is no such folder"
        elif not (folder / "config.json").is_file():
            fault = "the folder has no config.json"
        else:
            continue
        raise ConfigError(
            f"tier {tier.name}: no checkpoint at {tier.model}: {fault} (allowed: a checkpoint's "
            "folder, or a Hugging Face id such as Qwen/Qwen3-0.6B)"
        )


def is_hub_id(model: str) -> bool:
    """Whether `model` reads as a Hugging Face id (`name` or `organisation/name`), not as a path."""
    return _HUB_ID.fullmatch(model) is not None
