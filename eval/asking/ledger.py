"""Turn an answer of the front end, with its ledger, into what is recorded of it."""

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson

from eval.questions.prompts import LabelledPrompt
from eval.recorded.attempts import RecordedAttempt, RecordedTier
from eval.recorded.line_file import fault_in
from eval.recorded.measured_run import ServedAnswer
from hybridserve_llm.cascade.prompt_draw import prompt_draw
from hybridserve_llm.confidence.features import FEATURE_NAMES
from hybridserve_llm.confidence.prompt_features import PROMPT_FEATURE_NAMES, prompt_features
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.values.ledger import Attempt
from hybridserve_llm.values.requests import JsonObject


class _ShownLedger(msgspec.Struct, frozen=True, kw_only=True):
    """Hold the field `hybridserve` of a response, as far as it is read."""

    attempts: list[dict[str, Any]]
    tier: str | None = None
    certified: bool | None = None


class _Response(msgspec.Struct, frozen=True, kw_only=True):
    """Hold a response of a front end, as far as it is read."""

    choices: list[dict[str, Any]]
    hybridserve: _ShownLedger


def attempt_of(
    response: object,
    prompt: LabelledPrompt,
    tier: RecordedTier,
    body: JsonObject,
    *,
    request_id: str | None,
) -> RecordedAttempt:
    """Return the attempt of a response to an assessed request, graded; `body` is what was sent.

    `request_id` is the one that the response named.

    Raises:
        CannotBeDone: The response is not one to an assessed request of this version.
    """
    try:
        read = msgspec.convert(response, _Response)
        attempts = read.hybridserve.attempts
        if len(read.choices) != 1 or not attempts:
            raise CannotBeDone(
                f"tier {tier.name!r}: {len(read.choices)} answers and {len(attempts)} attempts in "
                "one response; one of each is needed"
            )
        answer, shown = graded_text(read.choices[0]), attempts[-1]
        values = {key: shown[key] for key in RecordedAttempt.__struct_fields__ if key in shown}
        values |= _asked(prompt, tier, body) | {
            "reason": shown.get("no_score_reason") or shown.get("reason"),
            "answer": answer,
            "correct": prompt.grader(answer),
            "request_id": request_id,
        }
        attempt = msgspec.convert(values, RecordedAttempt)
    except msgspec.ValidationError as exc:
        raise CannotBeDone(
            f"tier {tier.name!r}: the server's answer is not that of an assessed request: "
            f"{fault_in(exc)}"
        ) from exc
    _check_features(attempt)
    return attempt


def failed_attempt(
    prompt: LabelledPrompt, tier: RecordedTier, body: JsonObject, *, reason: str
) -> RecordedAttempt:
    """Return an attempt without an answer, and why there is none."""
    return RecordedAttempt(
        **_asked(prompt, tier, body),
        model=tier.model,
        reason=reason,
        correct=None,
        answer=None,
        answer_key=None,
        score=None,
        features=None,
        output_type=None,
    )


def served_answer(
    response: object, prompt: LabelledPrompt, *, latency_s: float, ttft_s: float | None
) -> ServedAnswer:
    """Return the answer of a response of the cascade, graded.

    Raises:
        CannotBeDone: The response is not one of a HybridServe front end.
    """
    try:
        read = msgspec.convert(response, _Response)
        attempts = msgspec.convert(read.hybridserve.attempts, tuple[Attempt, ...])
        answer = graded_text(read.choices[0])
    except (msgspec.ValidationError, IndexError) as exc:
        raise CannotBeDone(f"the server's answer is not that of a HybridServe: {exc}") from exc
    return ServedAnswer(
        split=prompt.split,
        query_id=prompt.query_id,
        correct=prompt.grader(answer),
        answer=answer,
        fault=None,
        tier=read.hybridserve.tier,
        certified=read.hybridserve.certified,
        latency_s=latency_s,
        ttft_s=ttft_s,
        attempts=attempts,
    )


def failed_answer(prompt: LabelledPrompt, fault: str, *, latency_s: float) -> ServedAnswer:
    """Return what is recorded of a request that failed."""
    return ServedAnswer(
        split=prompt.split,
        query_id=prompt.query_id,
        correct=None,
        answer=None,
        fault=fault,
        tier=None,
        certified=None,
        latency_s=latency_s,
        attempts=(),
    )


def graded_text(choice: Mapping[str, Any]) -> str:
    """Return the text of a choice as it is graded; of tool calls, JSON [[name, arguments], …]."""
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


def _asked(prompt: LabelledPrompt, tier: RecordedTier, body: JsonObject) -> dict[str, Any]:
    """Return what is recorded of an attempt even if it fails: its question and its tier."""
    return {
        "split": prompt.split,
        "query_id": prompt.query_id,
        "group": prompt.group,
        "tier": tier.name,
        "prompt_draw": prompt_draw(body),
        "prompt_features": dict(zip(PROMPT_FEATURE_NAMES, prompt_features(body), strict=True)),
    }


def _check_features(attempt: RecordedAttempt) -> None:
    if attempt.features is not None and attempt.features.keys() != set(FEATURE_NAMES):
        differing = sorted(attempt.features.keys() ^ set(FEATURE_NAMES))
        raise CannotBeDone(
            f"tier {attempt.tier!r}: the server computes features of another version "
            f"({differing[0]!r} is in one of both alone); use its own hs-calibrate"
        )
