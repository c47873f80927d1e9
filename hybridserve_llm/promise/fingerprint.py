"""Take the fingerprint of a cascade: a certificate holds only while nothing in it changes.

Models by the content of their checkpoints (weights, tokenizer, chat template, sampling defaults),
engines by version and by the settings that change answers, and our own code that scores by the
names of its versions. What cannot be known from here, such as the weights behind somebody else's
endpoint, is null: then the watch alone can see it change.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import orjson

from hybridserve_llm.confidence.agreement import NORMALISER
from hybridserve_llm.confidence.day_zero import DayZeroScorer
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURES_VERSION
from hybridserve_llm.config.cascade import CascadeConfig, TierConfig

_ENGINE_SETTINGS = {"dtype", "max_model_len", "reasoning_parser", "tool_call_parser", "extra_args"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointFacts:
    """Hold what the disk says of a checkpoint; None where it does not say.

    Attributes:
        content: Hash of weights, tokenizer, chat template and sampling defaults.
        active_parameters: Parameters that one token passes through.
    """

    content: str | None = None
    active_parameters: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fingerprint:
    """Hold the parts of a fingerprint, as JSON values, and their hash."""

    parts: Mapping[str, Any]

    @property
    def hash(self) -> str:
        """Return the SHA-256 of the parts as JSON with sorted keys."""
        text = orjson.dumps(self.parts, option=orjson.OPT_SORT_KEYS)
        return f"sha256:{hashlib.sha256(text).hexdigest()}"

    def as_json(self) -> dict[str, Any]:
        """Return the JSON that `/v1/cascade` shows and that a certificate holds."""
        return {"hash": self.hash, "parts": dict(self.parts)}


def fingerprint_of(
    config: CascadeConfig,
    checkpoints: Mapping[str, CheckpointFacts],
    engine_versions: Mapping[str, str | None],
) -> Fingerprint:
    """Return the fingerprint of a cascade; both mappings are by tier."""
    return Fingerprint(
        parts={
            "tiers": {
                tier.name: _tier(tier, checkpoints.get(tier.name), engine_versions.get(tier.name))
                for tier in config.tiers
            },
            "scorer": DayZeroScorer().name,
            "prompt_features": PROMPT_FEATURES_VERSION,
            "normaliser": NORMALISER,
        }
    )


def _tier(
    tier: TierConfig, checkpoint: CheckpointFacts | None, engine_version: str | None
) -> dict[str, Any]:
    return {
        "model": checkpoint_name(tier.model),
        "checkpoint": checkpoint.content if checkpoint else None,
        "engine_version": engine_version,
        "engine": tier.engine.model_dump(mode="json", include=_ENGINE_SETTINGS),
        "reasoning_end_token": tier.reasoning_end_token,
    }


def differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """List where two fingerprints' parts differ, a line each: the place and both values."""
    lines: list[str] = []
    for key in dict.fromkeys((*expected, *found)):
        one, other = expected.get(key), found.get(key)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            lines += [f"{key}.{line}" for line in differences(one, other)]
        elif one != other:
            lines.append(f"{key} was {_shown(one)}, is {_shown(other)}")
    return lines


def _shown(value: Any) -> str:
    text = orjson.dumps(value).decode()
    return text if len(text) <= 40 else f"{text[:37]}..."


def checkpoint_name(model: str) -> str:
    """Return the name that clients see: a hub id unchanged, of a local folder its last part."""
    path = urlsplit(model).path
    return path.rstrip("/").rsplit("/", 1)[-1] if path.startswith("/") else model
