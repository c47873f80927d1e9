"""Build the values that many tests need, with every field that a test does not name filled in."""

from collections.abc import Mapping, Sequence
from typing import Any

from hybridserve_llm.profiles.profile_file import Profile
from hybridserve_llm.values.ledger import Attempt, Verdict
from hybridserve_llm.values.requests import Endpoint, GenerateRequest


def chat_request(name: str = "r1", **fields: Any) -> GenerateRequest:
    """Return a chat request whose id is `name`, and whose only message says its name."""
    values: dict[str, Any] = {
        "request_id": name,
        "endpoint": Endpoint.CHAT,
        "payload": {"messages": [{"role": "user", "content": name}]},
    }
    return GenerateRequest(**{**values, **fields})


def attempt_of(tier: str = "small", **fields: Any) -> Attempt:
    """Return an attempt of a tier, accepted unless the test says otherwise."""
    values: dict[str, Any] = {
        "model": f"{tier}-model",
        "decision": Verdict.ACCEPT,
        "reason": "because",
    }
    return Attempt(tier=tier, **{**values, **fields})


def profile_of(points: Sequence[Mapping[str, Any]], **fields: Any) -> Profile:
    """Return a profile measured at `points`: on one H100, with 200 prompt and 400 output tokens."""
    values: dict[str, Any] = {
        "model": "m",
        "gpu": "H100-80GB",
        "hardware": "one H100",
        "engine": "vllm 0.32.0",
        "measured_on": "2026-11-24",
        "prompt_tokens": 200,
        "output_tokens": 400,
        "points": points,
        "source": "a test",
    }
    return Profile.model_validate({**values, **fields})
