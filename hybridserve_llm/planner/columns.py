"""Make the columns of a load: every arrangement, in every number that carries the load.

Tiers that share GPUs share their time too. No measurement of that exists, so simple assumptions
are made, and figures of shared GPUs have the grade `datasheet`:

* an engine is busy for as long as it would be alone; while another is busy too, the GPU turns to
  both in equal slices, so that all times grow by the sum of the others' busy shares;
* turning from one to another takes time: work done while another is busy costs a tenth more, in
  time, utilisation and power above idle;
* utilisations add up, and together leave the head-room;
* power above idle adds up, to TDP at most; the idle power of the GPUs is paid once.

Watts of a tier are rounded to whole numbers, as nothing here is known more exactly. Solutions that
differ by less are a tie, which goes to fewer GPUs and then to lower latency.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hybridserve_llm.planner.arrangements import Arrangement
from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.demand import Demand, TierTime
from hybridserve_llm.planner.problem import BoolArray, FloatArray, IntArray, Problem
from hybridserve_llm.planner.replica_table import ReplicaTable

_TURNING_COST = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Hold columns; column k stands for `arrangements[arrangement[k]]`, `replicas[k]` times."""

    problem: Problem
    arrangements: tuple[Arrangement, ...]
    arrangement: IntArray
    replicas: IntArray

    def subset(self, kept: IntArray) -> "Columns":
        """Return only the columns `kept`, in that order."""
        return Columns(
            problem=self.problem.subset(kept),
            arrangements=self.arrangements,
            arrangement=self.arrangement[kept],
            replicas=self.replicas[kept],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TierLoad:
    """Hold the figures of one tier in an arrangement; all arrays have the shape of its rates.

    Attributes:
        table: Figures of a replica alone.
        rate_per_s: Requests that one replica gets.
        power_w: One replica's part of the arrangement's power: its watts above idle, and an equal
            part of the idle power of GPUs that it shares.
        latency_s: Mean time of a request.
        stretch: Factor by which times are longer than those of a replica alone; `latency_s`
            includes it.
    """

    table: ReplicaTable
    rate_per_s: FloatArray
    utilisation: FloatArray
    power_w: FloatArray
    latency_s: FloatArray
    stretch: FloatArray | float = 1.0

    def time_s(self, name: TierTime) -> FloatArray:
        """Return the time called `name`, in seconds; looked up on demand, as few are bounded."""
        return self.table.time_at(name, self.rate_per_s) * self.stretch


def columns_of(cluster: Cluster, demand: Demand, choices: Sequence[Arrangement]) -> Columns:
    """Return the columns that keep head-room and bounds, in the order of `choices`.

    Of one arrangement, few replicas come first.
    """
    parts = []
    for place, choice in enumerate(choices):
        counts = _counts(cluster, demand, choice)
        if not len(counts):
            continue
        loads = loads_of(choice, [demand.rates_per_s[r.tier] / counts for r in choice.replicas])
        kept = np.flatnonzero(keeps_bounds(demand, choice, loads))
        if len(kept):
            parts.append(_block(cluster, demand, (place, choice), counts[kept], loads, kept))
    return _joined(cluster, demand, tuple(choices), parts)


def loads_of(choice: Arrangement, rates_per_s: Sequence[FloatArray]) -> tuple[TierLoad, ...]:
    """Return the load of each replica of `choice` at `rates_per_s`, one array for each."""
    loads = [
        TierLoad(
            table=replica.table,
            rate_per_s=rate,
            utilisation=rate / replica.table.max_rate_per_s,
            power_w=replica.table.power_at(rate),
            latency_s=replica.table.latency_at(rate),
        )
        for replica, rate in zip(choice.replicas, rates_per_s, strict=True)
    ]
    return _sharing(choice, rates_per_s, loads) if choice.is_shared else tuple(loads)


def _sharing(
    choice: Arrangement, rates_per_s: Sequence[FloatArray], alone: Sequence[TierLoad]
) -> tuple[TierLoad, ...]:
    """Return the loads under sharing, from those of each replica `alone`; see the top."""
    tables = [replica.table for replica in choice.replicas]
    idle_w, tdp_w = tables[0].idle_w, tables[0].tdp_w
    busy = [table.busy_at(rate) for table, rate in zip(tables, rates_per_s, strict=True)]
    others = [np.sum(busy[:i] + busy[i + 1 :], axis=0) for i in range(len(busy))]
    turning = [1 + _TURNING_COST * np.minimum(1.0, other) for other in others]
    above_w = [
        np.maximum(load.power_w - idle_w, 0.0) * cost
        for load, cost in zip(alone, turning, strict=True)
    ]
    total_w = np.sum(above_w, axis=0)
    scale = np.minimum(1.0, (tdp_w - idle_w) / np.maximum(total_w, 1e-9))
    return tuple(
        replace(
            load,
            utilisation=load.utilisation * cost,
            power_w=own_w * scale + idle_w / len(alone),
            latency_s=load.latency_s * (1 + other) * cost,
            stretch=(1 + other) * cost,
        )
        for load, own_w, other, cost in zip(alone, above_w, others, turning, strict=True)
    )


def tier_power_w(power_w: FloatArray, replicas: IntArray | int) -> FloatArray:
    """Return the watts of all replicas of a tier, rounded, from those of one replica."""
    return np.rint(power_w * replicas)


def keeps_bounds(demand: Demand, choice: Arrangement, loads: Sequence[TierLoad]) -> BoolArray:
    """Return where head-room and the bounds on time are kept.

    The bound on a whole request's latency is checked for the tiers of `choice` only.
    """
    utilisation = np.sum([load.utilisation for load in loads], axis=0)
    kept: BoolArray = utilisation <= (1 - demand.head_room) * (1 + 1e-12)
    for load in loads:
        kept &= np.isfinite(load.latency_s)
        for name, bound in demand.slo.of_tiers:
            kept &= load.time_s(name) <= bound
    if demand.slo.latency_s is not None:
        kept &= latency_of_request(demand, choice, loads) <= demand.slo.latency_s
    return kept


def latency_of_request(
    demand: Demand, choice: Arrangement, loads: Sequence[TierLoad]
) -> FloatArray:
    """Return the seconds that the tiers of `choice` add to a request's mean latency."""
    parts = [
        demand.tiers[replica.tier].reach * load.latency_s
        for replica, load in zip(choice.replicas, loads, strict=True)
    ]
    total: FloatArray = np.sum(parts, axis=0)
    return total


def _pinned_replicas(demand: Demand, choice: Arrangement) -> int | None:
    """Return the number of replicas that the operator fixed for a tier of `choice`, or None."""
    for replica in choice.replicas:
        if (n_fixed := demand.tiers[replica.tier].replicas) is not None:
            return n_fixed
    return None


def _counts(cluster: Cluster, demand: Demand, choice: Arrangement) -> IntArray:
    """Return the numbers of replicas to try: from those needed to those that the GPUs hold."""
    most = cluster.n_groups(choice.gpu_type, choice.group_size) // choice.n_groups
    n_fixed = _pinned_replicas(demand, choice)
    if n_fixed is not None:
        return np.arange(n_fixed, n_fixed + (n_fixed <= most), dtype=np.int64)
    # With fewer replicas the load would break the head-room in any case.
    needed = sum(
        demand.rates_per_s[replica.tier] / replica.table.max_rate_per_s
        for replica in choice.replicas
    ) / (1 - demand.head_room)
    least = max(1, int(np.ceil(min(needed - 1e-9, most + 1))))
    return np.arange(least, most + 1, dtype=np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class _ColumnBlock:
    """Hold the columns of one arrangement; arrays [n] or [n, n_budgets]."""

    arrangement: IntArray
    serves: IntArray
    replicas: IntArray
    gpus: IntArray
    power_w: FloatArray
    latency_s: FloatArray
    uses: IntArray


def _block(
    cluster: Cluster,
    demand: Demand,
    placed: tuple[int, Arrangement],
    counts: IntArray,
    loads: Sequence[TierLoad],
    kept: IntArray,
) -> _ColumnBlock:
    place, choice = placed
    n_gpus = counts * choice.n_gpus
    watts = np.sum([tier_power_w(load.power_w[kept], counts) for load in loads], axis=0)
    return _ColumnBlock(
        arrangement=np.full(len(counts), place, dtype=np.int64),
        serves=np.full(len(counts), choice.serves, dtype=np.int64),
        replicas=counts,
        gpus=n_gpus,
        power_w=watts - n_gpus * choice.gpu_type.idle_bare_w,
        latency_s=latency_of_request(demand, choice, loads)[kept],
        uses=cluster.uses(
            choice.gpu_type, group_size=choice.group_size, n_groups=counts * choice.n_groups
        ),
    )


def _joined(
    cluster: Cluster,
    demand: Demand,
    choices: tuple[Arrangement, ...],
    parts: Sequence[_ColumnBlock],
) -> Columns:
    """Return the arrays of all parts, one after the other."""
    no_int = np.empty(0, dtype=np.int64)
    no_float = np.empty(0, dtype=np.float64)
    no_uses = np.empty((0, len(cluster.budget_rows())), dtype=np.int64)
    return Columns(
        problem=Problem(
            n_tiers=len(demand.tiers),
            serves=np.concatenate([no_int, *(part.serves for part in parts)]),
            power_w=np.concatenate([no_float, *(part.power_w for part in parts)]),
            gpus=np.concatenate([no_int, *(part.gpus for part in parts)]),
            latency_s=np.concatenate([no_float, *(part.latency_s for part in parts)]),
            uses=np.concatenate([no_uses, *(part.uses for part in parts)]),
            budgets=cluster.budgets(),
            latency_limit_s=demand.slo.latency_s,
        ),
        arrangements=choices,
        arrangement=np.concatenate([no_int, *(part.arrangement for part in parts)]),
        replicas=np.concatenate([no_int, *(part.replicas for part in parts)]),
    )
