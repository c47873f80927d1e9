"""What an attempt and a request add to the metrics."""

from typing import Any

from prometheus_client import CollectorRegistry

from hybridserve_llm.records import Attempt, Verdict
from hybridserve_llm.telemetry.metrics import Metrics


def told_of(**fields: Any) -> CollectorRegistry:
    """A registry after one attempt of the tier small."""
    metrics = Metrics(CollectorRegistry())
    attempt = Attempt(tier="small", model="s", decision=Verdict.ACCEPT, reason="", **fields)
    metrics.attempt_finished("r", attempt)
    return metrics.registry


def test_a_confidence_falls_into_its_bucket() -> None:
    registry = told_of(confidence=0.93)
    name = "hybridserve_attempt_confidence_ratio"
    at_most = {
        le: registry.get_sample_value(f"{name}_bucket", {"tier": "small", "le": le})
        for le in ("0.9", "0.95", "1.0")
    }
    assert at_most == {"0.9": 0, "0.95": 1, "1.0": 1}


def test_a_first_token_is_timed_where_it_was_seen() -> None:
    labels = {"tier": "small"}
    name = "hybridserve_attempt_ttft_seconds"
    assert told_of(ttft_s=0.25).get_sample_value(f"{name}_sum", labels) == 0.25
    assert told_of().get_sample_value(f"{name}_count", labels) is None


def test_what_is_not_known_is_no_observation() -> None:
    registry = told_of()
    for name in ("attempt_confidence_ratio_count", "completion_tokens_total"):
        assert registry.get_sample_value(f"hybridserve_{name}", {"tier": "small"}) is None
    labels = {"tier": "small", "decision": "accept"}
    assert registry.get_sample_value("hybridserve_attempts_total", labels) == 1


def test_requests_at_hand_are_read_when_scraped() -> None:
    metrics, n_waiting = Metrics(CollectorRegistry()), [3]
    metrics.watch_gauges(lambda: 0, {}, {"small": lambda: n_waiting[0]})
    name, labels = "hybridserve_outstanding_requests", {"tier": "small"}
    assert metrics.registry.get_sample_value(name, labels) == 3
    n_waiting[0] = 0
    assert metrics.registry.get_sample_value(name, labels) == 0
