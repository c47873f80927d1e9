"""An engine that answers from a script, for tests of everything above `engines/`."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hybridserve_llm.engines.vllm_wire import chunk_of, completion_of
from hybridserve_llm.errors import HybridServeError
from hybridserve_llm.testing.bodies import chat_body, completion_body
from hybridserve_llm.values.answers import Chunk, Completion
from hybridserve_llm.values.requests import Endpoint, EngineRequest, JsonObject

Reply = str | Completion | HybridServeError
"""What the script says: a text (every token's log-probability is -0.1), an answer, or an error."""
Script = Reply | Mapping[str, Reply] | Callable[[EngineRequest], Reply]


def prompt_of(request: EngineRequest) -> str:
    """The text of the last message, or the prompt of a completions request."""
    payload = request.request.payload
    if request.request.endpoint is Endpoint.COMPLETIONS:
        return str(payload["prompt"])
    return str(payload["messages"][-1]["content"])


def scripted_answer(
    text: str,
    *,
    logprobs: Sequence[float | None] | None = (-0.1, -0.1),
    endpoint: Endpoint = Endpoint.CHAT,
    **parts: Any,
) -> Completion:
    """An answer decoded from a body as vLLM sends it; `parts` go to `chat_body`."""
    make_body = chat_body if endpoint is Endpoint.CHAT else completion_body
    return completion_of(make_body(text, logprobs=logprobs, **parts), endpoint, engine="fake")


class FakeEngine:
    """A scripted `interfaces.Engine`, usable as a replica of a `ReplicaSet` too.

    Attributes:
        requests: Every request seen, in order.
        is_healthy: What `check_health` says; None makes it wait until cancelled.
        gate: While set and not yet fired, answers wait for it: whole answers at once, streams
            after `n_chunks_before_gate` chunks.
        is_waiting: Fired when a request has reached the gate.
        n_running: Requests inside the engine now.
        n_cancelled: Requests that were cancelled, or streams closed before their end.
        error_after_chunks: Streams raise this error after `n_chunks_before_gate` chunks.
    """

    def __init__(
        self,
        script: Script = "42",
        *,
        is_healthy: bool | None = True,
        gate: asyncio.Event | None = None,
        n_chunks_before_gate: int = 0,
        error_after_chunks: HybridServeError | None = None,
    ) -> None:
        """Answers from `script`: one reply to all, one per prompt (KeyError if none), or a call."""
        self.script = script
        self.is_healthy = is_healthy
        self.gate = gate
        self.n_chunks_before_gate = n_chunks_before_gate
        self.error_after_chunks = error_after_chunks
        self.requests: list[EngineRequest] = []
        self.is_waiting = asyncio.Event()
        self.n_running = 0
        self.n_cancelled = 0

    async def complete(self, request: EngineRequest) -> Completion:
        """The scripted answer, after the gate.

        Raises:
            HybridServeError: The script says so.
        """
        with self._running(request):
            await self._pass_gate()
            return self._reply(request)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """The scripted answer, one chunk per character of its text; the usage comes last.

        Raises:
            HybridServeError: The script says so, or `error_after_chunks` does.
        """
        with self._running(request):
            chunks = list(_stream_bodies(self._reply(request), request.request.endpoint))
            for i, body in enumerate(chunks):
                if i == self.n_chunks_before_gate:
                    await self._pass_gate()
                    if self.error_after_chunks is not None:
                        raise self.error_after_chunks
                yield chunk_of(body, engine="fake")

    async def check_health(self) -> bool:
        """What `is_healthy` says."""
        if self.is_healthy is None:
            await asyncio.Event().wait()
        return bool(self.is_healthy)

    async def _pass_gate(self) -> None:
        if self.gate is not None:
            self.is_waiting.set()
            await self.gate.wait()

    def _reply(self, request: EngineRequest) -> Completion:
        script = self.script
        if isinstance(script, Mapping):
            script = script[prompt_of(request)]
        elif callable(script):
            script = script(request)
        if isinstance(script, HybridServeError):
            raise script
        if isinstance(script, str):
            endpoint = request.request.endpoint
            return scripted_answer(script, logprobs=[-0.1] * len(script), endpoint=endpoint)
        return script

    @contextmanager
    def _running(self, request: EngineRequest) -> Iterator[None]:
        self.requests.append(request)
        self.n_running += 1
        try:
            yield
        except (asyncio.CancelledError, GeneratorExit):
            self.n_cancelled += 1
            raise
        finally:
            self.n_running -= 1


def _stream_bodies(completion: Completion, endpoint: Endpoint) -> Iterator[JsonObject]:
    answer, body = completion.answers[0], completion.body
    frame = {key: body[key] for key in ("id", "created", "model")}
    frame["object"] = "chat.completion.chunk" if endpoint is Endpoint.CHAT else "text_completion"
    for i, character in enumerate(answer.text):
        choice: dict[str, Any] = {"index": 0, "logprobs": None, "finish_reason": None}
        if i == len(answer.text) - 1:
            choice["finish_reason"] = answer.finish_reason
        if endpoint is Endpoint.CHAT:
            choice["delta"] = {"content": character}
        else:
            choice["text"] = character
        yield {**frame, "choices": [choice]}
    yield {**frame, "choices": [], "usage": body.get("usage")}
