"""Asks every tier of a running cascade every labelled prompt, and records the attempts.

Tier by tier, the cheapest first, so that no tier is measured while another one works; within a tier
prompts are asked in the order of their file, a few at a time. Scores, features and the answers'
normal forms come from the server, which computes them as it does when it serves; grades are made
here.
"""

import asyncio
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient
from pydantic import TypeAdapter, ValidationError

from eval.asking.collect_progress import CollectProgress
from eval.asking.first_failure import first_failure
from eval.asking.ledger import attempt_of, failed_attempt
from eval.questions.prompts import LabelledPrompt, PromptSet
from eval.recorded.attempts import RecordedAttempt, RecordedTier
from eval.recorded.attempts_file import AttemptsFile
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.values.requests import Endpoint, JsonObject

MAX_RETRIES = 8
"""Of one request, on 429, 5xx and lost connections: 40 s of waiting, or what Retry-After says."""

_ENDING_STATUSES = frozenset({401, 403, 404, 429, 503})
"""What no other prompt would fare better with, once the retries are used up."""
_FUTILE = 20
PATHS = {Endpoint.CHAT: "/chat/completions", Endpoint.COMPLETIONS: "/completions"}


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeDescription:
    """A running cascade as it tells of itself: tiers, cheapest first, and what it may promise.

    Attributes:
        served_model_name: The model that is the cascade.
        certificate: A summary of it; None without one.
        state: What it may promise now: certified, uncertified or last_tier_only.
        thresholds: The rules that it decides by now.
    """

    tiers: tuple[RecordedTier, ...]
    fingerprint: dict[str, Any] | None
    served_model_name: str
    certificate: dict[str, Any] | None
    state: str | None
    thresholds: list[dict[str, Any]] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tier:
    name: str
    model: str
    active_parameters: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cascade:
    served_model_name: str
    tiers: tuple[_Tier, ...]
    fingerprint: dict[str, Any] | None = None
    certificate: dict[str, Any] | None = None
    state: str | None = None
    thresholds: list[dict[str, Any]] | None = None


_CASCADE = TypeAdapter(_Cascade)


def cascade_client(base_url: str, api_key: str | None, *, max_retries: int) -> AsyncOpenAI:
    """A client of the cascade at `base_url`; close it.

    It never takes a key from the environment by itself: one for another service may be there.
    """
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",
        max_retries=max_retries,
        http_client=DefaultAsyncHttpxClient(event_hooks={"request": [_with_own_id]}),
    )


async def _with_own_id(request: httpx.Request) -> None:
    """Names the request, so that its server's records can be found by `x-request-id`.

    Here and not with the body, since a request that is tried again gets another name: servers add
    the joules of two that have the same one. openai 3 hands over its own fork's request, alike.
    """
    request.headers["x-request-id"] = f"hs-eval-{uuid.uuid4().hex}"


async def describe_cascade(client: AsyncOpenAI) -> CascadeDescription:
    """What the cascade behind `client` tells of itself.

    Raises:
        CannotBeDone: It does not answer, or is no HybridServe front end.
    """
    try:
        body: object = await client.get("/cascade", cast_to=object)
        found = _CASCADE.validate_python(body)
    except openai.NotFoundError as exc:
        raise CannotBeDone(
            f"{client.base_url}cascade is not there: --base-url names a HybridServe front end and "
            "ends in /v1"
        ) from exc
    except openai.APIError as exc:
        raise CannotBeDone(f"{client.base_url}cascade: {_words(exc)}") from exc
    except ValidationError as exc:
        fault = exc.errors()[0]
        raise CannotBeDone(
            f"{client.base_url}cascade does not describe a cascade: "
            f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
        ) from exc
    tiers = tuple(
        RecordedTier(name=t.name, model=t.model, active_parameters=t.active_parameters)
        for t in found.tiers
    )
    return CascadeDescription(
        tiers=tiers,
        fingerprint=found.fingerprint,
        served_model_name=found.served_model_name,
        certificate=found.certificate,
        state=found.state,
        thresholds=found.thresholds,
    )


