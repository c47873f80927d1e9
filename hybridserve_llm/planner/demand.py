"""Describe what a plan must achieve: the load of every tier, the bounds, the fixed choices."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.profiles.profile_file import Profile

Objective = Literal["energy", "throughput"]

TierTime = Literal["ttft_s", "itl_s", "p95_ttft_s", "p95_itl_s", "p95_latency_s"]
"""A time of a tier's answers that may be bounded; those without p95 are means."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TierDemand:
    """Hold what is known and wanted of one tier that is to be placed.

    Attributes:
        reach: Share of requests that ask this tier.
        prompt_tokens: Mean of those requests.
        output_tokens: Mean of this tier's answers.
        p95_output_tokens: Tokens that 95 % of its answers do not exceed; None takes all answers to
            be as long as the mean.
        max_tokens: Prompt and output that one sequence may have: the KV cache must hold it.
        max_num_seqs: The operator's bound on requests that an engine runs at a time.
        tensor_parallel_size: The operator's; None leaves it to the planner.
        replicas: The operator's; None leaves it to the planner.
        memory_share: The operator's `gpu_memory_utilization`.
        profiles: Measurements of this model.
    """

    name: str
    facts: ModelFacts
    reach: float
    prompt_tokens: float
    output_tokens: float
    max_tokens: int
    p95_output_tokens: float | None = None
    max_num_seqs: int | None = None
    tensor_parallel_size: int | None = None
    replicas: int | None = None
    memory_share: float | None = None
    profiles: Sequence[Profile] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Slo:
    """Hold bounds on times; None for none. Bounds called p95 hold for 95 % of a tier's requests.

    Attributes:
        ttft_s: Mean time to first token of every tier's answers.
        itl_s: Mean time between tokens of every tier's answers.
        latency_s: Mean time that a request spends in all tiers it asks.
        p95_ttft_s: Time to first token of every tier's answers.
        p95_itl_s: Time between tokens of every tier's answers.
        p95_latency_s: Time of every tier's answers, waiting included.
    """

    ttft_s: float | None = None
    itl_s: float | None = None
    latency_s: float | None = None
    p95_ttft_s: float | None = None
    p95_itl_s: float | None = None
    p95_latency_s: float | None = None

    @property
    def of_tiers(self) -> tuple[tuple[TierTime, float], ...]:
        """Return the names and seconds of the bounds that every tier keeps by itself.

        `latency_s` is not one of them: it bounds whole requests.
        """
        bounds: tuple[tuple[TierTime, float | None], ...] = (
            ("ttft_s", self.ttft_s),
            ("itl_s", self.itl_s),
            ("p95_ttft_s", self.p95_ttft_s),
            ("p95_itl_s", self.p95_itl_s),
            ("p95_latency_s", self.p95_latency_s),
        )
        return tuple((name, bound) for name, bound in bounds if bound is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """Hold what a plan must carry.

    Attributes:
        head_room: Share of every replica's capacity that stays free.
    """

    tiers: tuple[TierDemand, ...]
    requests_per_s: float
    objective: Objective = "energy"
    slo: Slo = Slo()
    head_room: float = 0.2

    @property
    def rates_per_s(self) -> tuple[float, ...]:
        """Return the requests per second that each tier is asked."""
        return tuple(self.requests_per_s * tier.reach for tier in self.tiers)
