"""Ask one running vLLM server over its OpenAI API, on TCP or on a unix socket.

`vllm_wire` knows what the JSON means, `vllm_errors` what an error means, and `replica_set` chooses
among replicas. A request that is cancelled closes its connection, at which vLLM aborts the work;
`tests/contract` proves that on a real engine.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import orjson

from hybridserve_llm.engines.connections import Connections
from hybridserve_llm.engines.rescoring import (
    needs_rescoring,
    rescored,
    rescoring_body,
    unscorable,
    written_tokens,
)
from hybridserve_llm.engines.sse_lines import SseParser
from hybridserve_llm.engines.vllm_errors import (
    error_in,
    error_of_object,
    http_error,
    transport_errors,
)
from hybridserve_llm.engines.vllm_wire import (
    chunk_of,
    completion_of,
    counted_usage,
    decoded_object,
    request_body,
)
from hybridserve_llm.errors import (
    DeadlineExceeded,
    EngineFailed,
    EngineUnavailable,
    RequestError,
    ServingError,
)
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.values.answers import Chunk, Completion
from hybridserve_llm.values.ends import Ends
from hybridserve_llm.values.engines import EngineInfo
from hybridserve_llm.values.requests import Endpoint, EngineRequest

log = logging.getLogger(__name__)

_T = TypeVar("_T")

_DONE = b"[DONE]"


class VllmHttpEngine:
    """Use one vLLM server as an `interfaces.Engine`.

    Connections are made on first use (or by `open`), without a limit on their number, and are
    closed by `aclose`. The client belongs to the event loop that first used it.
    """

    def __init__(
        self,
        address: str,
        *,
        model: str,
        clock: Clock,
        name: str | None = None,
        api_key: str | None = None,
        connect_timeout_s: float = 5.0,
        probe_timeout_s: float = 5.0,
    ) -> None:
        """Remember the server's address and settings; connect to nothing.

        Args:
            address: `http(s)://host:port`, with a path prefix if there is one (a final `/v1` is
                taken as part of the API's paths), or `unix:/path/to/socket`.
            model: Name under which the server serves the model.
            clock: The clock that a request's deadline is compared with.
            name: Names the engine in errors, which clients may read; the address by default.
            api_key: Sent as bearer token.
            connect_timeout_s: Seconds until a connection must stand.
            probe_timeout_s: Seconds within which health, model list and tokenizer must answer.

        Raises:
            ValueError: The address has none of these forms.
        """
        if not address.startswith(("http://", "https://", "unix:/")):
            raise ValueError(
                f"engine address {address!r} must be http(s)://host:port or unix:/path/to/socket"
            )
        self.name = name or address
        self.model = model
        self._socket_path = address.removeprefix("unix:") if address.startswith("unix:") else None
        # The host of a request over a unix socket is not looked at.
        url = "http://localhost" if self._socket_path else address
        self._url = url.rstrip("/").removesuffix("/v1").rstrip("/")
        self._clock = clock
        headers = {"content-type": "application/json"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._probe_timeout_s = probe_timeout_s
        self._connections = Connections(
            socket_path=self._socket_path, headers=headers, connect_timeout_s=connect_timeout_s
        )
        self._is_closed = False

    async def open(self) -> None:
        """Make the connection pool inside the running loop; not needed before a request.

        Raises:
            EngineUnavailable: The engine's client was closed before.
        """
        self._open()

    async def aclose(self) -> None:
        """Close every connection, which aborts all that still runs; may be called again."""
        self._is_closed = True
        await self._connections.aclose()

    async def complete(self, request: EngineRequest) -> Completion:
        """Return the whole answer; cancelling closes the connection.

        Raises:
            ContextLengthExceeded: Prompt, or prompt and wanted output, are longer than the engine
                holds.
            InvalidRequest: The engine finds the request at fault.
            DeadlineExceeded: The request's deadline passed.
            EngineUnavailable: There is no connection, it broke, or the status is 429 or 503.
            EngineFailed: Any other error status, an answer of the wrong shape, or one that the
                engine gave up.
        """
        answer = await self._answer(request, await self._post(request, stream=False))
        completion = completion_of(answer, request.request.endpoint, engine=self.name)
        if not needs_rescoring(request, completion):
            return completion
        return await self._rescored(request, completion)

    async def _rescored(self, request: EngineRequest, completion: Completion) -> Completion:
        """Return the completion with log-probabilities that no constraint has touched.

        An engine that cannot give them makes the answer one without a score.
        """
        written = written_tokens(request, completion)
        if written is None:
            return unscorable(completion)
        body = rescoring_body(request, written, model=self.model)
        try:
            response = await self._send(request, Endpoint.COMPLETIONS, body)
            scores = await self._answer(request, response)
        except (RequestError, EngineFailed) as exc:
            log.debug("engine %s cannot score without a constraint: %s", self.name, exc)
            return unscorable(completion)
        return rescored(completion, written, scores, counted_usage(scores))

    async def _answer(
        self, request: EngineRequest, response: aiohttp.ClientResponse
    ) -> dict[str, Any]:
        """Return the JSON of a whole answer."""
        try:
            content = await self._read(request, response.read)
        finally:
            # Read to its end, the connection is back in the pool already and stays open.
            response.close()
        if response.status != 200:
            raise http_error(self.name, response.status, content, response.headers)
        return self._answer_in(content)

    async def stream(self, request: EngineRequest) -> AsyncGenerator[Chunk]:
        """Yield the answer's chunks as they come; closing the generator closes the connection.

        Raises:
            ContextLengthExceeded: As in `complete`; so are the next four.
            InvalidRequest: As in `complete`.
            DeadlineExceeded: The deadline passed, be it between two chunks.
            EngineUnavailable: As in `complete`.
            EngineFailed: As in `complete`, or the stream ended before its `[DONE]`, or at it with a
                choice that had not ended.
        """
        ends = Ends(self.name)
        response = await self._post(request, stream=True)
        try:
            if response.status != 200:
                content = await self._read(request, response.read)
                raise http_error(self.name, response.status, content, response.headers)
            parser = SseParser()
            while received := await self._read(request, response.content.readany):
                for data in parser.feed(received):
                    if data == _DONE:
                        ends.close()
                        return
                    chunk = chunk_of(self._answer_in(data), engine=self.name)
                    ends.saw(chunk.finish_reasons)
                    yield chunk
            raise EngineFailed(f"engine {self.name} ended its stream before [DONE]")
        finally:
            response.close()

    async def check_health(self) -> bool:
        """Return True where the server answers and is healthy; never raise an error of ours.

        A server without a `/health` of its own (404) counts as healthy, since it answers.
        """
        try:
            status, _ = await self._probe("GET", "/health")
        except ServingError as exc:
            log.debug("engine %s is not healthy: %s", self.name, exc)
            return False
        return status in (200, 404)

    async def describe(self) -> EngineInfo:
        """Return the model's name and its maximum length, as the server reports them.

        Raises:
            EngineFailed: It does not serve the model, or answers with an error.
            EngineUnavailable: No connection, or a broken one.
            DeadlineExceeded: No answer within the probe's time.
        """
        status, content = await self._probe("GET", "/v1/models")
        if status != 200:
            raise http_error(self.name, status, content)
        models = decoded_object(content, engine=self.name).get("data")
        by_id = {
            model.get("id"): model
            for model in (models if isinstance(models, list) else ())
            if isinstance(model, dict)
        }
        if self.model not in by_id:
            raise EngineFailed(
                f"engine {self.name} does not serve model {self.model!r}; "
                f"it serves: {', '.join(map(str, by_id)) or 'none'}"
            )
        max_model_len = by_id[self.model].get("max_model_len")
        return EngineInfo(
            model=self.model,
            max_model_len=max_model_len if isinstance(max_model_len, int) else None,
        )

    async def version(self) -> str | None:
        """Return the engine's version, from `/version`; None where the server sends none.

        Raises:
            EngineUnavailable: No connection, or a broken one.
            DeadlineExceeded: No answer within the probe's time.
        """
        status, content = await self._probe("GET", "/version")
        if status != 200:
            return None
        found = decoded_object(content, engine=self.name).get("version")
        return found if isinstance(found, str) else None

    async def token_id_of(self, text: str) -> int | None:
        """Return the id of `text` where it is exactly one token; None where it is not.

        None also where the server has no `/tokenize`.

        Raises:
            EngineFailed: The server answers with an error.
            EngineUnavailable: No connection, or a broken one.
            DeadlineExceeded: No answer within the probe's time.
        """
        tokens = await self.token_ids_of(text)
        return tokens[0] if tokens is not None and len(tokens) == 1 else None

    async def token_ids_of(self, text: str) -> tuple[int, ...] | None:
        """Return the ids of `text` without special tokens; None where `/tokenize` does not exist.

        Raises:
            EngineFailed: The server answers with an error.
            EngineUnavailable: No connection, or a broken one.
            DeadlineExceeded: No answer within the probe's time.
        """
        wanted = {"model": self.model, "prompt": text, "add_special_tokens": False}
        status, content = await self._probe("POST", "/tokenize", orjson.dumps(wanted))
        if status == 404:
            return None
        if status != 200:
            raise http_error(self.name, status, content)
        tokens = decoded_object(content, engine=self.name).get("tokens")
        if not isinstance(tokens, list):
            raise EngineFailed(f"engine {self.name} sent no tokens from /tokenize")
        return tuple(tokens)

    async def metrics(self) -> str:
        """Return the engine's metrics, in Prometheus' text format.

        Raises:
            EngineFailed: The server answers with an error.
            EngineUnavailable: No connection, or a broken one.
            DeadlineExceeded: No answer within the probe's time.
        """
        status, content = await self._probe("GET", "/metrics")
        if status != 200:
            raise http_error(self.name, status, content)
        return content.decode(errors="replace")

    def _open(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise EngineUnavailable(f"the client of engine {self.name} is closed")
        return self._connections.session

    async def _post(self, request: EngineRequest, *, stream: bool) -> aiohttp.ClientResponse:
        """Return the response's head, which the caller closes. Cancelling closes the connection."""
        body = request_body(request, model=self.model, stream=stream)
        return await self._send(request, request.request.endpoint, body)

    async def _send(
        self, request: EngineRequest, endpoint: Endpoint, body: bytes
    ) -> aiohttp.ClientResponse:
        url = self._url + endpoint
        headers = {"x-request-id": request.request.request_id, **(request.request.trace or {})}
        self._open()
        return await self._read(
            request, lambda: self._connections.post(url, data=body, headers=headers)
        )

    async def _read(self, request: EngineRequest, read: Callable[[], Awaitable[_T]]) -> _T:
        """Return the result of `read`; raise DeadlineExceeded if the deadline comes first.

        The deadline stands around each wait and never across a yield of `stream`. If it expired
        while the consumer holds the generator, it would cancel the consumer's own work.
        """
        left_s = self._left_s(request)
        with transport_errors(self.name):
            async with asyncio.timeout(left_s):
                return await read()

    def _answer_in(self, content: bytes) -> dict[str, Any]:
        """Return the JSON of an answer or of a piece of it; raise the error that it holds."""
        body = decoded_object(content, engine=self.name)
        error = error_in(body)
        if error is not None:
            raise error_of_object(self.name, error)
        return body

    def _left_s(self, request: EngineRequest) -> float | None:
        """Return the seconds until the deadline; None without one."""
        deadline_s = request.deadline_s
        if deadline_s is None:
            return None
        left_s = deadline_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise DeadlineExceeded(f"the deadline passed before engine {self.name} answered")
        return left_s

    async def _probe(self, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
        arguments: dict[str, Any] = {} if body is None else {"data": body}
        session = self._open()
        with transport_errors(self.name):
            async with (
                asyncio.timeout(self._probe_timeout_s),
                session.request(method, self._url + path, **arguments) as response,
            ):
                return response.status, await response.read()
