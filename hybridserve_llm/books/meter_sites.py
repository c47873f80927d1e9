"""Decide which devices are metered, for which replicas, and by which meter.

    GPUs    NVML by UUID, or Zeus where the configuration names its GPUs; replicas that share a GPU
            share a site. A model of the tier's power stands in where there is no answer, and is
            never called a measurement.
    CPU     RAPL, split by CPU time of the engines' process trees, with the rest of the machine as
            others. Without it CPU-seconds alone, or joules by watts that the user named.

Only engines that were started here are metered, and those whose GPUs the configuration names. A
counter of this machine says nothing about engines elsewhere.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np

from hybridserve_llm.config.cascade import EnergyConfig
from hybridserve_llm.energy.attribution import TokenWeights
from hybridserve_llm.energy.cpu_time import CpuTimeMeter
from hybridserve_llm.energy.gpu_activity import GpuActivity, WithActivity
from hybridserve_llm.energy.meters import (
    AbsentMeter,
    CpuWattsMeter,
    Ladder,
    ModelMeter,
    TraceMeter,
)
from hybridserve_llm.energy.nvml import GpuMeter, Nvml, PynvmlReader
from hybridserve_llm.energy.processes import engine_trees, tree_of
from hybridserve_llm.energy.rapl import POWERCAP, RaplMeter, rapl_zones, traces_of
from hybridserve_llm.energy.sampler import Sampled
from hybridserve_llm.energy.site import OTHERS, ActivityShares, SiteSettings
from hybridserve_llm.energy.zeus import ZeusReader
from hybridserve_llm.errors import MeterFault
from hybridserve_llm.interfaces import Clock, EnergyMeter
from hybridserve_llm.values.joules import Activity

ELSEWHERE = "its engine was not started here, so no meter of this machine sees it"
_CPU_SECONDS_PERIOD_S = 0.95
"""Seconds between readings of CPU time that is only counted and splits no joules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerModel:
    """Hold the watts of one replica of a tier, all its GPUs together, at several batch sizes.

    Attributes:
        batch: Requests that run, rising.
        watts: Watts at these; between them on a straight line, beyond them the nearest.
    """

    batch: tuple[float, ...]
    watts: tuple[float, ...]
    grade: str

    def power_w(self, activity: Activity) -> float:
        """Return the watts while the replica does this."""
        return float(np.interp(activity.running, self.batch, self.watts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Metered:
    """Describe the replicas and devices that are to be metered.

    Attributes:
        replicas: Every replica (`tier/number`) with its tier.
        gpu_uuids: The GPUs of replicas that run on GPUs of this machine.
        sockets: Of replicas that were started here, the word that their command lines name.
        parked_uuids: GPUs of this machine that the plan leaves without a replica.
        power_models: By tier, what stands in for a meter.
        token_weights: By tier, what tokens count; 1 each where a tier is not named.
        launcher_pid: The process whose children the engines are; None for this one.
    """

    replicas: Mapping[str, str]
    gpu_uuids: Mapping[str, Sequence[str]] = field(default_factory=dict)
    parked_uuids: Sequence[str] = ()
    sockets: Mapping[str, str] = field(default_factory=dict)
    power_models: Mapping[str, PowerModel] = field(default_factory=dict)
    token_weights: Mapping[str, TokenWeights] = field(default_factory=dict)
    launcher_pid: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """Say where this machine's meters are; tests put their own in their place."""

    open_nvml: Callable[[], Nvml] = PynvmlReader
    open_zeus: Callable[[], Nvml] = ZeusReader
    powercap: Path = POWERCAP


_Made = tuple[SiteSettings, EnergyMeter]


class SiteMaker:
    """Make the sites of one machine."""

    def __init__(
        self, config: EnergyConfig, metered: Metered, clock: Clock, probes: Probes
    ) -> None:
        self._config = config
        self._metered = metered
        used = {uuid for gpus in metered.gpu_uuids.values() for uuid in gpus}
        uuids = sorted(used | set(metered.parked_uuids))
        self.gpus: dict[str, GpuMeter] = {}
        self._no_nvml = self._no_rapl = ""
        self._clock = clock
        self._nvml: Nvml | None = None
        self._activities: list[GpuActivity] = []
        try:
            open_gpus = probes.open_zeus if config.zeus_gpus else probes.open_nvml
            self._nvml = nvml = open_gpus() if uuids else None
            self.gpus = {uuid: GpuMeter(uuid, nvml, clock=clock) for uuid in uuids if nvml}
        except MeterFault as exc:
            self._no_nvml = str(exc)
        try:
            zones = rapl_zones(probes.powercap) if metered.sockets else ()
        except MeterFault as exc:
            zones, self._no_rapl = (), str(exc)
        self._rapl = [RaplMeter(zone, clock=clock) for zone in zones]
        launcher_pid = metered.launcher_pid or os.getpid()
        self.cpu_time = CpuTimeMeter(
            metered.sockets,
            lambda: engine_trees(metered.sockets, tree_of(launcher_pid)[1:]),
            clock=clock,
            period_s=0.0 if self._rapl or config.watts_per_busy_core else _CPU_SECONDS_PERIOD_S,
        )
        self.why_null: str | None = None

    @property
    def sampled(self) -> list[Sampled]:
        """Return what is read at every turn; CPU time is last, so it reaches as far as RAPL."""
        own: list[Sampled] = [self.cpu_time] if self._metered.sockets else []
        return [*self.gpus.values(), *self._rapl, *own, *self._activities]

    def sites(self) -> list[_Made]:
        """Return all sites, those of the main component first."""
        if self._metered.gpu_uuids:
            more = self._cpu_sites() if self._rapl else []
            sites = [*self._gpu_sites(), *self._parked_sites(), *more]
            return [*sites, *self._rapl_sites("dram")]
        return [*self._cpu_sites(), *self._rapl_sites("dram")]

    def _settings(
        self, component: str, names: Sequence[str], activity: ActivityShares | None = None
    ) -> SiteSettings:
        replicas = self._metered.replicas
        return SiteSettings(
            component=component,
            replicas={name: replicas[name] for name in names},
            activity=activity,
            weights=self._metered.token_weights,
        )

    def _absent(self, component: str, names: Sequence[str], reason: str) -> _Made:
        return self._settings(component, names), AbsentMeter(reason)

    def _gpu_sites(self) -> list[_Made]:
        made = []
        for names, uuids in groups_by_gpu(self._metered.gpu_uuids):
            rungs: list[EnergyMeter] = [AbsentMeter(self._no_nvml)]
            if self.gpus:
                rungs = [TraceMeter([self.gpus[uuid].trace for uuid in uuids])]
            tiers = {self._metered.replicas[name] for name in names}
            model = self._metered.power_models.get(next(iter(tiers)))
            if len(names) == 1 and model is not None:
                rungs.append(ModelMeter(model.power_w, grade=model.grade))
            elif not self.gpus:
                self.why_null = self._no_nvml
            made.append(self._gpu_site(names, uuids, Ladder(rungs)))
        others = [name for name in self._metered.replicas if name not in self._metered.gpu_uuids]
        return [*made, *(self._absent("gpu", [name], ELSEWHERE) for name in others)]

    def _gpu_site(self, names: Sequence[str], uuids: Sequence[str], meter: EnergyMeter) -> _Made:
        """Make the site of one group of GPUs; shared GPUs are split by what each replica used."""
        if len(names) == 1 or self._nvml is None or not self._metered.sockets:
            return self._settings("gpu", names), meter
        activity = GpuActivity(
            uuids, names, lambda: self.cpu_time.processes, self._nvml, clock=self._clock
        )
        self._activities.append(activity)
        settings = self._settings("gpu", names, activity.shares)
        return replace(settings, is_activity_late=True), WithActivity(meter, activity)

    def _parked_sites(self) -> list[_Made]:
        """Return a site without replicas for all parked GPUs; none where they cannot be read."""
        traces = [self.gpus[uuid].trace for uuid in self._metered.parked_uuids if self.gpus]
        return [(self._settings("gpu", ()), TraceMeter(traces))] if traces else []

    def _cpu_sites(self) -> list[_Made]:
        """Make the sites of the component `cpu`: RAPL, the user's watts, or none."""
        local = list(self._metered.sockets)
        elsewhere = [name for name in self._metered.replicas if name not in local]
        absent = [self._absent("cpu", [name], ELSEWHERE) for name in elsewhere]
        if not local:
            self.why_null = ELSEWHERE
            return absent
        if self._rapl:
            return [*self._rapl_sites("cpu"), *absent]
        watts = self._config.watts_per_busy_core
        models = self._metered.power_models
        if watts is None and all(self._metered.replicas[name] in models for name in local):
            return [*(self._modelled_cpu(name) for name in local), *absent]
        if watts is None:
            self.why_null = (
                f"no energy counter: {self._no_rapl}; CPU-seconds are measured, and become joules "
                "where energy.watts_per_busy_core is set"
            )
            return [*(self._absent("cpu", [name], self.why_null) for name in local), *absent]
        by_watts = [
            (
                self._settings("cpu", [name]),
                CpuWattsMeter(self.cpu_time.traces[name], watts_per_core=watts),
            )
            for name in local
        ]
        return [*by_watts, *absent]

    def _modelled_cpu(self, name: str) -> _Made:
        model = self._metered.power_models[self._metered.replicas[name]]
        rungs: list[EnergyMeter] = [AbsentMeter(self._no_rapl)]
        rungs.append(ModelMeter(model.power_w, grade=model.grade))
        return self._settings("cpu", [name]), Ladder(rungs)

    def _rapl_sites(self, component: Literal["cpu", "dram"]) -> list[_Made]:
        """Make one site for all engines of this machine; none where there is no such counter."""
        traces = traces_of(self._rapl, component)
        if not traces:
            return []
        names = list(self._metered.sockets)
        return [(self._settings(component, names, self._cpu_shares), TraceMeter(traces))]

    def _cpu_shares(self, start_s: float, end_s: float) -> Mapping[str, float] | None:
        """Return the CPU-seconds of each engine and of all else in a span; None if unknown."""
        found = {
            name: trace.between(start_s, end_s).energy_j
            for name, trace in self.cpu_time.traces.items()
        }
        node_s = self.cpu_time.node.between(start_s, end_s).energy_j
        known = {name: used_s for name, used_s in found.items() if used_s is not None}
        if node_s is None or len(known) < len(found):
            return None
        return {**known, OTHERS: max(0.0, node_s - sum(known.values()))}


def groups_by_gpu(
    gpu_uuids: Mapping[str, Sequence[str]],
) -> list[tuple[list[str], list[str]]]:
    """Return the groups of replicas that share GPUs, directly or over others, with their GPUs."""
    groups: list[tuple[list[str], list[str]]] = []
    for name, uuids in gpu_uuids.items():
        touching = [group for group in groups if set(group[1]) & set(uuids)]
        names = [one for group in touching for one in group[0]] + [name]
        gpus = dict.fromkeys([*(one for group in touching for one in group[1]), *uuids])
        groups = [group for group in groups if group not in touching]
        groups.append((names, list(gpus)))
    return groups
