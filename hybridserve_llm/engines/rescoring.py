"""Score an answer that was written under a constraint as the model would have written it freely.

vLLM 0.32 masks the logits by the grammar in place before it takes log-probabilities, also in the
mode `raw_logprobs` (`v1/worker/gpu_model_runner.py`). Of two allowed answers that are both wrong,
the less unlikely one then looks certain. So the prompt and the answer are given to the same engine
once more, as token ids and without the constraint. The log-probabilities of that prompt's end are
what the model would have given the answer. This costs one prefill.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import orjson

from hybridserve_llm.engines.choice_reading import logprob_of, token_ids_of
from hybridserve_llm.values.answers import Answer, Completion, Usage
from hybridserve_llm.values.requests import (
    EngineRequest,
    JsonObject,
    Rescoring,
    other_content,
)

UNSCORABLE = "what the model would have written without the constraint is not known"
_PASSED_ON = ("cache_salt", "priority")
"""Fields of the client's body that hold for the prefill too: it shares the cache and the queue."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """Hold the token ids of one answer, and of the prompt that it answers."""

    prompt: tuple[int, ...]
    answer: tuple[int, ...]


def needs_rescoring(request: EngineRequest, completion: Completion) -> bool:
    """Return True where a constraint may have been at work when the answers were written."""
    if request.rescoring is Rescoring.OF_CALLS:
        return any(answer.tool_calls for answer in completion.answers)
    return request.rescoring is Rescoring.ALWAYS


def written_tokens(request: EngineRequest, completion: Completion) -> tuple[Written, ...] | None:
    """Return the tokens of every answer; None where ids are missing, or stand for more than text.

    A chat has the ids of its prompt next to the choices. A completion has them inside each choice,
    since it may have several prompts.
    """
    if any(other_content(request.request.payload.get("messages"))):
        return None
    written = []
    for answer, choice in zip(completion.answers, completion.body["choices"], strict=True):
        prompt = token_ids_of(
            choice.get("prompt_token_ids") or completion.body.get("prompt_token_ids")
        )
        if not prompt or not answer.token_ids:
            return None
        written.append(Written(prompt=prompt, answer=answer.token_ids))
    return tuple(written)


def rescoring_body(request: EngineRequest, written: Sequence[Written], *, model: str) -> bytes:
    """Return the body of the request to `/v1/completions` that scores what was written."""
    asked = request.request.payload
    body = {
        "model": model,
        "prompt": [[*one.prompt, *one.answer] for one in written],
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": request.top_logprobs or 0,
    }
    return orjson.dumps({**{name: asked[name] for name in _PASSED_ON if name in asked}, **body})


def rescored(
    completion: Completion, written: Sequence[Written], scores: JsonObject, usage: Usage
) -> Completion:
    """Return the completion with the log-probabilities in `scores`, and the prompt tokens of both.

    The one token that the engine writes after each prompt is nobody's answer and is not counted.
    """
    by_index = _choices_by_index(scores.get("choices"))
    answers = (
        _with_scores(answer, one, by_index.get(i, {}).get("prompt_logprobs"))
        for i, (answer, one) in enumerate(zip(completion.answers, written, strict=True))
    )
    return replace(completion, answers=tuple(answers), usage=_with_prefill(completion.usage, usage))


def unscorable(completion: Completion) -> Completion:
    """Return the completion without log-probabilities, and with the reason."""
    return replace(completion, answers=tuple(map(_unscorable, completion.answers)))


def _choices_by_index(choices: Any) -> dict[int, Mapping[str, Any]]:
    given = [one for one in choices if isinstance(one, dict)] if isinstance(choices, list) else []
    return {one["index"]: one for one in given if isinstance(one.get("index"), int)}


def _with_scores(answer: Answer, written: Written, entries: Any) -> Answer:
    """Return the answer scored by the entries of its own tokens, which end the list."""
    n_tokens = len(written.prompt) + len(written.answer)
    if not isinstance(entries, list) or len(entries) != n_tokens:
        return _unscorable(answer)
    own = entries[len(written.prompt) :]
    if not all(isinstance(entry, dict) for entry in own):
        return _unscorable(answer)
    margins = tuple(map(_margin, own))
    return replace(
        answer,
        logprobs=tuple(
            _logprob(entry.get(str(token_id)))
            for entry, token_id in zip(own, written.answer, strict=True)
        ),
        margins=None if margins.count(None) == len(margins) else margins,
    )


def _unscorable(answer: Answer) -> Answer:
    return replace(answer, logprobs=None, margins=None, unscorable=UNSCORABLE)


def _logprob(entry: Any) -> float | None:
    return logprob_of(entry.get("logprob")) if isinstance(entry, dict) else None


def _margin(entry: Mapping[str, Any]) -> float | None:
    """Return the likeliest token's probability minus the next one's; None without two."""
    known = sorted(value for one in entry.values() if (value := _logprob(one)) is not None)
    return math.exp(known[-1]) - math.exp(known[-2]) if len(known) > 1 else None


def _with_prefill(usage: Usage, prefill: Usage) -> Usage:
    """Return the usage with the prefill's prompt tokens; unknown where either is."""
    if usage.prompt_tokens is None or prefill.prompt_tokens is None:
        return Usage(cached_tokens=usage.cached_tokens, completion_tokens=usage.completion_tokens)
    return Usage(
        prompt_tokens=usage.prompt_tokens + prefill.prompt_tokens,
        cached_tokens=usage.cached_tokens,
        completion_tokens=usage.completion_tokens,
    )
