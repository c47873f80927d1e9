"""Whether two names are of one model, and what a name tells of its size."""

import re

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.known_models import KNOWN_MODELS, known_model_facts

_SIZE = re.compile(r"(?<![a-z0-9.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_ACTIVE_SIZE = re.compile(r"(?<![a-z0-9.])a(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)
_VARIANTS = re.compile(
    r"(?<![a-z0-9])(instruct|chat|it|hf|turbo|fp4|fp8|fp16|bf16|nvfp4|mxfp4|int4|int8|w4a16|w8a8"
    r"|awq|gptq|gguf)(?![a-z0-9])"
)
_RESPELT = (
    # As it is written by hosts that allow no dots, and by Meta for some of its own.
    (re.compile(r"(?<![a-z0-9])v(\d)p(\d)(?![a-z0-9])"), r"\1.\2"),
    (re.compile(r"^meta-(?=llama)"), ""),
)


def same_model(one: str, other: str) -> bool:
    """Whether both names are of one model: organisation, tuning and precision aside.

    `llama3.1-405b` is `meta-llama/Llama-3.1-405B-Instruct-FP8`, and not `Llama-3.1-70B`.
    """
    return _bare(one) == _bare(other)


def active_billions(name: str) -> float | None:
    """Active parameters in 1e9 as the name tells them: 22 of `235b-a22b`, 8 of `8b`; else None.

    Of a mixture of experts whose name tells all of them alone, `gpt-oss-120b`, the catalogue's.
    """
    known = None if _ACTIVE_SIZE.search(name) else known_facts_like(name)
    if known is not None and known[1].n_active_parameters < known[1].n_parameters:
        return known[1].n_active_parameters / 1e9
    size = _ACTIVE_SIZE.search(name) or _SIZE.search(name)
    return float(size.group(1)) if size else None


def known_facts_like(name: str) -> tuple[str, ModelFacts] | None:
    """Hub id and facts of the public model of this name; of several the last, as it is smallest.

    The catalogue lists a checkpoint of 8 bits after the one of 16.
    """
    ids = [hub_id for known in KNOWN_MODELS.values() for hub_id in known.ids[:1]]
    found = [hub_id for hub_id in ids if same_model(hub_id, name)]
    facts = known_model_facts(found[-1]) if found else None
    return None if facts is None else (found[-1], facts)


def _bare(name: str) -> str:
    without = _VARIANTS.sub("", name.rsplit("/", 1)[-1].casefold())
    for pattern, replacement in _RESPELT:
        without = pattern.sub(replacement, without)
    return re.sub(r"[^a-z0-9.]", "", without)
