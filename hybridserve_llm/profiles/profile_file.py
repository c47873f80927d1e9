"""Define the profile file: measurements of one model on one replica's hardware, as JSON.

It is text that a person can read and compare. Reading it checks its form and that its numbers make
sense; `hybridserve_llm/profiles/curve.py` decides its use. An engine on the CPU has a profile too:
its `gpu` is null, and so is power that nobody measured.
"""

from pathlib import Path
from typing import Annotated, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.faults import first_fault
from hybridserve_llm.files import read_bytes

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_ORDER_OF_MAGNITUDE = 10


class _ProfilePart(BaseModel):
    """Forbid unknown keys and changes in every part of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfilePoint(_ProfilePart):
    """Hold the measurements with `concurrency` requests in flight at a time.

    Attributes:
        concurrency: Mean requests in flight; need not be whole.
        step_time_s: Mean seconds from one token of a sequence to its next, prompts of others
            included: concurrency / output_tokens_per_s.
        output_tokens_per_s: Output tokens of all sequences together.
        power_w: Watts of all GPUs of the replica together, on a CPU of all its packages; null where
            nobody measured it.
        power_source: The meter: `nvml_energy`, `rapl`, `nvml_power_integrated`, `model:user` for
            CPU time by watts that a person named, `unavailable`; null where nobody noted it.
        power_reason: Why power is null, or a remark on it; null for none.
        ttft_s: Mean seconds to the first token; null where nobody measured it.
        itl_s: Mean seconds between two tokens of a request, as the engine counts them; shorter than
            `step_time_s`, which holds the wait for the first token too. This and all that follows
            is null where nobody measured it.
        requests_per_s: Requests that ended.
        prompt_tokens_per_s: Prompt tokens computed, of all requests together.
        engine_cores: CPU cores that the engine's processes used, on average.
        other_cores: CPU cores that all else on the machine used, which may have slowed the engine.
        lowest_output_tokens_per_s: Lowest value of the windows whose median is
            `output_tokens_per_s`.
        highest_output_tokens_per_s: Highest value of these windows.
        repeats: Number of these windows.
    """

    concurrency: Positive
    step_time_s: Positive
    output_tokens_per_s: Positive
    power_w: Positive | None = None
    power_source: str | None = None
    power_reason: str | None = None
    ttft_s: Positive | None = None
    itl_s: Positive | None = None
    requests_per_s: Positive | None = None
    prompt_tokens_per_s: NotNegative | None = None
    engine_cores: NotNegative | None = None
    other_cores: NotNegative | None = None
    lowest_output_tokens_per_s: NotNegative | None = None
    highest_output_tokens_per_s: Positive | None = None
    repeats: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        ratio = self.step_time_s * self.output_tokens_per_s / self.concurrency
        if not 1 / _ORDER_OF_MAGNITUDE < ratio < _ORDER_OF_MAGNITUDE:
            raise ValueError(
                f"step_time_s {self.step_time_s:g} and output_tokens_per_s "
                f"{self.output_tokens_per_s:g} do not go together at concurrency "
                f"{self.concurrency:g}; their product must be near the concurrency; check units"
            )
        return self


class Profile(_ProfilePart):
    """Hold measurements of one model on one replica, concurrency rising.

    Attributes:
        model: The model's name as given to the engine.
        gpu: GPU type by a name of `hybridserve_llm/profiles/gpu_types.py`; null on a CPU.
        hardware: The machine in words.
        engine: Name and version of the engine: another version has another profile.
        measured_on: Date.
        prompt_tokens: Mean of the prompts measured with; `output_tokens` likewise.
        top_logprobs: Alternatives per token that were asked for; null for no log-probabilities, or
            where nobody noted it.
        idle_w: Watts of the same devices while the engine waits; null where nobody measured it.
        idle_source: The meter of `idle_w`, as `power_source`.
        idle_reason: Why `idle_w` is null, or a remark on it.
        bare_idle_w: Watts of the same GPUs before any engine was started; null on a CPU, or where
            nobody measured it.
        bare_idle_source: The meter of `bare_idle_w`, as `power_source`.
        source: The person or program that measured, and the command.
    """

    schema_: Literal["hybridserve-profile/1"] = Field("hybridserve-profile/1", alias="schema")
    model: str = Field(min_length=1)
    gpu: str | None
    hardware: str = Field(min_length=1)
    engine: str = Field(min_length=1)
    measured_on: str = Field(pattern=r"^\d{4}-\d{2}-\d{2}$")
    tensor_parallel_size: int = Field(1, ge=1)
    pipeline_parallel_size: int = Field(1, ge=1)
    prompt_tokens: float = Field(ge=0, allow_inf_nan=False)
    output_tokens: Positive
    top_logprobs: int | None = Field(None, ge=0)
    idle_w: NotNegative | None = None
    idle_source: str | None = None
    idle_reason: str | None = None
    bare_idle_w: NotNegative | None = None
    bare_idle_source: str | None = None
    points: tuple[ProfilePoint, ...] = Field(min_length=1)
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _check_points(self) -> Self:
        at = [point.concurrency for point in self.points]
        if at != sorted(set(at)):
            raise ValueError("points must be in order of concurrency, each once")
        if len({point.power_w is None for point in self.points}) > 1:
            raise ValueError("power_w must be given at every point, or null at every point")
        return self

    @property
    def has_power(self) -> bool:
        """Return True where power was measured; watts of a model do not count."""
        first = self.points[0]
        is_modelled = (first.power_source or "").startswith("model")
        return first.power_w is not None and not is_modelled

    def to_json(self) -> str:
        """Return the file's text: indented, keys in the order of this class."""
        values = self.model_dump(mode="json", by_alias=True)
        return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode() + "\n"


def read_profile(path: Path) -> Profile:
    """Read the profile in the file `path`.

    Raises:
        ConfigError: The file cannot be read, or is not a profile of a schema known here.
    """
    data = read_bytes(path, name=f"profile {path}")
    try:
        return Profile.model_validate(orjson.loads(data))
    except orjson.JSONDecodeError as exc:
        raise ConfigError(f"profile {path} is not JSON: {exc}") from exc
    except ValidationError as exc:
        raise ConfigError(f"profile {path}: {first_fault(exc)}") from exc


def write_profile(profile: Profile, path: Path) -> None:
    """Write `profile` to the file `path`.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        path.write_text(profile.to_json(), encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot write profile {path}: {exc.strerror}") from exc
