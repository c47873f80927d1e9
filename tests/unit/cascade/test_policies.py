"""Which policy decides a request, and which requests a certificate speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from builders import chat_request

from hybridserve_llm.cascade.policies import SAMPLING_FIELDS, Coverage, Policies, sampling_of
from hybridserve_llm.cascade.policy import ScorePolicy, TierRule
from hybridserve_llm.cascade.risk_policy import RiskPolicy
from hybridserve_llm.errors import InvalidRequest
from hybridserve_llm.values.answers import Assessment, Completion, Seen
from hybridserve_llm.values.requests import Endpoint, GenerateRequest, Overrides

Level = Literal["normal", "strict", "escalate"]


class NoJudge:
    """Judges nothing: policies are only picked here."""

    def judge(self, seen: Sequence[Seen]) -> Assessment:
        raise NotImplementedError

    def entry_risk(self, request: GenerateRequest) -> float | None:
        raise NotImplementedError


@dataclass(frozen=True)
class Watcher:
    """Has a level and hears nothing."""

    level: Level

    def judged(self, tier: str, assessment: Assessment, *, is_accepted: bool) -> None:
        raise NotImplementedError

    def accepted(
        self, request: GenerateRequest, tier: str, completion: Completion, assessment: Assessment
    ) -> None:
        raise NotImplementedError


DEFAULT = RiskPolicy(chain=(0, 1), rules={}, judge=NoJudge(), is_certified=True)
STRICT = RiskPolicy(chain=(0, 1), rules={}, judge=NoJudge())
LAST_ONLY = RiskPolicy(chain=(1,), rules={}, judge=NoJudge())


def request(payload: dict[str, Any] | None = None, **changes: Any) -> GenerateRequest:
    return chat_request(payload=payload or {}, **changes)


def picked(level: Level | None, wished: str | None, strict: RiskPolicy | None = STRICT) -> Any:
    watcher = None if level is None else Watcher(level)
    policies = Policies(default=DEFAULT, last_only=LAST_ONLY, strict=strict, watcher=watcher)
    return policies.pick(request(overrides=Overrides(policy=wished)))


@pytest.mark.parametrize(
    ("level", "wished", "expected"),
    [
        (None, None, DEFAULT),
        (None, "default", DEFAULT),
        ("normal", None, DEFAULT),
        ("strict", None, STRICT),
        ("escalate", None, LAST_ONLY),
        ("normal", "strict", STRICT),
        ("strict", "strict", STRICT),
        ("escalate", "strict", LAST_ONLY),
        (None, "last", LAST_ONLY),
        ("strict", "last", LAST_ONLY),
        # A request cannot loosen what the watch decided.
        ("strict", "default", STRICT),
        ("escalate", "default", LAST_ONLY),
    ],
)
def test_the_stricter_of_what_the_watch_and_the_request_want_is_taken(
    level: Level | None, wished: str | None, expected: RiskPolicy
) -> None:
    assert picked(level, wished) is expected


@pytest.mark.parametrize("level", [None, "normal", "escalate"])
def test_a_stricter_policy_that_is_not_there_is_the_clients_error(level: Level | None) -> None:
    with pytest.raises(InvalidRequest, match="no stricter policy is certified") as caught:
        picked(level, "strict", strict=None)
    assert caught.value.parameter == "hybridserve.policy"


def test_without_a_stricter_policy_the_default_serves() -> None:
    assert picked("normal", None, strict=None) is DEFAULT


def test_an_uncertified_cascade_covers_nothing() -> None:
    by_score = ScorePolicy(rules=(TierRule(accept_at=-0.5),) * 2)
    policies = Policies(default=by_score, last_only=LAST_ONLY)
    assert policies.pick(request()) is by_score
    assert not policies.covers(request())


GREEDY = Coverage(endpoints=frozenset({Endpoint.CHAT}), sampling={"temperature": 0})


@pytest.mark.parametrize(
    ("payload", "is_covered"),
    [
        ({"temperature": 0}, True),
        ({"temperature": 0.0}, True),
        ({"temperature": 0.7}, False),
        ({}, False),
        ({"temperature": None}, False),
        ({"temperature": 0, "top_p": 0.9}, False),
        ({"temperature": 0, "top_p": None}, True),
        ({"temperature": 0, "n": 1}, True),
        ({"temperature": 0, "n": 2}, False),
        ({"temperature": 0, "stop": []}, True),
        ({"temperature": 0, "stop": ["\n"]}, False),
        ({"temperature": 0, "logit_bias": {}}, True),
        ({"temperature": 0, "logit_bias": {"5": 1}}, False),
        ({"temperature": 0, "chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"temperature": 0, "thinking_token_budget": 16}, False),
        # Neither changes what is written to a prompt: the one cuts it, the other picks one draw.
        ({"temperature": 0, "max_tokens": 5, "max_completion_tokens": 5}, True),
        ({"temperature": 0, "seed": 7, "user": "u"}, True),
    ],
)
def test_a_request_is_covered_with_the_certificates_settings_and_no_others(
    payload: dict[str, Any], is_covered: bool
) -> None:
    assert GREEDY.covers(request(payload)) is is_covered


def test_a_certificate_without_settings_covers_requests_without_settings() -> None:
    plain = Coverage(endpoints=frozenset({Endpoint.CHAT}), sampling={})
    assert plain.covers(request({"messages": [], "max_tokens": 5}))
    assert not plain.covers(request({"temperature": 1}))


def test_the_other_endpoint_is_not_covered() -> None:
    completions = request({"temperature": 0}, endpoint=Endpoint.COMPLETIONS)
    assert not GREEDY.covers(completions)
    both = Coverage(endpoints=frozenset(Endpoint), sampling={"temperature": 0})
    assert both.covers(completions)


def test_sampling_settings_are_told_from_the_rest_of_a_body() -> None:
    everything = dict.fromkeys(SAMPLING_FIELDS, "x")
    assert sampling_of({**everything, "messages": [], "tools": [], "seed": 1}) == everything
    assert sampling_of(dict.fromkeys(SAMPLING_FIELDS)) == {}
