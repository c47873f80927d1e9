"""Turn an accepted answer and its ledger into the JSON that the client gets."""

from typing import Any

from hybridserve_llm.server.ledger_json import ledger_json
from hybridserve_llm.values.ledger import Outcome
from hybridserve_llm.values.requests import GenerateRequest, JsonObject

_TOKEN_ID_FIELDS = frozenset({"token_ids", "prompt_token_ids"})
"""Ids of tokens, of the prompt's next to the choices in a chat and inside them in completions."""


def to_response(outcome: Outcome, request: GenerateRequest) -> dict[str, Any]:
    """Return the response body: the accepted answer as its engine wrote it, and the ledger."""
    sent = outcome.completion.body
    body = _without_token_ids(sent, request)
    body["model"] = outcome.ledger.model
    body["choices"] = [trimmed_choice(choice, request) for choice in body.get("choices", ())]
    body["hybridserve"] = ledger_json(outcome.ledger)
    return body


def trimmed_choice(choice: JsonObject, request: GenerateRequest) -> dict[str, Any]:
    """Return the choice with the log-probabilities that the client asked for, and no more.

    The scorer may have asked the engine for more. A client that wanted none gets none, and one that
    wanted k gets the first k alternatives.
    """
    trimmed = _without_token_ids(choice, request)
    wanted = request.client_top_logprobs
    if wanted is None:
        if "logprobs" in trimmed:
            trimmed["logprobs"] = None
        return trimmed
    logprobs = trimmed.get("logprobs")
    if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
        content = [_trimmed_token(token, wanted) for token in logprobs["content"]]
        trimmed["logprobs"] = {**logprobs, "content": content}
    return trimmed


def _trimmed_token(token: Any, n_alternatives: int) -> Any:
    """Return the token with its first alternatives; as it is where it is in another shape."""
    alternatives = token.get("top_logprobs") if isinstance(token, dict) else None
    if not isinstance(alternatives, list):
        return token
    return {**token, "top_logprobs": alternatives[:n_alternatives]}


def _without_token_ids(sent: JsonObject, request: GenerateRequest) -> dict[str, Any]:
    """Return what an engine sent, without the ids that the scorer alone asked for."""
    if request.wants_token_ids:
        return dict(sent)
    return {key: value for key, value in sent.items() if key not in _TOKEN_ID_FIELDS}
