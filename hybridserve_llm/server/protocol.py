"""The wire models of the OpenAI endpoints: what this server reads and bounds.

Fields it does not know pass to the engine as they are, since vLLM's parameters are many and its
own errors are clear; what is listed here is checked once, before any engine is asked.
"""

from abc import ABC, abstractmethod
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hybridserve_llm.values.requests import JsonObject

_MAX_TOP_LOGPROBS = 20


class CascadeOverrides(BaseModel):
    """The body field `hybridserve` of a request (in the openai client: `extra_body`).

    `assess` adds to the ledger everything that is known of each answer, for calibration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_confidence: float | None = Field(None, ge=0, le=1)
    min_tier: str | None = None
    max_tier: str | None = None
    policy: Literal["default", "strict", "last"] | None = None
    assess: bool = False


class StreamOptions(BaseModel):
    """What a stream carries besides the answer; unknown keys pass."""

    model_config = ConfigDict(extra="allow", frozen=True)

    include_usage: bool = False


class Message(BaseModel):
    """One turn; anything beyond its role is the engine's chat template's business."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str = Field(min_length=1)


class GenerationBody(BaseModel, ABC):
    """What both endpoints share."""

    model_config = ConfigDict(extra="allow", frozen=True)

    model: str = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=128)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    response_format: dict[str, Any] | None = None
    hybridserve: CascadeOverrides = Field(default_factory=CascadeOverrides)

    @property
    def output_limit(self) -> int | None:
        """The client's own limit of output tokens, if it set one."""
        return self.max_tokens

    @property
    @abstractmethod
    def client_top_logprobs(self) -> int | None:
        """Log-probabilities the client asked for; 0 = the sampled token's only, None = none."""

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, raw: Any) -> Any:
        """OpenAI's schema lets optional fields be null, which means the same as left out."""
        if not isinstance(raw, dict):
            return raw
        return {key: value for key, value in raw.items() if value is not None}

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is allowed only with stream: true")
        return self


class ChatBody(GenerationBody):
    """Body of `POST /v1/chat/completions`."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=_MAX_TOP_LOGPROBS)
    tools: list[dict[str, Any]] | None = None

    @property
    def output_limit(self) -> int | None:
        """The client's own limit of output tokens, under its new name or its old one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def client_top_logprobs(self) -> int | None:
        """Log-probabilities the client asked for; 0 = the sampled token's only, None = none."""
        return (self.top_logprobs or 0) if self.logprobs else None

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is allowed only with logprobs: true")
        return self


class CompletionBody(GenerationBody):
    """Body of `POST /v1/completions`."""

    prompt: str | list[str] | list[int] | list[list[int]] = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=_MAX_TOP_LOGPROBS)
    echo: bool = False

    @property
    def client_top_logprobs(self) -> int | None:
        """Log-probabilities the client asked for; 0 = the sampled token's only, None = none."""
        return self.logprobs


SET_PER_ATTEMPT = frozenset(
    {
        "model",
        "stream",
        "stream_options",
        "logprobs",
        "top_logprobs",
        "return_token_ids",
        "hybridserve",
    }
)
"""Body fields that are not passed on as they are: the engine client sets them for each attempt."""


def engine_payload(body: JsonObject) -> dict[str, Any]:
    """The client's body without the fields that are set per attempt; nulls stay as they are."""
    return {key: value for key, value in body.items() if key not in SET_PER_ATTEMPT}