async def collect(
    client: AsyncOpenAI,
    prompts: PromptSet,
    file: AttemptsFile,
    *,
    chain: Sequence[str],
    concurrency: int,
    progress: CollectProgress,
) -> None:
    """Asks the tiers of `chain` every prompt that they have not answered in `file`.

    Attempts that failed before are made again. Cancelling loses the attempts that are under way and
    no others.

    Raises:
        CannotBeDone: The server went away or refuses, or a tier fails at every prompt; what was
            recorded stays.
    """
    for tier in file.attempts.header.tiers:
        if tier.name in chain:
            await _TierCollection(client, prompts, file, tier, progress).run(concurrency)


class _TierCollection:
    """One tier asked all its prompts."""

    def __init__(
        self,
        client: AsyncOpenAI,
        prompts: PromptSet,
        file: AttemptsFile,
        tier: RecordedTier,
        progress: CollectProgress,
    ) -> None:
        self._client = client
        self._file = file
        self._tier = tier
        self._progress = progress
        self._sampling = file.attempts.header.sampling
        self._n = len(prompts.prompts)
        self._todo = [
            prompt
            for prompt in prompts.prompts
            if not file.attempts.has_answer(prompt.question, tier.name)
        ]
        self._n_answered = self._n - len(self._todo)
        self._n_failed = 0

    async def run(self, concurrency: int) -> None:
        """Asks all, `concurrency` at a time."""
        self._progress.begin(self._tier.name, n=self._n, n_done=self._n_answered)
        waiting = iter(self._todo)
        with first_failure():
            async with asyncio.TaskGroup() as group:
                for _ in range(min(concurrency, len(self._todo))):
                    group.create_task(self._ask_in_turn(waiting))
        self._progress.end()

    async def _ask_in_turn(self, waiting: Iterator[LabelledPrompt]) -> None:
        for prompt in waiting:  # shared by all workers: each takes the next
            attempt = await tier_attempt(self._client, prompt, self._tier, self._sampling)
            self._file.add(attempt)
            self._n_answered += not attempt.has_failed
            self._n_failed += attempt.has_failed
            self._progress.advance(attempt)
            if not self._n_answered and self._n_failed >= min(_FUTILE, self._n):
                raise CannotBeDone(
                    f"tier {self._tier.name!r} failed at each of the first {self._n_failed} "
                    f"prompts: {attempt.reason}"
                )


async def tier_attempt(
    client: AsyncOpenAI, prompt: LabelledPrompt, tier: RecordedTier, sampling: JsonObject
) -> RecordedAttempt:
    """One tier's answer to one prompt, assessed and graded; a failed one tells why it failed.

    Raises:
        CannotBeDone: The server went away or refuses.
    """
    body = prompt.body(sampling)
    try:
        response = await client.post(
            PATHS[prompt.endpoint],
            cast_to=httpx.Response,
            body={**body, "model": tier.name, "hybridserve": {"assess": True}},
        )
    except openai.APIError as exc:
        return failed_attempt(prompt, tier, body, reason=words_of_fault(client, tier.name, exc))
    # A grader that runs code waits for it, and other answers come meanwhile.
    return await asyncio.to_thread(
        attempt_of,
        _json_in(response),
        prompt,
        tier,
        body,
        request_id=response.headers.get("x-request-id"),
    )


def _json_in(response: httpx.Response) -> object:
    """The decoded body; its text where it is no JSON, which is no answer of a front end then."""
    try:
        return response.json()
    except ValueError:
        return response.text


def words_of_fault(client: AsyncOpenAI, asked: str, error: openai.APIError) -> str:
    """Why one request failed, where another may fare better.

    Raises:
        CannotBeDone: No other one would: the server is gone or refuses whom was `asked`.
    """
    if isinstance(error, openai.APITimeoutError):
        return _words(error)
    if isinstance(error, openai.APIConnectionError):
        raise CannotBeDone(f"{client.base_url}: {_words(error)}") from error
    if isinstance(error, openai.APIStatusError) and error.status_code in _ENDING_STATUSES:
        raise CannotBeDone(f"tier {asked!r}: {_words(error)}") from error
    return _words(error)


def _words(error: openai.APIError) -> str:
    """What went wrong, with the server's own words where it said some."""
    cause = error.__cause__
    if isinstance(error, openai.APIConnectionError):
        return f"{error.message} ({cause or 'no details'})"
    said = error.body.get("message") if isinstance(error.body, dict) else None
    status = f"HTTP {error.status_code}: " if isinstance(error, openai.APIStatusError) else ""
    return f"{status}{said or error.message}"
