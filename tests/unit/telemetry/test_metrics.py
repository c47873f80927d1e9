"""What a request, its attempts and its joules add to the metrics."""

from typing import Any

import pytest
from builders import attempt_of
from prometheus_client import CollectorRegistry

from hybridserve_llm.telemetry.counts import JoulesTally
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.values.joules import ComponentEnergy, SettledEnergy
from hybridserve_llm.values.ledger import (
    FinishedRequest,
    Gap,
    Ledger,
    RequestEnd,
    Uncovered,
    Verdict,
)


def ledger_of(tier: str | None = "small", **fields: Any) -> Ledger:
    """A request that the tier answered with one attempt, or none did."""
    attempts = () if tier is None else (attempt_of(tier, confidence=0.5),)
    return Ledger(request_id="r", attempts=attempts, tier=tier, **fields)


def told_of(**fields: Any) -> CollectorRegistry:
    """A registry after one request of one attempt of the tier small."""
    metrics = Metrics(CollectorRegistry())
    ledger = Ledger(request_id="r", attempts=(attempt_of("small", **fields),), tier="small")
    metrics.requests_finished([FinishedRequest(ledger, 0.5, 0.0)])
    return metrics.registry


def test_a_confidence_falls_into_its_bucket() -> None:
    registry = told_of(confidence=0.93)
    name = "hybridserve_attempt_confidence_ratio"
    at_most = {
        le: registry.get_sample_value(f"{name}_bucket", {"tier": "small", "le": le})
        for le in ("0.9", "0.95", "1.0")
    }
    assert at_most == {"0.9": 0, "0.95": 1, "1.0": 1}


def test_a_tiers_first_token_is_timed_where_it_was_seen() -> None:
    labels = {"tier": "small"}
    name = "hybridserve_attempt_ttft_seconds"
    assert told_of(ttft_s=0.25).get_sample_value(f"{name}_sum", labels) == 0.25
    assert told_of().get_sample_value(f"{name}_count", labels) is None


def test_a_requests_first_token_is_timed_from_its_arrival() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.requests_finished([FinishedRequest(ledger_of(), 1.0, 0.0)])  # not streamed
    metrics.requests_finished([FinishedRequest(ledger_of(ttft_s=5.1), 9.0, 0.0)])
    value, labels = metrics.registry.get_sample_value, {"kind": "cascade"}
    assert value("hybridserve_request_ttft_seconds_count", labels) == 1
    assert value("hybridserve_request_ttft_seconds_sum", labels) == 5.1


def test_answers_without_cover_are_counted_by_their_reason() -> None:
    metrics = Metrics(CollectorRegistry())
    unknown = Uncovered(gap=Gap.UNKNOWN_FIELD, reason="the field 'x' is not known")
    for uncovered in (None, unknown, unknown):
        ledger = ledger_of(uncovered=uncovered)
        metrics.requests_finished([FinishedRequest(ledger, 1.0, 0.0)])
    labels = {"kind": "cascade", "gap": "unknown_field"}
    value = metrics.registry.get_sample_value
    assert value("hybridserve_uncovered_answers_total", labels) == 2
    assert value("hybridserve_uncovered_answers_total", {**labels, "gap": "demand"}) is None


def test_attempts_that_failed_are_counted_by_their_error() -> None:
    registry = told_of(decision=Verdict.FAIL, error="DeadlineExceeded")
    labels = {"kind": "cascade", "tier": "small", "error": "DeadlineExceeded"}
    assert registry.get_sample_value("hybridserve_failed_attempts_total", labels) == 1
    assert told_of().get_sample_value("hybridserve_failed_attempts_total", labels) is None


def test_what_is_not_known_is_no_observation() -> None:
    registry = told_of()
    for name in ("attempt_confidence_ratio_count", "completion_tokens_total"):
        assert registry.get_sample_value(f"hybridserve_{name}", {"tier": "small"}) is None
    labels = {"kind": "cascade", "tier": "small", "decision": "accept"}
    assert registry.get_sample_value("hybridserve_attempts_total", labels) == 1


def test_what_one_tier_was_asked_and_calibration_are_counted_apart() -> None:
    metrics = Metrics(CollectorRegistry())
    for _ in range(3):
        metrics.requests_finished([FinishedRequest(ledger_of("small"), 0.5, 0.0)])
    for tier in ("small", "giant"):
        metrics.requests_finished([FinishedRequest(ledger_of(tier, only_tier=tier), 0.5, 0.0)])
        metrics.requests_finished(
            [FinishedRequest(ledger_of(tier, only_tier=tier, assess=True), 0.5, 0.0)]
        )
    assert metrics.answered() == {"small": 3}

    def n_answered(kind: str, tier: str) -> float | None:
        labels = {"kind": kind, "tier": tier, "end": "answered"}
        return metrics.registry.get_sample_value("hybridserve_requests_total", labels)

    assert n_answered("cascade", "giant") is None
    assert [n_answered(kind, "giant") for kind in ("tier", "calibration")] == [1, 1]
    value = metrics.registry.get_sample_value
    assert value("hybridserve_request_latency_seconds_count", {"kind": "cascade"}) == 3
    confident = "hybridserve_attempt_confidence_ratio_count"
    assert value(confident, {"tier": "small"}) == 3  # of the cascade's requests only


