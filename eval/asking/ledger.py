"""From a tier's answer, as the front end sent it, to the attempt that is recorded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import TypeAdapter, ValidationError

from eval.questions.prompts import LabelledPrompt
from eval.recorded.attempts import Amount, Count, Number, RecordedAttempt, RecordedTier, Score
from hybridserve_llm.cascade.prompt_draw import prompt_draw
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES, prompt_features
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.values.requests import JsonObject


@dataclass(frozen=True, slots=True, kw_only=True)
class _Assessed:
    """The last attempt of the ledger of a request with `assess`; other fields are not read."""

    model: str
    score: Score | None
    reason: str | None
    features: dict[str, Number | None] | None
    output_type: str | None
    answer_key: str | None
    prompt_tokens: Count | None
    cached_tokens: Count | None
    completion_tokens: Count | None
    latency_s: Amount | None
    energy_j: Amount | None
    energy_source: str | None
    no_score_reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ledger:
    attempts: list[_Assessed]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Body:
    choices: list[dict[str, Any]]
    hybridserve: _Ledger


_BODY = TypeAdapter(_Body)


def attempt_of(
    response: object,
    prompt: LabelledPrompt,
    tier: RecordedTier,
    body: JsonObject,
    *,
    request_id: str | None,
) -> RecordedAttempt:
    """The attempt that a response tells of, graded; `body` is what was sent.

    `request_id` is the one that the response named.

    Raises:
        CannotBeDone: The response is not one to an assessed request of this version.
    """
    try:
        read = _BODY.validate_python(response)
    except ValidationError as exc:
        fault = exc.errors()[0]
        raise CannotBeDone(
            f"tier {tier.name!r}: the server's answer is not that of an assessed request: "
            f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}"
        ) from exc
    if len(read.choices) != 1 or not read.hybridserve.attempts:
        raise CannotBeDone(
            f"tier {tier.name!r}: {len(read.choices)} answers and "
            f"{len(read.hybridserve.attempts)} attempts in one response; one of each is needed"
        )
    found = read.hybridserve.attempts[-1]
    _check_features(found, tier)
    answer = answer_text(read.choices[0])
    return RecordedAttempt(
        **_frame(prompt, tier, body) | {"model": found.model},
        correct=prompt.grader(answer),
        answer=answer,
        answer_key=found.answer_key,
        score=found.score,
        reason=found.no_score_reason or found.reason,
        features=found.features,
        output_type=found.output_type,
        prompt_tokens=found.prompt_tokens,
        cached_tokens=found.cached_tokens,
        completion_tokens=found.completion_tokens,
        latency_s=found.latency_s,
        energy_j=found.energy_j,
        energy_source=found.energy_source,
        request_id=request_id,
    )


def failed_attempt(
    prompt: LabelledPrompt, tier: RecordedTier, body: JsonObject, *, reason: str
) -> RecordedAttempt:
    """An attempt without an answer, and why."""
    return RecordedAttempt(
        **_frame(prompt, tier, body),
        correct=None,
        answer=None,
        answer_key=None,
        score=None,
        reason=reason,
        features=None,
        output_type=None,
        prompt_tokens=None,
        cached_tokens=None,
        completion_tokens=None,
        latency_s=None,
        energy_j=None,
        energy_source=None,
    )


def answer_text(choice: Mapping[str, Any]) -> str:
    """What is graded: the text of the choice, or of tool calls the JSON [[name, arguments], …]."""
    message = choice.get("message")
    if not isinstance(message, Mapping):
        return str(choice.get("text") or "")
    calls = [call.get("function") or {} for call in message.get("tool_calls") or ()]
    if calls:
        pairs = [[call.get("name"), _arguments(call.get("arguments"))] for call in calls]
        return orjson.dumps(pairs).decode()
    return str(message.get("content") or "")


def _arguments(text: object) -> object:
    try:
        return orjson.loads(text) if isinstance(text, str) else text
    except orjson.JSONDecodeError:  # compared as it was written
        return text


def _frame(prompt: LabelledPrompt, tier: RecordedTier, body: JsonObject) -> dict[str, Any]:
    """What an attempt holds whatever came of it."""
    return {
        "split": prompt.split,
        "query_id": prompt.query_id,
        "group": prompt.group,
        "tier": tier.name,
        "model": tier.model,
        "prompt_draw": prompt_draw(body),
        "prompt_features": dict(zip(PROMPT_FEATURE_NAMES, prompt_features(body), strict=True)),
    }


def _check_features(found: _Assessed, tier: RecordedTier) -> None:
    if found.features is not None and found.features.keys() != set(FEATURE_NAMES):
        differing = sorted(found.features.keys() ^ set(FEATURE_NAMES))
        raise CannotBeDone(
            f"tier {tier.name!r}: the server computes features of another version "
            f"({differing[0]!r} is in one of both alone); use its own hs-calibrate"
        )
