"""Decide what the fake vLLM generates, and why it refuses, in the words of vLLM 0.32."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from hybridserve_llm.testing.bodies import chat_logprobs, text_logprobs
from hybridserve_llm.testing.fake_tokens import byte_tokens, token_text

_TURN = "<|{role}|>{content}<|end|>"


@dataclass(slots=True)
class FakeVllm:
    """Hold the state behind the app, as `app.state.fake_vllm`.

    Attributes:
        gate: While set and not fired, an answer stops after its first token until it fires.
        status: Answer every generation with this error status instead, if set.
        answer: Answer every prompt with this text, and end it there, instead of the prompt
            reversed up to the limit.
        bodies: The JSON bodies of generation requests, in order.
        headers: Their headers.
        n_running: Generations in progress, as `/metrics` reports.
        n_aborted: Generations whose client went away.
        n_prompt_tokens: Tokens in prompts of generations that began, likewise.
        n_output_tokens: Tokens generated, likewise.
        n_first_tokens: Generations that gave a token, likewise.
    """

    model: str
    max_model_len: int
    token_delay_s: float = 0.0
    gate: asyncio.Event | None = None
    status: int | None = None
    answer: str | None = None
    is_healthy: bool = True
    bodies: list[dict[str, Any]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    n_running: int = 0
    n_aborted: int = 0
    n_prompt_tokens: int = 0
    n_output_tokens: int = 0
    n_first_tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Hold one accepted generation: its tokens, and the form of its answer."""

    body: dict[str, Any]
    is_chat: bool
    n_prompt_tokens: int
    tokens: list[int]
    finish_reason: str

    @property
    def n_alternatives(self) -> int | None:
        """Return the alternatives per token; None for no log-probabilities at all."""
        if not self.is_chat:
            count: int | None = self.body.get("logprobs")
            return count
        return (self.body.get("top_logprobs") or 0) if self.body.get("logprobs") else None

    @property
    def usage(self) -> dict[str, Any]:
        """Return the counts of the whole answer."""
        return {
            "prompt_tokens": self.n_prompt_tokens,
            "completion_tokens": len(self.tokens),
            "total_tokens": self.n_prompt_tokens + len(self.tokens),
        }

    def logprobs(self, tokens: list[int]) -> dict[str, Any] | None:
        """Return the `logprobs` object for some of the tokens; None when nobody asked for it."""
        if self.n_alternatives is None:
            return None
        make = chat_logprobs if self.is_chat else text_logprobs
        values = [-0.01 * (token % 50) for token in tokens]
        return make(values, [token_text([t]) for t in tokens], n_alternatives=self.n_alternatives)


class RequestFaultError(Exception):
    """Report that the request is refused; `body` and `status` are the answer."""

    def __init__(self, message: str, *, status: int = 400, param: str | None = None) -> None:
        super().__init__(message)
        kinds = {400: "BadRequestError", 404: "NotFoundError"}
        kind = kinds.get(status, "InternalServerError")
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": status}}


def job_of(state: FakeVllm, body: dict[str, Any], *, is_chat: bool) -> Job:
    """Return the work that `body` asks for.

    Raises:
        RequestFaultError: vLLM would refuse it.
    """
    if state.status is not None:
        raise RequestFaultError("the fake was set to fail", status=state.status)
    if body.get("model") != state.model:
        raise RequestFaultError(f"The model `{body.get('model')}` does not exist.", status=404)
    temperature = body.get("temperature", 1.0)
    if temperature < 0:
        raise RequestFaultError(
            f"temperature must be non-negative, got {temperature}. "
            f"(parameter=temperature, value={temperature})",
            param="temperature",
        )
    prompt = _rendered(body["messages"]) if is_chat else _prompt_text(body["prompt"])
    n_prompt_tokens = len(byte_tokens(prompt))
    text = body["messages"][-1]["content"] if is_chat else prompt
    n_tokens = _output_tokens(state, body, n_prompt_tokens)
    reversed_text = byte_tokens(text[::-1] or "?")
    tokens = [reversed_text[i % len(reversed_text)] for i in range(n_tokens)]
    finish_reason = "length"
    if state.answer is not None:
        whole = byte_tokens(state.answer)
        tokens, finish_reason = whole[:n_tokens], "stop" if len(whole) <= n_tokens else "length"
    return Job(
        body=body,
        is_chat=is_chat,
        n_prompt_tokens=n_prompt_tokens,
        tokens=tokens,
        finish_reason=finish_reason,
    )


def _output_tokens(state: FakeVllm, body: dict[str, Any], n_prompt_tokens: int) -> int:
    """Return the number of tokens to generate; as in vLLM 0.32, it is at most the room left."""
    limit, room = state.max_model_len, state.max_model_len - n_prompt_tokens
    name = "max_completion_tokens" if "max_completion_tokens" in body else "max_tokens"
    wanted = body.get(name)
    if wanted is not None and wanted > limit:
        raise RequestFaultError(
            f"{name}={wanted} cannot be greater than max_model_len={limit}. "
            f"Please request fewer output tokens. (parameter={name}, value={wanted})",
            param=name,
        )
    if room == 0:
        raise RequestFaultError(
            "max_tokens must be at least 1, got 0. (parameter=max_tokens, value=0)",
            param="max_tokens",
        )
    if room < 0:
        raise RequestFaultError(
            f"This model's maximum context length is {limit} tokens. However, your prompt "
            f"contains at least {n_prompt_tokens} input tokens, which exceeds this limit even "
            "without any output tokens. Please reduce the length of the input prompt. "
            f"(parameter=input_tokens, value={n_prompt_tokens})",
            param="input_tokens",
        )
    return min(room, wanted or 16)


def _prompt_text(prompt: str | list[int]) -> str:
    """Return the prompt of a completions request, which may be a list of token ids."""
    return prompt if isinstance(prompt, str) else token_text(prompt)


def _rendered(messages: list[dict[str, str]]) -> str:
    turns = (_TURN.format(role=turn["role"], content=turn["content"]) for turn in messages)
    return "".join(turns) + "<|assistant|>"