def test_requests_that_fail_and_those_whose_client_left_are_told_apart() -> None:
    metrics = Metrics(CollectorRegistry())
    for end in (RequestEnd.FAILED, RequestEnd.GIVEN_UP, RequestEnd.GIVEN_UP):
        metrics.requests_finished([FinishedRequest(ledger_of(None, end=end), 0.5, 0.0)])
    n_ended = {
        end: metrics.registry.get_sample_value(
            "hybridserve_requests_total", {"kind": "cascade", "tier": "none", "end": end}
        )
        for end in ("failed", "given_up", "invalid")
    }
    assert n_ended == {"failed": 1, "given_up": 2, "invalid": None}
    assert metrics.answered() == {}


ENERGY = SettledEnergy(
    request_id="r",
    booking="user",
    tier="giant",
    component="gpu",
    active_j=7.5,
    loaded_j=None,
    source="nvml_energy",
    reason=None,
    edge_j=0.5,
    flags=(),
    tiers={"small": 1.5, "giant": 6.0},
    components={"gpu": ComponentEnergy(energy_j=7.5, source="nvml_energy")},
)


def joules_seen(energy: SettledEnergy) -> dict[str, float]:
    """Sums of both histograms of joules of the tier giant, where they have one."""
    metrics = Metrics(CollectorRegistry())
    metrics.request_settled(energy)
    found = {}
    for name in ("request", "answer"):
        sum_j = metrics.registry.get_sample_value(
            f"hybridserve_{name}_energy_joules_sum", {"tier": "giant"}
        )
        if sum_j is not None:
            found[name] = sum_j
    return found


def test_joules_of_a_request_and_of_the_tier_that_answered_it_are_observed() -> None:
    assert joules_seen(ENERGY) == {"request": 7.5, "answer": 6.0}


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"booking": "shadow"}, {}),
        ({"booking": "calibration"}, {}),
        # Of the tier that answered nothing is known: neither figure is.
        ({"active_j": None, "tiers": {"small": 1.5, "giant": None}}, {}),
        # A tier that was tried before is not metered: the one that answered is.
        ({"active_j": None, "tiers": {"small": None, "giant": 6.0}}, {"answer": 6.0}),
        # Nobody answered.
        ({"tier": None}, {}),
    ],
)
def test_only_what_is_known_of_users_requests_is_observed(
    changes: dict[str, Any], seen: dict[str, float]
) -> None:
    assert joules_seen(ENERGY._replace(**changes)) == seen


def test_requests_at_hand_are_read_when_scraped() -> None:
    metrics, n_waiting = Metrics(CollectorRegistry()), [3]
    metrics.watch_gauges(lambda: 0, {}, {"small": lambda: n_waiting[0]})
    name, labels = "hybridserve_outstanding_requests", {"tier": "small"}
    assert metrics.registry.get_sample_value(name, labels) == 3
    n_waiting[0] = 0
    assert metrics.registry.get_sample_value(name, labels) == 0


def test_joules_counted_elsewhere_are_added_once() -> None:
    elsewhere, metrics = JoulesTally(), Metrics(CollectorRegistry())
    metrics.request_settled(ENERGY)
    for _ in range(2):
        elsewhere.count(ENERGY)
    for told in (*elsewhere.taken(), *elsewhere.taken()):  # the second time there is nothing
        metrics.joules.absorb(told)
    value, labels = metrics.registry.get_sample_value, {"tier": "giant"}
    assert value("hybridserve_request_energy_joules_count", labels) == 3
    assert value("hybridserve_request_energy_joules_sum", labels) == 22.5  # 3 * 7.5
    assert value("hybridserve_answer_energy_joules_sum", labels) == 18  # 3 * 6
    at_most_10 = value("hybridserve_request_energy_joules_bucket", {**labels, "le": "10.0"})
    assert at_most_10 == 3


def test_a_request_without_an_answer_has_no_joules_of_an_answer() -> None:
    metrics = Metrics(CollectorRegistry())
    metrics.request_settled(ENERGY._replace(tier=None, tiers={"none": 7.5}))
    value, labels = metrics.registry.get_sample_value, {"tier": "none"}
    assert value("hybridserve_request_energy_joules_sum", labels) == 7.5
    assert value("hybridserve_answer_energy_joules_count", labels) in (None, 0)
