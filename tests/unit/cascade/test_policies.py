"""Which policy decides a request, and which requests a certificate speaks of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from builders import chat_request

from hybridserve_llm.cascade.coverage import Coverage
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.policy import ScorePolicy, TierRule
from hybridserve_llm.cascade.risk_policy import RiskPolicy
from hybridserve_llm.errors import InvalidRequest
from hybridserve_llm.values.answers import Assessment, Completion, Seen
from hybridserve_llm.values.ledger import Gap, Uncovered
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
    gap = policies.gap(request())
    assert gap == Uncovered(gap=Gap.NO_CERTIFICATE, reason="no certificate")
    assert policies.pick(request(), gap) is by_score


SETTING = {"temperature": 0.7}
UNKNOWN = {"regex": "[0-9]+"}
DEMAND = {"structured_outputs": {"choice": ["1", "2"]}}
ROUTES: list[tuple[Literal["last", "cascade"] | None, dict[str, Any], RiskPolicy]] = [
    (None, {}, DEFAULT),
    (None, SETTING, DEFAULT),
    (None, UNKNOWN, LAST_ONLY),
    (None, DEMAND, LAST_ONLY),
    ("last", {}, DEFAULT),
    ("last", SETTING, LAST_ONLY),
    ("last", UNKNOWN, LAST_ONLY),
    ("cascade", SETTING, DEFAULT),
    ("cascade", UNKNOWN, DEFAULT),
    ("cascade", DEMAND, DEFAULT),
]


@pytest.mark.parametrize(("uncovered", "payload", "expected"), ROUTES)
def test_what_is_not_covered_is_answered_as_the_configuration_says(
    uncovered: Literal["last", "cascade"] | None, payload: dict[str, Any], expected: RiskPolicy
) -> None:
    policies = Policies(
        default=DEFAULT,
        last_only=LAST_ONLY,
        coverage=Coverage(endpoints=frozenset({Endpoint.CHAT}), sampling={}),
        uncovered=uncovered,
    )
    asked = request(payload)
    assert policies.pick(asked, policies.gap(asked)) is expected
