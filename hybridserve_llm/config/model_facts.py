"""Hold the sizes of a model from which memory, time and power follow.

They are given by hand in a tier's `facts:`, or made from a Hugging Face configuration by
`hybridserve_llm/profiles/checkpoint_shapes.py`. The class holds numbers only, no name: models of
one shape have equal facts.
"""

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

_BYTES_16_BIT = 2


def _attention_bytes(values: dict[str, Any]) -> int:
    # keys and values * layers * heads * numbers of a head * bytes of a number
    n_layers: int = values["n_attention_layers"]
    n_heads: int = values["n_kv_heads"]
    head_dim: int = values["head_dim"]
    return 2 * n_layers * n_heads * head_dim * _BYTES_16_BIT


def _expert_bytes(values: dict[str, Any]) -> int:
    share = values["n_expert_parameters"] / values["n_parameters"]
    expert_bytes: int = round(values["weight_bytes"] * share)
    return expert_bytes


def _active_parameters(values: dict[str, Any]) -> int:
    if not values["n_experts"]:
        return int(values["n_parameters"])
    asleep = 1 - values["n_experts_per_token"] / values["n_experts"]
    return int(values["n_parameters"] - round(asleep * values["n_expert_parameters"]))


class ModelFacts(BaseModel):
    """Describe size and shape of one model; what is left out follows from the rest."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    n_parameters: int = Field(ge=1, description="weights in all, of all experts")
    n_layers: int = Field(ge=1, description="layers, which pipeline stages share out")
    hidden_size: int = Field(ge=1, description="numbers in a hidden state")
    n_heads: int = Field(ge=1, description="attention heads, which tensor parallelism shares out")
    n_kv_heads: int = Field(
        default_factory=lambda values: values["n_heads"],
        ge=1,
        description="heads of keys and values; default n_heads; 1 for latent attention",
    )
    head_dim: int = Field(
        default_factory=lambda values: max(1, values["hidden_size"] // values["n_heads"]),
        ge=1,
        description="numbers in a head; default hidden_size / n_heads",
    )
    n_attention_layers: int = Field(
        default_factory=lambda values: values["n_layers"],
        ge=0,
        description="layers with attention; default n_layers",
    )
    n_window_layers: int = Field(0, ge=0, description="of these, layers that see a window only")
    window_tokens: int | None = Field(None, ge=1, description="tokens of that window")
    n_experts: int = Field(0, ge=0, description="routed experts of a layer; 0 for a dense model")
    n_experts_per_token: int = Field(0, ge=0, description="routed experts a token goes to")
    n_expert_parameters: int = Field(0, ge=0, description="weights of all routed experts together")
    n_active_parameters: int = Field(
        default_factory=_active_parameters,
        ge=1,
        description="weights that one token meets; default: all but the experts it does not go to",
    )
    n_lookup_parameters: int = Field(
        0, ge=0, description="weights of which a step reads single rows: untied input embeddings"
    )
    weight_bytes: int = Field(
        default_factory=lambda values: _BYTES_16_BIT * values["n_parameters"],
        ge=1,
        description="bytes of all weights as stored; default 2 a weight",
    )
    expert_weight_bytes: int = Field(
        default_factory=_expert_bytes,
        ge=0,
        description="of these, bytes of the routed experts; default by their share of weights",
    )
    matmul_bits: Literal[8, 16] = Field(
        16, description="bits of the numbers that are multiplied: 8 for FP8 and INT8 activations"
    )
    kv_bytes_per_token: int = Field(
        default_factory=_attention_bytes,
        ge=0,
        description="bytes of KV cache a token takes in all layers; default at 16 bits",
    )
    state_bytes_per_sequence: int = Field(
        0, ge=0, description="bytes a sequence takes at any length: Mamba states"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.n_experts_per_token > self.n_experts:
            raise ValueError(
                f"n_experts_per_token is {self.n_experts_per_token}; "
                f"it is at most n_experts, {self.n_experts}"
            )
        if (self.n_expert_parameters > 0) != (self.n_experts_per_token > 0):
            raise ValueError(
                "n_experts_per_token and n_expert_parameters are given both or neither"
            )
        if self.n_active_parameters > self.n_parameters:
            raise ValueError(
                f"n_active_parameters is {self.n_active_parameters}; "
                f"it is at most n_parameters, {self.n_parameters}"
            )
        if (self.n_window_layers > 0) and self.window_tokens is None:
            raise ValueError("n_window_layers needs window_tokens")
        if not self.n_window_layers <= self.n_attention_layers <= self.n_layers:
            raise ValueError("n_window_layers <= n_attention_layers <= n_layers must hold")
        if self.expert_weight_bytes > self.weight_bytes:
            raise ValueError("expert_weight_bytes is at most weight_bytes")
        return self

    @property
    def weight_bits(self) -> float:
        """Return the mean bits of a weight as stored."""
        return 8 * self.weight_bytes / self.n_parameters
