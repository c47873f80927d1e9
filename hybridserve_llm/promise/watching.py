"""Build the watch over a certified cascade from its certificate and its configuration."""

from collections.abc import Mapping
from pathlib import Path

from hybridserve_llm.confidence.agreement import normal_form
from hybridserve_llm.config.cascade import CascadeConfig, WatchConfig
from hybridserve_llm.config.certificate import Certificate, PolicyPart
from hybridserve_llm.interfaces import Clock, Engine
from hybridserve_llm.promise.view import CascadeView
from hybridserve_llm.values.requests import GenerateRequest
from hybridserve_llm.watch.control import Watch
from hybridserve_llm.watch.settings import (
    ShadowSettings,
    WatchedCascade,
    WatchedPolicy,
    WatchSettings,
)

STATE_FILE = "watch.json"


def watch_of(
    config: CascadeConfig,
    certificate: Certificate | None,
    view: CascadeView,
    engines: Mapping[str, Engine],
    clock: Clock,
    state_folder: Path | None,
    *,
    acknowledged_by: str | None = None,
) -> Watch | None:
    """Return the watch; None where the policy accepts nothing, or the state has no place.

    An alarm that is kept in the state is lifted where `acknowledged_by` names who wants it.

    Raises:
        ConfigError: The state cannot be written.
    """
    state_path = config.watch.state_file or (state_folder and state_folder / STATE_FILE)
    if view.standing.state != "certified" or certificate is None or state_path is None:
        return None
    policy = _watched(certificate.policy)
    if policy is None:
        return None
    watch = Watch(
        WatchedCascade(
            fingerprint=view.fingerprint.hash,
            policy=policy,
            strict_policy=_watched(certificate.strict_policy),
        ),
        _settings(config.watch),
        last_tier=engines[config.tiers[-1].name],
        agrees=agree,
        clock=clock,
        state_path=state_path,
    )
    if acknowledged_by is not None and watch.snapshot().alarm is not None:
        watch.acknowledge(by=acknowledged_by)
    return watch


def agree(request: GenerateRequest, accepted: str, last: str) -> bool | None:
    """Return whether two answers have one normal form; None where one has nothing to compare."""
    one, other = normal_form(accepted), normal_form(last)
    return None if one is None or other is None else one == other


def _watched(part: PolicyPart | None) -> WatchedPolicy | None:
    """Return the policy to be watched; None where it accepts nothing below the last tier."""
    if part is None:
        return None
    accepting = tuple((tier, share) for tier, share in part.acceptance.items() if share > 0)
    if not accepting:
        return None
    return WatchedPolicy(epsilon=part.disagreement, acceptance=accepting)


def _settings(config: WatchConfig) -> WatchSettings:
    return WatchSettings(
        shadow=ShadowSettings(
            share=config.shadow_share,
            floor_per_day=config.floor_per_day,
            queue_size=config.shadow_queue,
            concurrency=config.shadow_concurrency,
            timeout_s=config.shadow_timeout_s,
            priority=config.shadow_priority,
            seed=config.seed,
        ),
        delta=config.delta,
        horizon_requests=config.horizon_requests,
        warning_e_value=config.warning_e_value,
        adwin_delta=config.adwin_delta,
        save_interval_s=config.save_interval_s,
    )
