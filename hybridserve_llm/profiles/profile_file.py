"""The profile file: what was measured of one model on one replica's hardware, as JSON.

Text that a person can read and compare. Reading it checks its form and that its numbers make
sense; what it is used for is `hybridserve_llm/profiles/curve.py`'s to say. An engine on the CPU
has a profile too: its `gpu` is null, and so is power that nobody measured.
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


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ProfilePoint(_Part):
    """What was measured while `concurrency` requests were in flight at a time.

    Attributes:
        concurrency: Mean requests in flight; need not be whole.
        step_time_s: Mean seconds from one token of a sequence to its next, prompts of others
            included: concurrency / output_tokens_per_s.
        output_tokens_per_s: Of all sequences together.
        power_w: Of all GPUs of the replica together, on a CPU of all its packages; null where
            nobody measured it.
        power_source: The meter: `nvml_energy`, `rapl`, `nvml_power_integrated`, `model:user` for
            CPU time by watts that a person named, `unavailable`; null where nobody noted it.
        power_reason: Why power is null, or what else to know of it; null for nothing.
        ttft_s: Mean seconds to the first token; null where nobody measured it.
        itl_s: Mean seconds between two tokens of a request, as the engine counts them; shorter than
            `step_time_s`, which holds the wait for the first token too. This and all that follows
            is null where nobody measured it.
        requests_per_s: Requests that ended.
        prompt_tokens_per_s: Computed, of all requests together.
        engine_cores: CPU cores that the engine's processes used, on average.
        other_cores: The same of all else on the machine, which may have slowed the engine down.
        lowest_output_tokens_per_s: Of the windows whose median `output_tokens_per_s` is.
        highest_output_tokens_per_s: Likewise.
        repeats: How many windows there were.
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
                f"{self.concurrency:g}; their product is about the concurrency (are units right?)"
            )
        return self


class Profile(_Part):
    """Measurements of one model on one replica, concurrency rising.

    Attributes:
        model: As the engine was given it.
        gpu: GPU type by a name of `hybridserve_llm/profiles/gpu_types.py`; null on a CPU.
        hardware: The machine in words.
        engine: Name and version of the engine: another version has another profile.
        measured_on: Date.
        prompt_tokens: Mean of the prompts measured with; `output_tokens` likewise.
        top_logprobs: Alternatives per token that were asked for; null for no log-probabilities, or
            where nobody noted it.
        idle_w: Watts of the same devices while the engine waits; null where nobody measured it.
        idle_source: The meter of them, as `power_source`.
        idle_reason: Why they are null, or what else to know of them.
        bare_idle_w: Watts of the same GPUs before any engine was started; null on a CPU, or where
            nobody measured it.
        bare_idle_source: The meter of them, as `power_source`.
        source: Who measured, and with what command.
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
        """Whether power was measured: watts that a model gave are none."""
        first = self.points[0]
        is_modelled = (first.power_source or "").startswith("model")
        return first.power_w is not None and not is_modelled

    def to_json(self) -> str:
        """The file's text: indented, keys in the order of this class."""
        values = self.model_dump(mode="json", by_alias=True)
        return orjson.dumps(values, option=orjson.OPT_INDENT_2).decode() + "\n"


def read_profile(path: Path) -> Profile:
    """The profile in the file `path`.

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
    """Writes `profile` to the file `path`.

    Raises:
        ConfigError: The file cannot be written.
    """
    try:
        path.write_text(profile.to_json(), encoding="utf-8")
    except OSError as exc:
        raise ConfigError(f"cannot write profile {path}: {exc.strerror}") from exc
