"""Requests of fixed length whose prompts share nothing, so that no cache can answer any."""

import itertools
import random
import string
from collections.abc import Sequence

from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest

SAMPLE_TEXT = " ".join(
    [*string.ascii_letters, *string.digits, *string.punctuation]
    + [first + second for first in string.ascii_lowercase for second in "aeiou"]
)
"""Text whose tokens are ordinary ones in any tokenizer: prompts are drawn from them."""


class RequestSource:
    """Draws prompts from `token_ids`, each its own, all of the same length; seeded."""

    def __init__(
        self,
        token_ids: Sequence[int],
        *,
        prompt_tokens: int,
        output_tokens: int,
        top_logprobs: int | None,
        seed: int = 0,
    ) -> None:
        self.output_tokens = output_tokens
        self._token_ids = sorted(set(token_ids))
        self._prompt_tokens = prompt_tokens
        self._top_logprobs = top_logprobs
        self._draw = random.Random(seed)  # noqa: S311 - nothing secret depends on it
        self._numbers = itertools.count()

    def next(self, output_tokens: int | None = None) -> EngineRequest:
        """A new request, which generates exactly `output_tokens`; None for the usual number."""
        payload = {
            "prompt": self._draw.choices(self._token_ids, k=self._prompt_tokens),
            "max_tokens": self.output_tokens if output_tokens is None else output_tokens,
            "ignore_eos": True,
            "temperature": 0.0,
        }
        request = GenerateRequest(
            request_id=f"profile-{next(self._numbers)}",
            endpoint=Endpoint.COMPLETIONS,
            payload=payload,
        )
        return EngineRequest(request=request, top_logprobs=self._top_logprobs)
