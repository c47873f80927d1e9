"""The watch's metrics: every family from one snapshot, read at the time of the scrape."""

from collections.abc import Iterator
from dataclasses import replace

from prometheus_client import CollectorRegistry, generate_latest

from hybridserve_llm.server.watch_metrics import WatchCollector
from hybridserve_llm.watch.snapshot import (
    Alarm,
    MonitorSnapshot,
    TierSnapshot,
    WatchCounts,
    WatchSnapshot,
)

MONITOR = MonitorSnapshot(
    name="all tiers",
    budget=0.04,
    labels=30,
    losses=2.0,
    e_value=1.5,
    alarm_at=2000.0,
    is_alarm=False,
)
COUNTS = WatchCounts(
    accepted=100,
    shadowed=40,
    compared=30,
    disagreed=2,
    cannot_tell=3,
    failed=4,
    dropped=5,
    stale=1,
)
TIER = TierSnapshot(tier="small", counts=COUNTS, score_warnings=None, accept_warnings=None)
CALM = WatchSnapshot(
    status="ok",
    level="normal",
    reasons=(),
    alarm=None,
    monitors=(MONITOR, replace(MONITOR, name="small", e_value=0.25)),
    tiers=(TIER, replace(TIER, tier="medium", counts=WatchCounts())),
    adwin="not installed",
    state_notes=(),
    n_acknowledged=0,
    shadow_prompt_tokens=70,
    shadow_completion_tokens=80,
)
ALARMED = replace(
    CALM, status="alarm", level="escalate", alarm=Alarm(reason="lost too much", at_s=1.0)
)


def lines(registry: CollectorRegistry) -> list[str]:
    text = generate_latest(registry).decode()
    return [line for line in text.splitlines() if not line.startswith("#")]


def test_everything_is_told_as_the_watch_stands() -> None:
    registry = CollectorRegistry()
    registry.register(WatchCollector(lambda: CALM))
    assert lines(registry) == [
        'hybridserve_watch_status{status="ok"} 1.0',
        'hybridserve_watch_status{status="warning"} 0.0',
        'hybridserve_watch_status{status="alarm"} 0.0',
        'hybridserve_watch_level{level="normal"} 1.0',
        'hybridserve_watch_level{level="strict"} 0.0',
        'hybridserve_watch_level{level="escalate"} 0.0',
        'hybridserve_watch_e_value{monitor="all tiers"} 1.5',
        'hybridserve_watch_e_value{monitor="small"} 0.25',
        'hybridserve_watch_alarm_e_value{monitor="all tiers"} 2000.0',
        'hybridserve_watch_alarm_e_value{monitor="small"} 2000.0',
        'hybridserve_watch_accepted_total{tier="small"} 100.0',
        'hybridserve_watch_accepted_total{tier="medium"} 0.0',
        'hybridserve_watch_shadowed_total{tier="small"} 40.0',
        'hybridserve_watch_shadowed_total{tier="medium"} 0.0',
        *settled("small", compared=30, disagreed=2, cannot_tell=3, failed=4, dropped=5, stale=1),
        *settled("medium", compared=0, disagreed=0, cannot_tell=0, failed=0, dropped=0, stale=0),
        'hybridserve_watch_shadow_tokens_total{kind="prompt"} 70.0',
        'hybridserve_watch_shadow_tokens_total{kind="completion"} 80.0',
    ]


def settled(tier: str, **counts: int) -> Iterator[str]:
    for outcome, n in counts.items():
        yield f'hybridserve_watch_settled_total{{outcome="{outcome}",tier="{tier}"}} {n}.0'


def test_the_snapshot_is_taken_when_it_is_scraped_and_not_before() -> None:
    snapshots = [CALM, ALARMED]
    registry = CollectorRegistry()
    registry.register(WatchCollector(lambda: snapshots.pop(0)))
    assert 'hybridserve_watch_status{status="ok"} 1.0' in lines(registry)
    then = lines(registry)
    assert 'hybridserve_watch_status{status="alarm"} 1.0' in then
    assert 'hybridserve_watch_status{status="ok"} 0.0' in then
    assert 'hybridserve_watch_level{level="escalate"} 1.0' in then
    assert snapshots == []
