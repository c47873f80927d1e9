"""Which policy a request is decided by, and whether the certificate covers the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridserve_llm.cascade.policy import Policy
from hybridserve_llm.errors import InvalidRequest
from hybridserve_llm.interfaces import Watcher
from hybridserve_llm.values.requests import Endpoint, GenerateRequest

SAMPLING_FIELDS = frozenset(
    {
        "add_generation_prompt",
        "add_special_tokens",
        "allowed_token_ids",
        "bad_words",
        "best_of",
        "chat_template",
        "chat_template_kwargs",
        "continue_final_message",
        "frequency_penalty",
        "ignore_eos",
        "include_stop_str_in_output",
        "length_penalty",
        "logit_bias",
        "min_p",
        "min_tokens",
        "n",
        "presence_penalty",
        "reasoning_effort",
        "repetition_detection",
        "repetition_penalty",
        "skip_special_tokens",
        "spaces_between_special_tokens",
        "stop",
        "stop_token_ids",
        "temperature",
        "thinking_token_budget",
        "top_k",
        "top_p",
        "truncate_prompt_tokens",
        "truncation_side",
        "use_beam_search",
        "vllm_xargs",
        "watermarking",
    }
)
"""Body fields that change what a model writes to the same prompt. A seed does not: it picks one of
the answers that the settings allow. Nor does a limit of output tokens, unless it cuts the answer.
"""
_AS_ABSENT: Mapping[str, tuple[Any, ...]] = {"n": (1,), "stop": ([],), "logit_bias": ({},)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """The requests that a certificate speaks of: these endpoints, with these sampling settings."""

    endpoints: frozenset[Endpoint]
    sampling: Mapping[str, Any]

    def covers(self, request: GenerateRequest) -> bool:
        """Whether the request was sent with the certificate's settings, and no others."""
        return request.endpoint in self.endpoints and sampling_of(request.payload) == self.sampling


def sampling_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling settings of a request's body, without those that ask for nothing."""
    return {
        key: value
        for key, value in payload.items()
        if key in SAMPLING_FIELDS and value is not None and value not in _AS_ABSENT.get(key, ())
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies of one cascade.

    Attributes:
        default: What requests are decided by.
        last_only: Asks the last tier for everything; taken when the watch says so.
        strict: The stricter certified policy, if there is one.
        coverage: What the certificate covers; None without one.
        watcher: Looks after the certificate; None without one.
    """

    default: Policy
    last_only: Policy
    strict: Policy | None = None
    coverage: Coverage | None = None
    watcher: Watcher | None = None

    def pick(self, request: GenerateRequest) -> Policy:
        """The policy for this request.

        Raises:
            InvalidRequest: It asks for the stricter policy, and there is none.
        """
        level = self.watcher.level if self.watcher is not None else "normal"
        wished = request.overrides.policy or "default"
        if wished == "strict" and self.strict is None:
            raise InvalidRequest(
                "policy 'strict' is not there: no stricter policy is certified",
                parameter="hybridserve.policy",
            )
        if wished == "last" or level == "escalate":
            return self.last_only
        if self.strict is not None and (wished == "strict" or level == "strict"):
            return self.strict
        return self.default

    def covers(self, request: GenerateRequest) -> bool:
        """Whether the certificate covers the request's settings; tiers are the router's to see."""
        return self.coverage is not None and self.coverage.covers(request)
