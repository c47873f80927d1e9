"""Find the bits in which a checkpoint stores its weights, from its `quantization_config`."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.checkpoint_weights import Values, Weight, first_of

_DTYPE_BITS = {"bfloat16": 16, "float16": 16, "half": 16, "float32": 32, "float": 32}
_FP8_BLOCK_SCALE_BITS = 32 / (128 * 128)
_GROUP_SCALE_BITS = 16
# 4-bit numbers with an 8-bit exponent per 32 (OCP MX 1.0) and an 8-bit scale per 16 (NVFP4).
_MXFP4_BITS, _NVFP4_BITS = 4 + 8 / 32, 4 + 8 / 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Storage:
    """Describe how weights are stored: bits of each, and of the numbers that are multiplied."""

    bits_of: Callable[[Weight], float]
    matmul_bits: int


def storage_of(config: Values) -> Storage:
    """Return how the checkpoint with this configuration stores its weights.

    Linear layers and experts are quantised. Embeddings, output head, norms and routers are not, and
    neither are the parts that the configuration leaves out by name. Scales are counted.

    Raises:
        ConfigError: The data type or the quantisation method is not known.
    """
    plain = _plain_bits(config)
    quantisation = config.get("quantization_config")
    if not quantisation:
        return Storage(bits_of=lambda _: plain, matmul_bits=16)
    bits, matmul_bits = _quantised_bits(quantisation)
    is_left_out = _left_out(quantisation)
    only_experts = quantisation.get("quant_method") == "mxfp4"

    def bits_of(weight: Weight) -> float:
        is_quantised = weight.part == "expert" or (weight.part == "linear" and not only_experts)
        return bits if is_quantised and not is_left_out(weight.name) else plain

    return Storage(bits_of=bits_of, matmul_bits=matmul_bits)


def _plain_bits(config: Values) -> int:
    dtype = str(first_of(config, "dtype", "torch_dtype", default="bfloat16"))
    bits = _DTYPE_BITS.get(dtype.removeprefix("torch."))
    if bits is None:
        raise ConfigError(f"data type {dtype!r} is not known; known are {', '.join(_DTYPE_BITS)}")
    return bits


def _quantised_bits(quantisation: Mapping[str, Any]) -> tuple[float, int]:
    """Return the bits of a quantised weight with its scales, and of the numbers multiplied."""
    method = quantisation.get("quant_method")
    if method in ("fp8", "fbgemm_fp8"):
        return 8 + _FP8_BLOCK_SCALE_BITS, 8
    if method == "mxfp4":
        return _MXFP4_BITS, 16
    if method in ("gptq", "awq"):
        bits, group = int(quantisation.get("bits", 4)), int(quantisation.get("group_size", 128))
        return (bits + (_GROUP_SCALE_BITS + bits) / group if group > 0 else bits), 16
    if method == "compressed-tensors":
        return _compressed_tensors_bits(quantisation)
    if method == "modelopt" and quantisation.get("quant_algo") in ("FP8", "NVFP4"):
        is_fp8 = quantisation["quant_algo"] == "FP8"
        return (8, 8) if is_fp8 else (_NVFP4_BITS, 16)
    raise ConfigError(
        f"quantisation {method!r} is not known; known are fp8, fbgemm_fp8, mxfp4, gptq, awq, "
        "compressed-tensors, modelopt (FP8, NVFP4); give the tier's facts by hand"
    )


def _compressed_tensors_bits(quantisation: Mapping[str, Any]) -> tuple[float, int]:
    group: Mapping[str, Any] = next(iter((quantisation.get("config_groups") or {}).values()), {})
    weights = group.get("weights") or {}
    bits = int(weights.get("num_bits", 8))
    size = weights.get("group_size") or 0
    has_small_numbers = (group.get("input_activations") or {}).get("num_bits") == 8
    return bits + (_GROUP_SCALE_BITS / size if size > 0 else 0), 8 if has_small_numbers else 16


def _left_out(quantisation: Mapping[str, Any]) -> Callable[[str], bool]:
    """Return a function that is True for the names of weights that stay unquantised.

    The listed names are parts of names, or patterns after `re:`.
    """
    listed = first_of(quantisation, "modules_to_not_convert", "ignore", "exclude_modules")
    names = [str(name) for name in listed or ()]
    patterns = [re.compile(name[3:]) for name in names if name.startswith("re:")]
    # Models of text and images put "language_model." or the like before "layers.".
    plain = {name[max(name.find("layers."), 0) :] for name in names if not name.startswith("re:")}
    parts = {part.rstrip("*").rstrip(".") for part in plain}

    def is_left_out(name: str) -> bool:
        steps = name[max(name.find("layers."), 0) :].split(".")
        ends = range(1, len(steps) + 1)
        inside = {".".join(steps[a:b]) for b in ends for a in range(b)}
        return bool(inside & parts) or any(pattern.search(name) for pattern in patterns)

    return is_left_out
