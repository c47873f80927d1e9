"""Engines as Prometheus sees them."""

from typing import get_args

from prometheus_client import CollectorRegistry

from hybridserve_llm.telemetry.engine_metrics import (
    ENGINE_STATES,
    EngineCollector,
    EngineReport,
)
from launch.running.state_file import EngineCondition


def test_state_and_restarts_are_those_of_the_moment_of_the_scrape() -> None:
    engines: list[EngineReport] = []
    registry = CollectorRegistry()
    registry.register(EngineCollector(lambda: engines))
    labels = {"tier": "giant", "replica": "1"}
    assert registry.get_sample_value("hybridserve_engine_restarts_total", labels) is None
    engines.append(EngineReport(tier="giant", replica="1", state="restarting", restarts=2))
    assert registry.get_sample_value("hybridserve_engine_restarts_total", labels) == 2
    shown = {
        state: registry.get_sample_value("hybridserve_engine_state", {**labels, "state": state})
        for state in ENGINE_STATES
    }
    assert shown == {"starting": 0, "healthy": 0, "restarting": 1, "failed": 0}


def test_states_are_the_launchers() -> None:
    assert get_args(EngineCondition) == ENGINE_STATES
