"""Define the configuration file: each knob once, with type, bound, unit, default and meaning.

Unknown keys are errors. Building a model touches no disk.
"""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.config.planning import ClusterConfig, PlannerConfig, TierWorkload

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
Name = Annotated[str, Field(pattern=_NAME, max_length=64)]


class _Settings(BaseModel):
    """Forbid unknown keys and changes in every section."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class AcceptRule(_Settings):
    """Decide without calibration when a tier's answer is taken."""

    score_at_least: float = Field(
        le=0.0, description="accept where the score (a log-probability) is at least this"
    )


class SkipBand(_Settings):
    """Send a prompt whose score is very low past the next tier (HybridServe's skip bands)."""

    score_below: float = Field(le=0.0, description="applies to scores below this")
    to: Name = Field(description="name of the tier further up that the prompt goes to")


class EngineSettings(_Settings):
    """Set how a tier's vLLM engines are started; the names are vLLM's own."""

    dtype: str = Field("auto", description="weights' data type")
    max_model_len: int | None = Field(None, ge=16, description="tokens, prompt and output together")
    max_num_seqs: int | None = Field(None, ge=1, description="requests an engine runs at a time")
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="share of the GPU's memory an engine may take"
    )
    kv_cache_gib: int = Field(1, ge=1, description="GiB of KV cache of an engine on the CPU")
    enforce_eager: bool = Field(False, description="no graph capture: quicker start, slower steps")
    reasoning_parser: str | None = Field(
        None, description="vLLM's parser that splits reasoning from the answer"
    )
    tool_call_parser: str | None = Field(None, description="vLLM's parser of tool calls")
    extra_args: tuple[str, ...] = Field((), description="further vLLM arguments, as written")
    environment: dict[str, str] = Field(
        default_factory=dict, description="further environment variables of the engines"
    )


