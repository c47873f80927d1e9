"""Ask every tier of a running cascade every labelled prompt, and record the attempts.

Tier by tier, the cheapest first, so that no tier is measured while another one works; within a tier
prompts are asked in the order of their file, a few at a time. Scores, features and the answers'
normal forms come from the server, which computes them as it does when it serves; grades are made
here.
"""

import asyncio
import uuid
from collections.abc import Sequence
from typing import Any

import httpx
import msgspec
import openai
from openai import AsyncOpenAI, DefaultAsyncHttpxClient

from eval.asking.collect_progress import CollectProgress
from eval.asking.in_turn import in_turn
from eval.asking.ledger import attempt_of, failed_attempt
from eval.questions.prompts import LabelledPrompt, PromptSet
from eval.recorded.attempts import AttemptsFile, RecordedAttempt, RecordedTier
from eval.recorded.line_file import fault_in
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.values.requests import Endpoint, JsonObject

MAX_RETRIES = 8
"""Of one request, on 429, 5xx and lost connections: 40 s of waiting, or as Retry-After says."""

_ENDING_STATUSES = frozenset({401, 403, 404, 429, 503})
"""Statuses that every other prompt would get too, once the retries are used up."""
_FUTILE = 20
PATHS = {Endpoint.CHAT: "/chat/completions", Endpoint.COMPLETIONS: "/completions"}


class CascadeDescription(msgspec.Struct, frozen=True, kw_only=True):
    """Hold what a running cascade says of itself: tiers, cheapest first, and what it may promise.

    Attributes:
        served_model_name: The model that is the cascade.
        certificate: A summary of it; None without one.
        state: What it may promise now: certified, uncertified or last_tier_only.
        thresholds: The rules that it decides by now.
    """

    served_model_name: str
    tiers: tuple[RecordedTier, ...]
    fingerprint: dict[str, Any] | None = None
    certificate: dict[str, Any] | None = None
    state: str | None = None
    thresholds: list[dict[str, Any]] | None = None


def cascade_client(base_url: str, api_key: str | None, *, max_retries: int) -> AsyncOpenAI:
    """Return a client of the cascade at `base_url`; the caller closes it.

    It never takes a key from the environment by itself: one for another service may be there.
    """
    return AsyncOpenAI(
        base_url=base_url,
        api_key=api_key or "none",
        max_retries=max_retries,
        http_client=DefaultAsyncHttpxClient(event_hooks={"request": [_with_own_id]}),
    )


async def _with_own_id(request: httpx.Request) -> None:
    """Name the request, so that its server's records can be found by `x-request-id`.

    Here and not with the body, since a request that is tried again gets another name: servers add
    the joules of two that have the same one. openai 3 hands over its own fork's request, alike.
    """
    request.headers["x-request-id"] = f"hs-eval-{uuid.uuid4().hex}"


async def describe_cascade(client: AsyncOpenAI) -> CascadeDescription:
    """Return what the cascade behind `client` says of itself.

    Raises:
        CannotBeDone: It does not answer, or is no HybridServe front end.
    """
    try:
        body: object = await client.get("/cascade", cast_to=object)
        return msgspec.convert(body, CascadeDescription)
    except openai.NotFoundError as exc:
        raise CannotBeDone(
            f"{client.base_url}cascade does not exist: --base-url must name a HybridServe front "
            "end, and end in /v1"
        ) from exc
    except openai.APIError as exc:
        raise CannotBeDone(f"{client.base_url}cascade: {_words(exc)}") from exc
    except msgspec.ValidationError as exc:
        raise CannotBeDone(
            f"{client.base_url}cascade does not describe a cascade: {fault_in(exc)}"
        ) from exc


async def collect(
    client: AsyncOpenAI,
    prompts: PromptSet,
    file: AttemptsFile,
    *,
    chain: Sequence[str],
    concurrency: int,
    progress: CollectProgress,
) -> None:
    """Ask the tiers of `chain` every prompt that they have not answered in `file`.

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
    """Ask one tier all its prompts."""

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
        """Ask all, `concurrency` at a time."""
        self._progress.begin(self._tier.name, n=self._n, n_done=self._n_answered)
        await in_turn(self._todo, self._ask, concurrency=concurrency)
        self._progress.end()

    async def _ask(self, prompt: LabelledPrompt) -> None:
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
    """Return one tier's attempt at one prompt, assessed and graded; a failed one says why.

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
    """Return the decoded body, or its text where it is no JSON and so no front end's answer."""
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return response.text


def words_of_fault(client: AsyncOpenAI, asked: str, error: openai.APIError) -> str:
    """Return why one request failed, where another may fare better.

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
    """Return what went wrong, in the server's own words where it gave some."""
    cause = error.__cause__
    if isinstance(error, openai.APIConnectionError):
        return f"{error.message} ({cause or 'no details'})"
    said = error.body.get("message") if isinstance(error.body, dict) else None
    status = f"HTTP {error.status_code}: " if isinstance(error, openai.APIStatusError) else ""
    return f"{status}{said or error.message}"
