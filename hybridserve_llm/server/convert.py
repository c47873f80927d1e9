"""Turn an accepted answer and its ledger into the JSON that the client gets."""

from typing import Any

from hybridserve_llm.values.ledger import Attempt, Ledger, Outcome
from hybridserve_llm.values.requests import GenerateRequest, JsonObject

_TOTALLED = ("prompt_tokens", "cached_tokens", "completion_tokens", "latency_s", "energy_j")
_INTERNAL_FIELDS = frozenset({"token_ids", "prompt_token_ids"})
"""Fields that we ask engines for: next to the choices in a chat, inside them in completions."""


def to_response(outcome: Outcome, request: GenerateRequest) -> dict[str, Any]:
    """Return the response body: the accepted answer as its engine wrote it, and the ledger."""
    sent = outcome.completion.body
    body = {key: value for key, value in sent.items() if key not in _INTERNAL_FIELDS}
    body["model"] = outcome.ledger.model
    body["choices"] = [trimmed_choice(choice, request) for choice in body.get("choices", ())]
    body["hybridserve"] = ledger_json(outcome.ledger)
    return body


def trimmed_choice(choice: JsonObject, request: GenerateRequest) -> dict[str, Any]:
    """Return the choice with the log-probabilities that the client asked for, and no more.

    The scorer may have asked the engine for more. A client that wanted none gets none, and one that
    wanted k gets the first k alternatives.
    """
    trimmed = {key: value for key, value in choice.items() if key not in _INTERNAL_FIELDS}
    wanted = request.client_top_logprobs
    if wanted is None:
        if "logprobs" in trimmed:
            trimmed["logprobs"] = None
        return trimmed
    logprobs = trimmed.get("logprobs")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        content = [
            {**token, "top_logprobs": (token.get("top_logprobs") or [])[:wanted]}
            for token in logprobs["content"]
        ]
        trimmed["logprobs"] = {**logprobs, "content": content}
    return trimmed


def ledger_json(ledger: Ledger) -> dict[str, Any]:
    """Return the ledger as the body field `hybridserve` shows it; absent is null."""
    return {
        "tier": ledger.tier,
        "confidence": ledger.confidence,
        "certified": ledger.certified,
        "attempts": [_attempt_json(attempt) for attempt in ledger.attempts],
        "totals": {name: _total(ledger, name) for name in _TOTALLED},
        "energy_settled": False,
        "energy_reason": ledger.energy_reason,
    }


def _attempt_json(attempt: Attempt) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "tier": attempt.tier,
        "model": attempt.model,
        "decision": attempt.decision.value,
        "reason": attempt.reason,
        "score": attempt.score,
        "confidence": attempt.confidence,
        "risk": attempt.risk,
        "prompt_tokens": attempt.prompt_tokens,
        "cached_tokens": attempt.cached_tokens,
        "completion_tokens": attempt.completion_tokens,
        "ttft_s": attempt.ttft_s,
        "latency_s": attempt.latency_s,
        "energy_j": attempt.energy_j,
        "energy_source": attempt.energy_source,
    }
    known = attempt.assessment
    if known is not None:
        shown |= {
            "no_score_reason": known.reason,
            "features": None if known.features is None else dict(known.features),
            "output_type": known.output_type,
            "answer_key": known.answer_key,
        }
    return shown


def _total(ledger: Ledger, name: str) -> float | None:
    """Return the sum over all attempts; None where the figure of one of them is unknown."""
    values = [getattr(attempt, name) for attempt in ledger.attempts]
    return None if not values or any(value is None for value in values) else sum(values)