class TierConfig(_Settings):
    """Describe one model of the cascade; the list of tiers begins with the cheapest."""

    name: Name = Field(description="the tier's name in requests, ledgers and metrics")
    model: str = Field(min_length=1, description="checkpoint: folder or Hugging Face id")
    accept: AcceptRule | None = Field(
        None,
        description="rule that takes its answer; needed below the last tier without a certificate",
    )
    skip: tuple[SkipBand, ...] = Field((), description="tiers for prompts with very low scores")
    reasoning_end_token: str = Field(
        "</think>",
        min_length=1,
        description="token that ends reasoning; tokens before it are not scored",
    )
    timeout_s: float | None = Field(
        None,
        gt=0,
        description="seconds after which an answer of this tier is not waited for any more; by "
        "default five times the longest of its recent attempts, at least 10, and at most half of "
        "the time that the request has left; the last tier may take all of it",
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    tensor_parallel_size: int | None = Field(
        None,
        ge=1,
        description="GPUs, or CPU core groups, per replica; default 1 on the CPU, else planned",
    )
    replicas: int | None = Field(
        None, ge=1, description="engines of this tier; default 1 on the CPU, else planned"
    )
    facts: ModelFacts | None = Field(
        None, description="the model's sizes; default by hub id or the checkpoint's config.json"
    )
    workload: TierWorkload = Field(default_factory=TierWorkload)
    profiles: tuple[Path, ...] = Field((), description="measurements of this model on GPUs")
    endpoints: tuple[str, ...] = Field(
        (), description="base URLs of running OpenAI-compatible servers; then none is started"
    )
    api_key_env: str | None = Field(
        None, description="environment variable with the key of the endpoints"
    )

    @model_validator(mode="after")
    def _check_endpoints(self) -> Self:
        for url in self.endpoints:
            if not url.startswith(("http://", "https://", "unix:")):
                raise ValueError(f"endpoint {url!r} must begin with http://, https:// or unix:")
        return self


class ServerConfig(_Settings):
    """Configure the OpenAI-compatible front end."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(8000, ge=0, le=65535, description="TCP port; 0 takes a free one")
    served_model_name: Name = Field("hybridserve", description="model name of the cascade")
    api_keys_file: Path | None = Field(None, description="file with one accepted API key a line")
    api_keys_env: str | None = Field(
        None, description="environment variable with accepted API keys, separated by commas"
    )
    request_timeout_s: float = Field(600.0, gt=0, description="seconds a request may take in all")
    max_concurrent_requests: int = Field(1024, ge=1, description="more are answered 429")
    max_body_mib: int = Field(16, ge=1, description="MiB of a request body")
    sse_keepalive_s: float = Field(10.0, gt=0, description="seconds between SSE comments in a hold")
    health_interval_s: float = Field(2.0, gt=0, description="seconds between engine health probes")
    show_tier_header: bool = Field(True, description="name tier and confidence in headers")


class LaunchConfig(_Settings):
    """Configure how engines are started, kept running and stopped."""

    run_folder: Path | None = Field(None, description="logs, sockets, plan.json; default a new one")
    startup_timeout_s: float = Field(600.0, gt=0, description="seconds until an engine is healthy")
    stop_timeout_s: float = Field(
        20.0, gt=0, description="seconds to end before engines are killed"
    )
    health_interval_s: float = Field(
        2.0, gt=0, description="seconds between the launcher's health probes of an engine"
    )
    health_timeout_s: float = Field(
        60.0, gt=0, description="seconds without a healthy answer until an engine counts as hung"
    )
    restart_limit: int = Field(
        3, ge=0, le=1000, description="restarts in a row of an engine that failed; 0: none"
    )
    restart_backoff_s: float = Field(
        1.0, ge=0, description="seconds before the first restart; doubled for each one more"
    )
    restart_backoff_limit_s: float = Field(
        60.0, ge=0, description="seconds before any restart at most"
    )
    restart_forget_after_s: float = Field(
        600.0, gt=0, description="seconds of health after which restarts are counted anew"
    )


class WatchConfig(_Settings):
    """Configure how a certified cascade is watched (docs/drift.md)."""

    shadow_share: float = Field(
        0.02, gt=0, le=1, description="share of accepted answers that the last tier is asked again"
    )
    floor_per_day: float = Field(20.0, ge=0, description="answers a day shadowed at least")
    shadow_queue: int = Field(32, ge=1, description="answers that wait; more are dropped")
    shadow_concurrency: int = Field(2, ge=1, description="answers shadowed at a time")
    shadow_timeout_s: float = Field(120.0, gt=0, description="seconds the last tier has for one")
    shadow_priority: int | None = Field(
        None, description="vLLM priority of shadows, for engines with priority scheduling"
    )
    seed: int = Field(0, ge=0, description="seed of the draw of answers to shadow")
    delta: float = Field(
        0.0005, gt=0, lt=1, description="share of false alarms over horizon_requests"
    )
    horizon_requests: float = Field(100_000.0, gt=0, description="requests that delta is for")
    warning_e_value: float = Field(20.0, gt=1, description="evidence of a loss that warns")
    adwin_delta: float = Field(0.002, gt=0, lt=1, description="ADWIN's own delta, for warnings")
    save_interval_s: float = Field(30.0, gt=0, description="seconds between saves of the state")
    state_file: Path | None = Field(
        None, description="file that keeps the watch's state; default watch.json in the run folder"
    )


class EnergyConfig(_Settings):
    """Configure how energy is metered and shared (docs/energy.md)."""

    enabled: bool = Field(True, description="false: no energy is metered or charged")
    sample_interval_s: float = Field(
        0.1, ge=0.02, le=1, description="seconds between readings of the meters"
    )
    settle_interval_s: float = Field(
        1.0, ge=0.05, le=60, description="seconds between settlements of the energy of requests"
    )
    settle_within_s: float = Field(
        120.0, gt=0, description="seconds after which a request that still runs is not waited for"
    )
    watts_per_busy_core: float | None = Field(
        None, gt=0, le=1000, description="watts of a busy CPU core, where no counter gives joules"
    )
    zeus_gpus: dict[str, list[list[Annotated[int, Field(ge=0)] | Literal["soc"]]]] = Field(
        default_factory=dict,
        description=(
            "by tier and replica, GPUs of this machine that Zeus reads and NVML does not; by Zeus' "
            "index, or `soc` for the GPU inside an Apple chip; needs the extra `zeus`"
        ),
    )


class RecordsConfig(_Settings):
    """Configure the record sink: one line of JSON for every request, and one for its energy."""

    file: Path | None = Field(None, description="file to append to; without it none is written")
    max_file_mib: int = Field(64, ge=1, description="MiB after which a new file is begun")
    keep_files: int = Field(5, ge=1, le=1000, description="full files that are kept next to it")
    queue_size: int = Field(8192, ge=1, description="records that wait; more are dropped")


class TracingConfig(_Settings):
    """Configure OpenTelemetry spans; needs the extra `otel`."""

    otlp_endpoint: str | None = Field(
        None,
        pattern=r"^https?://",
        description="URL that takes spans as OTLP over HTTP; without it no spans are made",
    )
    max_requests_per_s: int = Field(
        20, ge=1, description="requests a second that have spans; the others have none"
    )


class CertificateConfig(_Settings):
    """Name the certificate to serve by; the path of its file alone may stand for this section."""

    file: Path = Field(
        description="certificate of hs-calibrate; answers are then taken by its policy"
    )
    uncovered: Literal["last", "cascade"] | None = Field(
        None,
        description="who answers what the certificate does not cover: `last` is the last tier "
        "alone, `cascade` the cascade without a promise; by default the last tier answers requests "
        "with unknown fields or an uncovered form of answer, and the cascade all others",
    )


class CascadeConfig(_Settings):
    """Configure a cascade: two tiers or more, cheapest first, and the programs' settings."""

    tiers: tuple[TierConfig, ...] = Field(min_length=2)
    certificate: CertificateConfig | None = Field(
        None, description="certificate of hs-calibrate, as a section or as the path of its file"
    )
    server: ServerConfig = Field(default_factory=ServerConfig)
    launch: LaunchConfig = Field(default_factory=LaunchConfig)
    watch: WatchConfig = Field(default_factory=WatchConfig)
    energy: EnergyConfig = Field(default_factory=EnergyConfig)
    records: RecordsConfig = Field(default_factory=RecordsConfig)
    tracing: TracingConfig = Field(default_factory=TracingConfig)
    planner: PlannerConfig = Field(default_factory=PlannerConfig)
    cluster: ClusterConfig | None = Field(
        None, description="GPUs to plan for, instead of those of this machine; for --dry-run"
    )

    @field_validator("certificate", mode="before")
    @classmethod
    def _take_a_path_alone(cls, given: Any) -> Any:
        return {"file": given} if isinstance(given, str | Path) else given

    @model_validator(mode="after")
    def _check_tiers(self) -> Self:
        names = [tier.name for tier in self.tiers]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"tier name {name!r} is used twice")
        if self.server.served_model_name in names:
            raise ValueError(
                f"server.served_model_name {self.server.served_model_name!r} is also a tier's name"
            )
        for name in self.energy.zeus_gpus:
            if name not in names:
                raise ValueError(
                    f"energy.zeus_gpus names {name!r}, which is no tier: {', '.join(names)}"
                )
        for i, tier in enumerate(self.tiers):
            _check_policy_of(tier, above=names[i + 1 :], needs_accept=self.certificate is None)
        return self


def _check_policy_of(tier: TierConfig, *, above: list[str], needs_accept: bool) -> None:
    if not above:
        if tier.accept or tier.skip:
            raise ValueError(
                f"tier {tier.name!r} is the last: its answers are always taken, "
                "so it has neither accept nor skip"
            )
        return
    if tier.accept is None:
        if needs_accept or tier.skip:
            raise ValueError(
                f"tier {tier.name!r} needs accept, e.g. accept: {{score_at_least: -0.5}}; "
                "only the last tier, and tiers of a cascade with a certificate, may leave it out"
            )
        return
    for band in tier.skip:
        if band.to not in above[1:]:
            raise ValueError(
                f"tier {tier.name!r} skips to {band.to!r}, "
                f"allowed: {', '.join(above[1:]) or 'none, there is no tier beyond the next'}"
            )
        if band.score_below > tier.accept.score_at_least:
            raise ValueError(
                f"tier {tier.name!r}: skip.score_below {band.score_below} is above "
                f"accept.score_at_least {tier.accept.score_at_least}"
            )
