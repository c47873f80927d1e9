"""Define the sections of the configuration file that plans need: load, bounds, described GPUs."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Level = Annotated[float, Field(gt=0, le=1000)]


class _PlanningSettings(BaseModel):
    """Forbid unknown keys, changes, infinities and NaN in every section."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TierWorkload(_PlanningSettings):
    """Describe the requests that reach one tier; a GPU plan is made for them."""

    reach: float | None = Field(
        None,
        ge=0,
        le=1,
        description="share of requests that ask this tier; default by the certificate, else "
        "assumed and printed",
    )
    prompt_tokens: float | None = Field(
        None, ge=0, description="mean, instead of planner.workload.prompt_tokens"
    )
    output_tokens: float | None = Field(
        None, ge=1, description="mean, instead of planner.workload.output_tokens"
    )
    p95_output_tokens: float | None = Field(
        None, ge=1, description="instead of planner.workload.p95_output_tokens"
    )


class WorkloadConfig(_PlanningSettings):
    """Describe the load of a GPU plan; missing values are assumed, and printed."""

    requests_per_s: float | None = Field(
        None, gt=0, description="requests per second to the cascade; without it 1 is assumed"
    )
    prompt_tokens: float | None = Field(
        None, ge=0, description="mean tokens of a prompt; without it 512 are assumed"
    )
    output_tokens: float | None = Field(
        None, ge=1, description="mean tokens of an answer; without it 256 are assumed"
    )
    p95_output_tokens: float | None = Field(
        None,
        ge=1,
        description="tokens that 95 % of answers do not exceed; without it all are taken to be as "
        "long as the mean",
    )


class SloConfig(_PlanningSettings):
    """Set bounds that a plan keeps.

    A bound that is left out does not bind. Those without p95 are on means.
    """

    ttft_s: float | None = Field(None, gt=0, description="seconds to a tier's first token")
    itl_s: float | None = Field(None, gt=0, description="seconds between a tier's tokens")
    latency_s: float | None = Field(
        None, gt=0, description="seconds a request spends in all tiers that it asks"
    )
    p95_ttft_s: float | None = Field(
        None, gt=0, description="seconds to the first token that 95 % of a tier's answers keep"
    )
    p95_itl_s: float | None = Field(
        None, gt=0, description="seconds between tokens that 95 % of a tier's tokens keep"
    )
    p95_latency_s: float | None = Field(
        None, gt=0, description="seconds that 95 % of a tier's answers take at most"
    )


class PlannerConfig(_PlanningSettings):
    """Configure how replicas are planned on GPUs (docs/planner.md)."""

    objective: Literal["energy", "throughput"] = Field(
        "energy",
        description="`energy`: fewest watts at the load given; `throughput`: the largest load",
    )
    workload: WorkloadConfig = Field(default_factory=WorkloadConfig)
    slo: SloConfig = Field(default_factory=SloConfig)
    head_room: float = Field(
        0.2, ge=0, lt=1, description="share of every replica's capacity that stays free"
    )
    gears: tuple[Level, ...] = Field(
        (0.25, 0.5, 1.0, 2.0),
        description="load levels, as factors of requests_per_s, that --explain plans for, too",
    )


class NodeConfig(_PlanningSettings):
    """Describe machines of one kind."""

    name: str = Field(
        min_length=1, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="name; NAME-0, … if many"
    )
    gpu_type: str = Field(min_length=1, description="GPU type, such as H100-80GB")
    gpus: int = Field(ge=1, le=64, description="GPUs of each")
    count: int = Field(1, ge=1, le=4096, description="number of such machines")


class ClusterConfig(_PlanningSettings):
    """Describe GPUs to plan for, instead of those of this machine; for --dry-run."""

    nodes: tuple[NodeConfig, ...] = Field(min_length=1)
