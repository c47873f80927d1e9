"""Build the application from a configuration and the endpoints of running engines.

This is the composition root: the one file of the server that sees all parts.
"""

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from hybridserve_llm.books.energy_report import EnergyReport
from hybridserve_llm.books.keeping_books import KeptBooks, books_apart, books_here
from hybridserve_llm.books.meter_sites import Metered, PowerModel, Probes
from hybridserve_llm.books.metering import SWITCHED_OFF
from hybridserve_llm.books.sinks import open_sinks
from hybridserve_llm.cascade.climb import Tier
from hybridserve_llm.cascade.policies import Policies
from hybridserve_llm.cascade.router import CascadeRouter
from hybridserve_llm.clock import SystemClock
from hybridserve_llm.confidence.day_zero import DayZeroScorer, Reads
from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.config.certificate import Certificate
from hybridserve_llm.energy.attribution import TokenWeights
from hybridserve_llm.engines.replica_set import ReplicaSet
from hybridserve_llm.engines.vllm_http import VllmHttpEngine
from hybridserve_llm.errors import ConfigError, ServingError
from hybridserve_llm.interfaces import Clock
from hybridserve_llm.promise.certified import certified_parts
from hybridserve_llm.promise.fingerprint import CheckpointFacts, checkpoint_name, fingerprint_of
from hybridserve_llm.promise.standing import CERTIFICATE_STATUSES, STATES, Standing, standing_of
from hybridserve_llm.promise.view import CascadeView
from hybridserve_llm.promise.watching import watch_of
from hybridserve_llm.server.app import create_app
from hybridserve_llm.server.auth import ApiKeys, load_api_keys
from hybridserve_llm.server.energy_metrics import EnergyCollector
from hybridserve_llm.server.parts import InFlight, Parts
from hybridserve_llm.server.watch_metrics import WatchCollector
from hybridserve_llm.telemetry.engine_metrics import EngineCollector, EngineReport
from hybridserve_llm.telemetry.journal import Journal
from hybridserve_llm.telemetry.metrics import Metrics
from hybridserve_llm.watch.control import Watch

log = logging.getLogger(__name__)

