"""The composition root: configuration and endpoints in, application out; it sees all parts."""

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from hybridserve_llm.cascade.policy import SkipRule, TierRule
from hybridserve_llm.cascade.router import CascadeRouter, Tier
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.confidence.day_zero import DayZeroScorer
from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.engines.replica_set import ReplicaSet
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.errors import ConfigError, ServingError
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.server.app import create_app
from hybridserve_llm.server.auth import load_api_keys
from hybridserve_llm.server.convert import checkpoint_name
from hybridserve_llm.server.parts import InFlight, Parts
from hybridserve_llm.telemetry.metrics import Metrics

log = logging.getLogger(__name__)


def build_app(config: CascadeConfig, endpoints: Mapping[str, Sequence[str]]) -> FastAPI:
    """The front end over running engines.

    Args:
        config: The cascade; its API keys are read from the environment and disk here.
        endpoints: For every tier, the base URLs (`http://…` or `unix:/path`) of its replicas.

    Raises:
        ConfigError: A tier has no endpoint, or an API key that the configuration names is missing.
    """
    clock = SystemClock()
    api_keys = load_api_keys(config.server, os.environ)
    replicas = {tier.name: _replicas(tier, endpoints, clock) for tier in config.tiers}

    @contextlib.asynccontextmanager
    async def open_parts() -> AsyncIterator[Parts]:
        async with contextlib.AsyncExitStack() as stack:
            for engines in replicas.values():
                for engine in engines:
                    stack.push_async_callback(engine.aclose)
            metrics = Metrics(CollectorRegistry())
            in_flight = InFlight(config.server.max_concurrent_requests)
            sets = {
                name: ReplicaSet(name, engines, clock=clock) for name, engines in replicas.items()
            }
            metrics.watch_gauges(
                lambda: in_flight.count, {name: _healthy_count(set_) for name, set_ in sets.items()}
            )
            await stack.enter_async_context(_watched(sets, config.server.health_interval_s))
            tiers = [
                await _tier(tier, i, config, sets[tier.name], replicas[tier.name])
                for i, tier in enumerate(config.tiers)
            ]
            yield Parts(
                config=config.server,
                router=CascadeRouter(tiers, sink=metrics, clock=clock),
                tiers=sets,
                clock=clock,
                registry=metrics.registry,
                api_keys=api_keys,
                in_flight=in_flight,
                started_at_s=int(clock.wall_s()),
            )

    return create_app(open_parts)


def _replicas(
    tier: TierConfig, endpoints: Mapping[str, Sequence[str]], clock: Clock
) -> list[VllmHttpEngine]:
    addresses = endpoints.get(tier.name, ())
    if not addresses:
        raise ConfigError(f"tier {tier.name!r} has no endpoint")
    api_key = None
    if tier.api_key_env is not None:
        api_key = os.environ.get(tier.api_key_env)
        if api_key is None:
            raise ConfigError(
                f"tier {tier.name!r}: api_key_env names {tier.api_key_env}, which is not set"
            )
    # Engines that were started for the tier serve under its name, others under the model's own.
    served_name = tier.model if tier.endpoints else tier.name
    return [
        VllmHttpEngine(address, model=served_name, clock=clock, api_key=api_key)
        for address in addresses
    ]


def _healthy_count(replica_set: ReplicaSet) -> Callable[[], int]:
    return lambda: replica_set.n_up


@contextlib.asynccontextmanager
async def _watched(sets: Mapping[str, ReplicaSet], interval_s: float) -> AsyncIterator[None]:
    """Probes every replica's health until the block ends."""
    async with asyncio.TaskGroup() as group:
        watching = [
            group.create_task(replica_set.watch_health(interval_s)) for replica_set in sets.values()
        ]
        try:
            yield
        finally:
            for task in watching:
                task.cancel()


async def _tier(
    config: TierConfig,
    index: int,
    cascade: CascadeConfig,
    replica_set: ReplicaSet,
    engines: Sequence[VllmHttpEngine],
) -> Tier:
    is_last = index == len(cascade.tiers) - 1
    is_reasoning = config.engine.reasoning_parser is not None
    end_id = None
    if is_reasoning and not is_last:
        end_id = await _reasoning_end_id(config, engines)
    return Tier(
        name=config.name,
        model=checkpoint_name(config.model),
        engine=replica_set,
        scorer=DayZeroScorer(is_reasoning=is_reasoning, reasoning_end_id=end_id),
        rule=_rule(config, cascade),
        needs_token_ids=is_reasoning,
    )


async def _reasoning_end_id(config: TierConfig, engines: Sequence[VllmHttpEngine]) -> int | None:
    for engine in engines:
        try:
            found = await engine.token_id_of(config.reasoning_end_token)
        except ServingError:
            continue
        if found is not None:
            return found
    log.warning(
        "tier %s: %r is not one token of any replica's vocabulary, so none of its answers can be "
        "scored and all of them escalate",
        config.name,
        config.reasoning_end_token,
    )
    return None


def _rule(config: TierConfig, cascade: CascadeConfig) -> TierRule:
    names = [tier.name for tier in cascade.tiers]
    if config.accept is None:  # the last tier: its rule is never asked
        return TierRule(accept_at=0.0)
    return TierRule(
        accept_at=config.accept.score_at_least,
        skips=tuple(
            SkipRule(score_below=band.score_below, to_tier=names.index(band.to))
            for band in config.skip
        ),
    )
