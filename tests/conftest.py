"""Hold the fixtures that tests of several folders share; `builders.py` builds their values."""

import gc
import sys
from collections.abc import Callable
from typing import Any

import pynvml
import pytest
from hypothesis import HealthCheck, settings

# A test that waits for a busy machine is slow, and not wrong.
settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("any machine")

MOST_SLOW_TESTS = 40


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the list of tests that `make quick` leaves out from growing."""
    n_slow = sum(item.get_closest_marker("slow") is not None for item in items)
    if n_slow > MOST_SLOW_TESTS:
        raise pytest.UsageError(f"{n_slow} tests are marked slow; at most {MOST_SLOW_TESTS} may be")


def pytest_collection_finish() -> None:
    """Leave what was imported out of every later search for garbage, which is slow otherwise."""
    gc.collect()
    gc.freeze()


def certificate_json(**changes: Any) -> dict[str, Any]:
    """A certificate of the tiers small and giant, as decoded JSON, with some keys replaced.

    P(wrong) is sigmoid(-10 (score + 0.4)) and half of the wrong answers do harm, so a score of
    -0.12 has a confidence of 0.9427 and a risk of 0.0287, one of -0.58 has 0.1419 and 0.4291.
    Risks up to 0.1 are accepted. The cascade costs 4 where giant alone costs 10.
    """
    wrong = {"intercept": 0.0, "features": ["small.logprob"], "slopes": [-10.0], "means": [-0.4]}
    even = {"intercept": 0.0, "features": [], "slopes": [], "means": []}
    tiers = changes.get("tiers", ["small", "giant"])
    values = {
        "schema": "hybridserve-certificate/1",
        "created": "2026-01-01T00:00:00+00:00",
        "certified": True,
        "preset": "accuracy",
        "labels": "reference",
        "loss": "net",
        "epsilon": 0.02,
        "delta": 0.1,
        "tiers": tiers,
        "chain": ["small", "giant"],
        "n_fit": 300,
        "n_certify": 600,
        "estimand": "question",
        "data_sha256": "0" * 64,
        "endpoints": ["/v1/chat/completions"],
        "sampling": {"temperature": 0},
        "fingerprint": None,
        "cost": {
            "source": "tokens x parameters",
            "tiers": {**dict.fromkeys(tiers, 1.0), tiers[-1]: 10.0},
            "cascade": 4.0,
            "last": 10.0,
        },
        "models": [{"asked": ["small"], "wrong": wrong, "last_right": even}],
        "gate": None,
        "policy": policy_json(0.1, acceptance=0.5),
        "strict_policy": None,
    }
    return {**values, **changes}


def policy_json(accept_at_risk: float, *, acceptance: float) -> dict[str, Any]:
    """The part of a certificate that is a policy of small and giant; its disagreement is 0.02."""
    return {
        "rules": [
            {
                "asked": ["small"],
                "accept_at_risk": accept_at_risk,
                "else_ask": [{"risk_above": accept_at_risk, "tier": "giant"}],
            }
        ],
        "share": 1.0,
        "n": 600,
        "n_lost": 3,
        "n_rescued": 1,
        "p_value": 0.05,
        "acceptance": {"small": acceptance},
        "disagreement": 0.02,
        "mean_cost": 4.0,
    }


@pytest.fixture(scope="session")
def certificate_values() -> Callable[..., dict[str, Any]]:
    """`certificate_json`, for tests."""
    return certificate_json


@pytest.fixture(scope="session")
def policy_values() -> Callable[..., dict[str, Any]]:
    """`policy_json`, for tests."""
    return policy_json


@pytest.fixture
def without_river(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves ADWIN out of the watch: it is not needed for most tests, and loads for seconds."""
    monkeypatch.setitem(sys.modules, "river", None)
    monkeypatch.delitem(sys.modules, "river.drift", raising=False)


@pytest.fixture(scope="session")
def real_gpu() -> str:
    """The UUID of the driver's first GPU; without one the test is skipped."""
    try:
        pynvml.nvmlInit()
        return str(pynvml.nvmlDeviceGetUUID(pynvml.nvmlDeviceGetHandleByIndex(0)))
    except pynvml.NVMLError as exc:
        pytest.skip(f"needs an NVIDIA GPU: {exc}")
