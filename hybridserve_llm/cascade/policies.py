"""Choose the policy of a request, and say whether the certificate covers the request."""

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
"""Body fields that change how a model answers the same prompt.

A seed is not among them: it picks one of the answers that the settings allow. Nor is a limit of
output tokens, which changes nothing unless it cuts the answer.
"""
_AS_ABSENT: Mapping[str, tuple[Any, ...]] = {"n": (1,), "stop": ([],), "logit_bias": ({},)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Coverage:
    """Hold the endpoints and the sampling settings that a certificate covers."""

    endpoints: frozenset[Endpoint]
    sampling: Mapping[str, Any]

    def covers(self, request: GenerateRequest) -> bool:
        """Return whether the request has the certificate's settings, and no others."""
        return request.endpoint in self.endpoints and sampling_of(request.payload) == self.sampling


def sampling_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sampling settings of a request's body, without those that ask for nothing."""
    return {
        key: value
        for key, value in payload.items()
        if key in SAMPLING_FIELDS and value is not None and value not in _AS_ABSENT.get(key, ())
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """Hold the policies of one cascade.

    Attributes:
        default: The policy, unless the request or the watch asks for another one.
        last_only: Asks the last tier for everything; taken when the watch says so.
        strict: The stricter certified policy, if there is one.
        coverage: The requests that the certificate covers; None without a certificate.
        watcher: Checks that the certificate still holds; None without a certificate.
    """

    default: Policy
    last_only: Policy
    strict: Policy | None = None
    coverage: Coverage | None = None
    watcher: Watcher | None = None

    def pick(self, request: GenerateRequest) -> Policy:
        """Return the policy for this request.

        Raises:
            InvalidRequest: The request asks for the stricter policy, and none exists.
        """
        level = self.watcher.level if self.watcher is not None else "normal"
        wished = request.overrides.policy or "default"
        if wished == "strict" and self.strict is None:
            raise InvalidRequest(
                "policy 'strict' does not exist: no stricter policy is certified",
                parameter="hybridserve.policy",
            )
        if wished == "last" or level == "escalate":
            return self.last_only
        if self.strict is not None and (wished == "strict" or level == "strict"):
            return self.strict
        return self.default

    def covers(self, request: GenerateRequest) -> bool:
        """Return whether the certificate covers the request's settings.

        The router checks the tiers that the request allows.
        """
        return self.coverage is not None and self.coverage.covers(request)
