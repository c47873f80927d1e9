"""Labels for the watch: some accepted answers are asked of the last tier again, in the background.

    accepted answer ── sampler: picked? ── submit ──> queue ──> consumer ── last tier ── agrees?
                          │ no               │ full                │ error, no verdict
                          └ nothing          └ dropped             └ failed, cannot tell

The draw looks at a random generator and at past traffic, never at the answer, and is made before
anybody knows whether the answer is right. Which of the drawn are dropped depends on how much is
waiting, so on load and not on the answer at hand. What fails may depend on it: a long answer runs
into the time limit more easily. Such gaps are counted and reported, and never become a loss.
"""

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from hybridserve_llm.errors import HybridServeError
from hybridserve_llm.interfaces import Clock, Engine
from hybridserve_llm.values.answers import Completion, ToolCall, Usage
from hybridserve_llm.values.requests import EngineRequest, GenerateRequest, Overrides
from hybridserve_llm.watch.settings import ShadowSettings

log = logging.getLogger(__name__)

Agrees = Callable[[GenerateRequest, str, str], bool | None]
"""Whether two answers to a request agree: the accepted one and the last tier's.

None: it cannot tell. Called in the event loop, so it has to be quick.
"""


class ShadowOutcome(StrEnum):
    """What became of an answer that was drawn."""

    AGREED = "agreed"
    DISAGREED = "disagreed"
    CANNOT_TELL = "cannot_tell"
    FAILED = "failed"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowJob:
    """An accepted answer to compare; `text` is None where it is not one text (several choices).

    `stage` numbers the policy under which it was accepted: see `watch/control.py`.
    """

    request: GenerateRequest
    tier: str
    text: str | None
    stage: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ShadowResult:
    """The outcome of a job, and what the last tier reported of its tokens."""

    job: ShadowJob
    outcome: ShadowOutcome
    usage: Usage = field(default_factory=Usage)


class ShadowWorker:
    """Asks the last tier in the background and tells `on_result` what became of every job.

    Results come as answers arrive: two that overlap may swap places, none waits for another.
    """

    def __init__(
        self,
        *,
        last_tier: Engine,
        agrees: Agrees,
        on_result: Callable[[ShadowResult], None],
        clock: Clock,
        settings: ShadowSettings,
    ) -> None:
        self._last_tier = last_tier
        self._agrees = agrees
        self._on_result = on_result
        self._clock = clock
        self._settings = settings
        self._queue: asyncio.Queue[ShadowJob] = asyncio.Queue(settings.queue_size)

    def submit(self, job: ShadowJob) -> None:
        """Queues the job, or reports it as dropped at once when the queue is full; O(1)."""
        try:
            self._queue.put_nowait(job)
        except asyncio.QueueFull:
            self._report(job, ShadowOutcome.DROPPED)

    async def run(self) -> None:
        """Works until cancelled; then aborts what is under way and drops what waits."""
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._settings.concurrency):
                    group.create_task(self._consume())
        finally:
            while not self._queue.empty():
                self._report(self._queue.get_nowait(), ShadowOutcome.DROPPED)

    async def _consume(self) -> None:
        while True:
            job = await self._queue.get()
            try:
                # Not a broad except: a fault of the injected `agrees` must not end the server, nor
                # pass in silence. It is logged with its traceback and counted as failed.
                (result,) = await asyncio.gather(self._compare(job), return_exceptions=True)
            except asyncio.CancelledError:
                self._report(job, ShadowOutcome.DROPPED)
                raise
            if isinstance(result, ShadowResult):
                self._on_result(result)
                continue
            if isinstance(result, HybridServeError):
                log.info("shadow of %s failed: %s", job.request.request_id, result)
            else:
                log.error("shadow of %s failed", job.request.request_id, exc_info=result)
            self._report(job, ShadowOutcome.FAILED)

    async def _compare(self, job: ShadowJob) -> ShadowResult:
        if job.text is None:
            return ShadowResult(job=job, outcome=ShadowOutcome.CANNOT_TELL)
        request = self._shadow_of(job.request)
        completion = await self._last_tier.complete(
            EngineRequest(request=request, top_logprobs=None)
        )
        text = answer_text(completion)
        verdict = None if text is None else self._agrees(job.request, job.text, text)
        outcome = ShadowOutcome.CANNOT_TELL
        if verdict is not None:
            outcome = ShadowOutcome.AGREED if verdict else ShadowOutcome.DISAGREED
        return ShadowResult(job=job, outcome=outcome, usage=completion.usage)

    def _shadow_of(self, request: GenerateRequest) -> GenerateRequest:
        payload = dict(request.payload)
        if self._settings.priority is not None:
            payload["priority"] = self._settings.priority
        return replace(
            request,
            request_id=f"{request.request_id}-shadow",
            is_shadow=True,
            payload=payload,
            stream=False,
            include_usage=False,
            client_top_logprobs=None,
            overrides=Overrides(),
            deadline_s=self._clock.monotonic_s() + self._settings.timeout_s,
        )

    def _report(self, job: ShadowJob, outcome: ShadowOutcome) -> None:
        self._on_result(ShadowResult(job=job, outcome=outcome))


def answer_text(completion: Completion) -> str | None:
    """The completion's answer as one text; None where it holds several choices or none.

    Of tool calls it is the calls alone, a line each, with their arguments' keys sorted: so two
    answers that call the same tool with the same values are the same text, as they agree in
    calibration (`confidence/agreement.py`).
    """
    if len(completion.answers) != 1:
        return None
    answer = completion.answers[0]
    if not answer.tool_calls:
        return answer.text
    return "\n".join(map(_tool_call_line, answer.tool_calls))


def _tool_call_line(call: ToolCall) -> str:
    try:
        arguments = json.loads(call.arguments)
    except (ValueError, RecursionError):  # no JSON, or too deep: compared as it was written
        arguments = call.arguments
    return json.dumps({"name": call.name, "arguments": arguments}, sort_keys=True)
