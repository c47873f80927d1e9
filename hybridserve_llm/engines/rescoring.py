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

from hybridserve_llm.engines.choice_reading import logprob_of
from hybridserve_llm.values.answers import Answer, Completion, Usage
from hybridserve_llm.values.requests import EngineRequest, JsonObject, Rescoring

UNSCORABLE = "what the model would have written without the constraint is not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenTokens:
    """Hold the ids of the prompt's tokens, and those of every answer to it."""

    prompt: tuple[int, ...]
    answers: tuple[tuple[int, ...], ...]


def needs_rescoring(request: EngineRequest, completion: Completion) -> bool:
    """Return True where a constraint may have been at work when the answers were written."""
    if request.rescoring is Rescoring.OF_CALLS:
        return any(answer.tool_calls for answer in completion.answers)
    return request.rescoring is Rescoring.ALWAYS


def written_tokens(request: EngineRequest, completion: Completion) -> WrittenTokens | None:
    """Return the tokens to score; None where ids are missing, or stand for more than text."""
    body = completion.body
    choices = body.get("choices") or [{}]
    prompt = body.get("prompt_token_ids") or choices[0].get("prompt_token_ids")
    answers = tuple(answer.token_ids for answer in completion.answers)
    is_known = isinstance(prompt, list) and all(isinstance(one, int) for one in prompt)
    if not is_known or _has_other_parts(request.request.payload.get("messages")):
        return None
    known = tuple(ids for ids in answers if ids)
    return (
        WrittenTokens(prompt=tuple(prompt), answers=known) if len(known) == len(answers) else None
    )


def rescoring_body(written: WrittenTokens, *, model: str, top_logprobs: int) -> bytes:
    """Return the body of the request to `/v1/completions` that scores what was written."""
    return orjson.dumps(
        {
            "model": model,
            "prompt": [[*written.prompt, *answer] for answer in written.answers],
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": top_logprobs,
        }
    )


def rescored(completion: Completion, scores: JsonObject, usage: Usage) -> Completion:
    """Return the completion with the log-probabilities in `scores`, and the tokens of both."""
    choices = scores.get("choices")
    given = choices if isinstance(choices, list) else []
    by_index = {one.get("index", i): one for i, one in enumerate(given) if isinstance(one, dict)}
    answers = (_answer(one, by_index.get(i, {})) for i, one in enumerate(completion.answers))
    return replace(completion, answers=tuple(answers), usage=_sum(completion.usage, usage))


def unscorable(completion: Completion) -> Completion:
    """Return the completion without log-probabilities, and with the reason."""
    answers = (replace(one, logprobs=None, unscorable=UNSCORABLE) for one in completion.answers)
    return replace(completion, answers=tuple(answers))


def _answer(answer: Answer, choice: Mapping[str, Any]) -> Answer:
    ids, entries = answer.token_ids or (), choice.get("prompt_logprobs")
    own = entries[-len(ids) :] if isinstance(entries, list) and len(entries) > len(ids) else []
    if not ids or not all(isinstance(entry, dict) for entry in own) or len(own) != len(ids):
        return replace(answer, logprobs=None, margins=None, unscorable=UNSCORABLE)
    margins = tuple(map(_margin, own))
    return replace(
        answer,
        logprobs=tuple(
            _logprob(entry.get(str(token_id))) for entry, token_id in zip(own, ids, strict=True)
        ),
        margins=None if margins.count(None) == len(margins) else margins,
    )


def _logprob(entry: Any) -> float | None:
    return logprob_of(entry.get("logprob")) if isinstance(entry, dict) else None


def _margin(entry: Mapping[str, Any]) -> float | None:
    """Return the likeliest token's probability minus the next one's; None without two."""
    known = sorted(value for one in entry.values() if (value := _logprob(one)) is not None)
    return math.exp(known[-1]) - math.exp(known[-2]) if len(known) > 1 else None


def _has_other_parts(messages: Any) -> bool:
    """Return True where a message holds more than text: its tokens then say too little."""
    contents = [one.get("content") for one in messages or () if isinstance(one, Mapping)]
    parts: Sequence[Any] = [part for one in contents if isinstance(one, list) for part in one]
    return any(not isinstance(part, Mapping) or part.get("type") != "text" for part in parts)


def _sum(first: Usage, second: Usage) -> Usage:
    """Return the tokens of both requests; unknown where one of them is."""

    def total(one: int | None, other: int | None) -> int | None:
        return None if one is None or other is None else one + other

    return Usage(
        prompt_tokens=total(first.prompt_tokens, second.prompt_tokens),
        cached_tokens=first.cached_tokens,
        completion_tokens=total(first.completion_tokens, second.completion_tokens),
    )
