"""Draw requests whose prompts share nothing, so that no cache can answer any."""

import itertools
import math
import random
import string
from collections.abc import Sequence
from dataclasses import dataclass

from hybridserve_llm.values.requests import Endpoint, EngineRequest, GenerateRequest

SAMPLE_TEXT = " ".join(
    [*string.ascii_letters, *string.digits, *string.punctuation]
    + [first + second for first in string.ascii_lowercase for second in "aeiou"]
)
"""Text whose tokens are ordinary ones in any tokenizer: prompts are drawn from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Hold the tokens of one request's prompt and answer."""

    prompt_tokens: int
    output_tokens: int


class RequestDraw:
    """Draw prompts from `token_ids`, each its own; the same seed gives the same prompts."""

    def __init__(
        self,
        token_ids: Sequence[int],
        *,
        top_logprobs: int | None,
        seed: int = 0,
        name: str = "profile",
    ) -> None:
        """Take what requests are made of; their ids begin with `name`."""
        self._token_ids = sorted(set(token_ids))
        self._top_logprobs = top_logprobs
        self._name = name
        self._draw = random.Random(seed)  # noqa: S311 - nothing secret depends on it
        self._numbers = itertools.count()

    def request(self, lengths: Lengths) -> EngineRequest:
        """Return a new request with exactly so many tokens in prompt and answer."""
        payload = {
            "prompt": self._draw.choices(self._token_ids, k=lengths.prompt_tokens),
            "max_tokens": lengths.output_tokens,
            "ignore_eos": True,
            "temperature": 0.0,
        }
        request = GenerateRequest(
            request_id=f"{self._name}-{next(self._numbers)}",
            endpoint=Endpoint.COMPLETIONS,
            payload=payload,
        )
        return EngineRequest(request=request, top_logprobs=self._top_logprobs)

    def around(self, mean: int) -> int:
        """Draw a length evenly from half the mean to one and a half times as much."""
        return self._draw.randint(mean - mean // 2, mean + mean // 2)


@dataclass(frozen=True, slots=True)
class RequestSource:
    """Give a closed loop its requests.

    Attributes:
        draw: Makes them.
        lengths: Tokens of each, or of the mean request.
        is_varied: Whether lengths are drawn around the means, as those under a real load are.
    """

    draw: RequestDraw
    lengths: Lengths
    is_varied: bool = False

    def first(self, share: float) -> EngineRequest:
        """Return a request whose answer has a share of the usual tokens, rounded up."""
        return self.draw.request(
            Lengths(
                prompt_tokens=self.lengths.prompt_tokens,
                output_tokens=math.ceil(share * self.lengths.output_tokens),
            )
        )

    def next(self) -> EngineRequest:
        """Return a new request."""
        if not self.is_varied:
            return self.draw.request(self.lengths)
        return self.draw.request(
            Lengths(
                prompt_tokens=self.draw.around(self.lengths.prompt_tokens),
                output_tokens=self.draw.around(self.lengths.output_tokens),
            )
        )