BOOKKEEPER = (sys.executable, "-m", "hybridserve_llm.books.bookkeeper_process")
"""The program that `Serving.bookkeeper` usually names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """Hold what the front end has to know next to the configuration.

    Attributes:
        endpoints: For every tier, the base URLs (`http://…` or `unix:/path`) of its replicas.
        checkpoints: The known facts of each tier's checkpoint, for the fingerprint.
        certificate: The source of the policy; without one, the configuration's thresholds are.
        allow_uncertified: Whether to use a certificate's policy where its fingerprint differs.
        state_folder: Where the watch keeps its state, unless the configuration names a file.
        engines: Returns the engines that were started for this cascade, as they stand when it is
            called; None where nobody watches over engines.
        acknowledged_by: Who wants a standing alarm of the watch lifted; None lifts nothing.
        gpu_uuids: For every tier on GPUs of this machine, the GPUs of each of its replicas.
        parked_gpu_uuids: GPUs of this machine that its plan leaves without work.
        power_models: By tier, the power model that stands in for a meter without an answer.
        token_weights: By tier, the weights of tokens when joules are shared.
        gear: The planner's name of the plan that runs; None where it made only one plan.
        probes: The meters of this machine, for books that are kept in this process.
        bookkeeper: The program that keeps the books in a process of its own, such as `BOOKKEEPER`.
            None keeps them in this process, which costs it a tenth of its requests a second.
    """

    endpoints: Mapping[str, Sequence[str]]
    checkpoints: Mapping[str, CheckpointFacts] = field(default_factory=dict)
    certificate: Certificate | None = None
    allow_uncertified: bool = False
    state_folder: Path | None = None
    engines: Callable[[], Sequence[EngineReport]] | None = None
    acknowledged_by: str | None = None
    gpu_uuids: Mapping[str, Sequence[Sequence[str]]] = field(default_factory=dict)
    parked_gpu_uuids: Sequence[str] = ()
    power_models: Mapping[str, PowerModel] = field(default_factory=dict)
    token_weights: Mapping[str, TokenWeights] = field(default_factory=dict)
    gear: str | None = None
    probes: Probes = field(default_factory=Probes)
    bookkeeper: Sequence[str] | None = None


def build_app(config: CascadeConfig, serving: Serving) -> FastAPI:
    """Return the front end over running engines; reads API keys from environment and disk.

    Raises:
        ConfigError: A tier has no endpoint, an API key that the configuration names is missing, or
            the certificate is for other tiers or another version of this program.
    """
    clock = SystemClock()
    api_keys = load_api_keys(config.server, os.environ)
    replicas = {tier.name: _replicas(tier, serving.endpoints, clock) for tier in config.tiers}
    if serving.certificate is not None:  # refused before anything is started
        names = [tier.name for tier in config.tiers]
        certified_parts(serving.certificate, names, is_certified=False)

    return create_app(lambda: _open_parts(config, serving, replicas, api_keys, clock))


@contextlib.asynccontextmanager
async def _open_parts(
    config: CascadeConfig,
    serving: Serving,
    replicas: Mapping[str, Sequence[VllmHttpEngine]],
    api_keys: ApiKeys,
    clock: Clock,
) -> AsyncIterator[Parts]:
    """Hold the parts open, with their background work, until the block ends."""
    async with contextlib.AsyncExitStack() as stack:
        for engines in replicas.values():
            for engine in engines:
                stack.push_async_callback(engine.aclose)
        metrics = Metrics(CollectorRegistry())
        sinks = open_sinks(config, metrics, stack)
        books = await _books(config, serving, metrics, clock, stack)
        energy, journal = books.energy, Journal([*sinks, *books.sinks], clock=clock)
        sets = {
            name: ReplicaSet(name, engines, clock=clock, observer=books.observer)
            for name, engines in replicas.items()
        }
        _show_energy(metrics, config, energy)
        view = await _view(config, serving, replicas)
        standing = view.standing
        watch = _watch(config, serving, view, sets, clock)
        in_flight = InFlight(config.server.max_concurrent_requests)
        _watch_all(metrics, standing, watch, in_flight, sets, serving.engines)
        interval_s = config.server.health_interval_s
        background = [set_.watch_health(interval_s) for set_ in sets.values()]
        background += [journal.run(), *books.background]
        await stack.enter_async_context(
            _running([*background, watch.run()] if watch is not None else background)
        )
        stack.callback(journal.deliver)  # before the books, running until then, are closed
        tiers = [
            await _tier(tier, sets[tier.name], replicas[tier.name], standing.reads)
            for tier in config.tiers
        ]
        yield Parts(
            config=config.server,
            router=CascadeRouter(
                tiers,
                _policies(config, standing, watch),
                journal=journal,
                clock=clock,
                energy_reason=energy().reason if energy else SWITCHED_OFF,
            ),
            tiers=sets,
            clock=clock,
            registry=metrics.registry,
            api_keys=api_keys,
            in_flight=in_flight,
            started_at_s=int(clock.wall_s()),
            cascade=view,
            watch=watch,
            energy=energy,
            answered=metrics.answered,
            catch_up=journal.deliver,
            responses=metrics.responses,
        )


def _show_energy(
    metrics: Metrics, config: CascadeConfig, energy: Callable[[], EnergyReport] | None
) -> None:
    metrics.show_cascade(config.tiers[-1].name, None if energy is None else energy().component)
    if energy is not None:
        metrics.registry.register(EnergyCollector(energy))


def _watch(
    config: CascadeConfig,
    serving: Serving,
    view: CascadeView,
    sets: Mapping[str, ReplicaSet],
    clock: Clock,
) -> Watch | None:
    return watch_of(
        config,
        serving.certificate,
        view,
        sets,
        clock,
        serving.state_folder,
        acknowledged_by=serving.acknowledged_by,
    )


def _policies(config: CascadeConfig, standing: Standing, watch: Watch | None) -> Policies:
    certificate = config.certificate
    return Policies(
        default=standing.default,
        last_only=standing.last_only,
        strict=standing.strict,
        coverage=standing.coverage,
        uncertified="; ".join(standing.reasons),
        uncovered=None if certificate is None else certificate.uncovered,
        watcher=watch,
    )


async def _books(
    config: CascadeConfig,
    serving: Serving,
    metrics: Metrics,
    clock: Clock,
    stack: contextlib.AsyncExitStack,
) -> KeptBooks:
    metered = metered_of(config, serving)
    if serving.bookkeeper is None:
        return await books_here(config, metered, serving.probes, metrics, clock, stack)
    return await books_apart(config, metered, serving.bookkeeper, metrics, clock)


def metered_of(config: CascadeConfig, serving: Serving) -> Metered:
    """Return every replica, with the GPUs that it uses here and with its socket.

    The GPUs are known of replicas that were started here. Where the configuration names GPUs for
    Zeus, those count instead.
    """
    places = [
        (tier, f"{tier.name}/{i}", i, address)
        for tier in config.tiers
        for i, address in enumerate(serving.endpoints[tier.name])
    ]
    local = [place for place in places if not place[0].endpoints]
    gpus: dict[str, Sequence[str]] = {
        name: uuids[i]
        for tier, name, i, _ in local
        if i < len(uuids := serving.gpu_uuids.get(tier.name, ()))
    }
    if config.energy.zeus_gpus:  # whoever names them says that they are here, launched or not
        named = config.energy.zeus_gpus
        gpus = {
            name: [str(gpu) for gpu in named[tier.name][i]]
            for tier, name, i, _ in places
            if i < len(named.get(tier.name, ()))
        }
    return Metered(
        replicas={name: tier.name for tier, name, _, _ in places},
        gpu_uuids=gpus,
        parked_uuids=() if config.energy.zeus_gpus else serving.parked_gpu_uuids,
        sockets={
            name: address.removeprefix("unix:")
            for _, name, _, address in local
            if address.startswith("unix:")
        },
        power_models=serving.power_models,
        token_weights=serving.token_weights,
        launcher_pid=os.getpid(),
    )


def _watch_all(
    metrics: Metrics,
    standing: Standing,
    watch: Watch | None,
    in_flight: InFlight,
    sets: Mapping[str, ReplicaSet],
    engines: Callable[[], Sequence[EngineReport]] | None,
) -> None:
    """Register the metrics that are read when they are scraped."""
    metrics.watch_gauges(
        lambda: in_flight.count,
        {name: _healthy_count(set_) for name, set_ in sets.items()},
        {name: _outstanding_count(set_) for name, set_ in sets.items()},
    )
    metrics.show_state(standing.state, STATES)
    metrics.show_certificate(standing.certificate, CERTIFICATE_STATUSES)
    if watch is not None:
        metrics.registry.register(WatchCollector(watch.snapshot))
    if engines is not None:
        metrics.registry.register(EngineCollector(engines))


async def _view(
    config: CascadeConfig, serving: Serving, replicas: Mapping[str, Sequence[VllmHttpEngine]]
) -> CascadeView:
    """Return the fingerprint and the standing of the cascade as it runs now."""
    versions = {name: await _version(engines) for name, engines in replicas.items()}
    fingerprint = fingerprint_of(config, serving.checkpoints, versions)
    standing = standing_of(
        config,
        serving.certificate,
        fingerprint,
        allow_uncertified=serving.allow_uncertified,
    )
    for reason in standing.reasons if serving.certificate is not None else ():
        log.warning("certificate: %s", reason)
    return CascadeView(
        models={tier.name: checkpoint_name(tier.model) for tier in config.tiers},
        active_parameters={
            tier.name: facts.active_parameters
            if (facts := serving.checkpoints.get(tier.name))
            else None
            for tier in config.tiers
        },
        fingerprint=fingerprint,
        standing=standing,
        certificate=serving.certificate,
        gear=serving.gear,
    )


async def _version(engines: Sequence[VllmHttpEngine]) -> str | None:
    """Return the version that the first replica reports; None where none does."""
    for engine in engines:
        with contextlib.suppress(ServingError):
            version = await engine.version()
            if version is not None:
                return version
    return None


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
        VllmHttpEngine(
            address, model=served_name, clock=clock, name=f"{tier.name}/{i}", api_key=api_key
        )
        for i, address in enumerate(addresses)
    ]


def _healthy_count(replica_set: ReplicaSet) -> Callable[[], int]:
    return lambda: replica_set.n_up


def _outstanding_count(replica_set: ReplicaSet) -> Callable[[], int]:
    return lambda: replica_set.outstanding


@contextlib.asynccontextmanager
async def _running(work: Sequence[Coroutine[Any, Any, None]]) -> AsyncIterator[None]:
    """Run background work until the block ends."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one) for one in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def _tier(
    config: TierConfig,
    replica_set: ReplicaSet,
    engines: Sequence[VllmHttpEngine],
    reads: Reads,
) -> Tier:
    is_reasoning = config.engine.reasoning_parser is not None
    end_id = None
    if is_reasoning:
        end_id = await _reasoning_end_id(config, engines)
    return Tier(
        name=config.name,
        model=checkpoint_name(config.model),
        engine=replica_set,
        scorer=DayZeroScorer(is_reasoning=is_reasoning, reasoning_end_id=end_id, reads=reads),
        needs_token_ids=is_reasoning,
        timeout_s=config.timeout_s,
        max_model_len=await _max_model_len(engines),
    )


async def _max_model_len(engines: Sequence[VllmHttpEngine]) -> int | None:
    """Return what the first replica that answers holds; None where none says."""
    for engine in engines:
        with contextlib.suppress(ServingError):
            return (await engine.describe()).max_model_len
    return None


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
        "scored",
        config.name,
        config.reasoning_end_token,
    )
    return None
