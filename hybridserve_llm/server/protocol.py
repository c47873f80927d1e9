"""Define the request bodies of the OpenAI endpoints: what this server reads and bounds.

Fields it does not know pass to the engine as they are, since vLLM's parameters are many and its
own errors are clear. What is listed here is checked once, before any engine is asked.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hybridserve_llm.errors import InvalidRequest
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, JsonObject, Overrides

_MAX_TOP_LOGPROBS = 20
_COMPLETION_TOKENS = 16
_JSON_FORMATS = frozenset({"json_object", "json_schema"})
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


class CascadeOverrides(BaseModel):
    """Hold the body field `hybridserve` of a request (in the openai client: `extra_body`).

    `assess` adds to the ledger everything that is known of each answer, for calibration.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_confidence: float | None = Field(None, ge=0, le=1)
    min_tier: str | None = None
    max_tier: str | None = None
    policy: Literal["default", "strict", "last"] | None = None
    assess: bool = False


class StreamOptions(BaseModel):
    """Say what a stream carries besides the answer; unknown keys pass."""

    model_config = ConfigDict(extra="allow", frozen=True)

    include_usage: bool | None = None


class Message(BaseModel):
    """Hold one turn; the engine's chat template reads everything but its role."""

    model_config = ConfigDict(extra="allow", frozen=True)

    role: str = Field(min_length=1)


class GenerationBody(BaseModel, ABC):
    """Hold the fields that both endpoints share, and become a request of the cascade."""

    model_config = ConfigDict(extra="allow", frozen=True)

    endpoint: ClassVar[Endpoint]

    model: str = Field(min_length=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    n: int = Field(1, ge=1, le=128)
    temperature: float | None = Field(None, ge=0)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    response_format: dict[str, Any] | None = None
    return_token_ids: bool | None = None
    hybridserve: CascadeOverrides = Field(default_factory=CascadeOverrides)

    def to_request(
        self,
        raw: JsonObject,
        *,
        request_id: str,
        deadline_s: float,
        only_tier: str | None,
        trace: Mapping[str, str] | None = None,
    ) -> GenerateRequest:
        """Return the request as the cascade takes it.

        `raw` is the same body as it was sent. `only_tier` is the tier that the client named as
        model; None for the cascade.

        Raises:
            InvalidRequest: The cascade cannot honour a field that a single tier could, or overrides
                came with a tier's own name.
        """
        wished = self.hybridserve
        if only_tier is None:
            self._check_cascade_can_serve(raw)
        elif wished != CascadeOverrides(assess=wished.assess):
            raise InvalidRequest(
                f"overrides are for the cascade, and model names the tier {only_tier!r} alone",
                parameter="hybridserve",
            )
        return GenerateRequest(
            request_id=request_id,
            endpoint=self.endpoint,
            payload=self._payload(raw),
            stream=self.stream,
            include_usage=bool(self.stream_options and self.stream_options.include_usage),
            max_output_tokens=self._output_limit,
            client_top_logprobs=self._client_top_logprobs,
            overrides=Overrides(
                min_confidence=wished.min_confidence,
                min_tier=wished.min_tier,
                max_tier=wished.max_tier,
                policy=wished.policy,
            ),
            deadline_s=deadline_s,
            json_answer=(self.response_format or {}).get("type") in _JSON_FORMATS,
            tool_names=self._tool_names,
            assess=wished.assess,
            trace=trace,
            only_tier=only_tier,
            stream_options=raw.get("stream_options"),
            wants_token_ids=bool(self.return_token_ids),
        )

    @property
    @abstractmethod
    def _output_limit(self) -> int | None:
        """Return the client's limit of output tokens, if any; its answer may be cut there."""

    @property
    @abstractmethod
    def _client_top_logprobs(self) -> int | None:
        """Return how many alternatives per token the client wants.

        0 asks for the sampled token's log-probability alone, None for no log-probabilities.
        """

    @property
    def _tool_names(self) -> frozenset[str]:
        return frozenset()

    def _payload(self, raw: JsonObject) -> JsonObject:
        """Return what every engine gets; nulls stay as they are."""
        return {key: value for key, value in raw.items() if key not in SET_PER_ATTEMPT}

    def _check_cascade_can_serve(self, raw: JsonObject) -> None:
        """Raise InvalidRequest where the request does not mean the same to every tier."""
        if raw.get("prompt_logprobs") is not None:
            raise _log_likelihood_refused("prompt_logprobs")

    @model_validator(mode="before")
    @classmethod
    def _leave_out_nulls(cls, raw: Any) -> Any:
        """Leave out nulls: OpenAI's schema lets optional fields be null, with the same meaning."""
        if not isinstance(raw, dict):
            return raw
        return {key: value for key, value in raw.items() if value is not None}

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is allowed only with stream: true")
        return self


class ChatBody(GenerationBody):
    """Hold the body of `POST /v1/chat/completions`."""

    endpoint = Endpoint.CHAT

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=_MAX_TOP_LOGPROBS)
    tools: list[dict[str, Any]] | None = None

    @property
    def _output_limit(self) -> int | None:
        """Return the limit under its new name, else under its old one."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def _client_top_logprobs(self) -> int | None:
        return (self.top_logprobs or 0) if self.logprobs else None

    @property
    def _tool_names(self) -> frozenset[str]:
        functions = [tool.get("function") for tool in self.tools or []]
        return frozenset(
            str(one.get("name", "")) if isinstance(one, dict) else "" for one in functions
        )

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs is allowed only with logprobs: true")
        return self


class CompletionBody(GenerationBody):
    """Hold the body of `POST /v1/completions`."""

    endpoint = Endpoint.COMPLETIONS

    prompt: str | list[str] | list[int] | list[list[int]] = Field(min_length=1)
    logprobs: int | None = Field(None, ge=0, le=_MAX_TOP_LOGPROBS)
    echo: bool = False

    @property
    def _output_limit(self) -> int:
        """Return the client's limit, else the API's own.

        Source: OpenAI's reference of `/v1/completions`, where `max_tokens` is 16 by default.
        """
        return self.max_tokens or _COMPLETION_TOKENS

    @property
    def _client_top_logprobs(self) -> int | None:
        return self.logprobs

    def _payload(self, raw: JsonObject) -> JsonObject:
        """Return what every engine gets; it names the limit, so that it is the same for all."""
        return {**super()._payload(raw), "max_tokens": self._output_limit}

    def _check_cascade_can_serve(self, raw: JsonObject) -> None:
        if self.echo:
            raise _log_likelihood_refused("echo")
        super()._check_cascade_can_serve(raw)
        if isinstance(self.prompt, str):
            return
        if any(not isinstance(part, str) for part in self.prompt):
            raise InvalidRequest(
                "a prompt of token ids means different text to tiers with different tokenizers; "
                "send text, or name one tier as the model",
                parameter="prompt",
            )
        if len(self.prompt) > 1:
            raise InvalidRequest(
                f"the cascade takes one prompt a request, got {len(self.prompt)}; "
                "send them one by one, or name one tier as the model",
                parameter="prompt",
            )


def _log_likelihood_refused(field: str) -> InvalidRequest:
    return InvalidRequest(
        f"{field}: the log-likelihood of a prompt is one model's, and a cascade is several; "
        "ask one tier, by its own name as the model (GET /v1/models lists them)",
        parameter=field,
    )
