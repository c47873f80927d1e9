"""Search for the arrangements that carry a load for the fewest watts, or the largest load."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from hybridserve_llm.planner.arrangements import Arrangement, arrangements
from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.columns import Columns, columns_of
from hybridserve_llm.planner.demand import Demand
from hybridserve_llm.planner.milp import best_choice
from hybridserve_llm.planner.replica_table import Tables

RATE_PRECISION = 1e-3
"""Precision of the largest rate, as a share of it."""

_MOST_DOUBLINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Hold one arrangement and how many of it run."""

    arrangement: Arrangement
    replicas: int

    @property
    def n_gpus(self) -> int:
        """Return the number of its GPUs."""
        return self.replicas * self.arrangement.n_gpus


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """Hold the arrangements that run on a cluster under a demand.

    Attributes:
        power_w: Watts of all GPUs, parked ones included.
        latency_s: Mean time that a request spends in all tiers that it asks.
    """

    cluster: Cluster
    demand: Demand
    choices: tuple[Choice, ...]
    power_w: float
    latency_s: float

    @property
    def n_gpus(self) -> int:
        """Return the number of GPUs in use."""
        return sum(choice.n_gpus for choice in self.choices)

    @property
    def parked_power_w(self) -> float:
        """Return the watts of the GPUs that are not in use."""
        return self.cluster.parked_w() - sum(
            choice.n_gpus * choice.arrangement.gpu_type.idle_bare_w for choice in self.choices
        )

    @property
    def energy_j_per_request(self) -> float:
        """Return the joules of all GPUs for each request."""
        return self.power_w / self.demand.requests_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Planner:
    """Search one cluster; tables are computed once for all demands on it."""

    cluster: Cluster
    tables: Tables

    def best(self, demand: Demand) -> Solution | None:
        """Return the best solution by `demand.objective`; None where nothing carries the load.

        With `throughput` the load given is the least. The solution's demand then has the largest
        load that the cluster carries, to `RATE_PRECISION`, for the fewest watts at that load.
        """
        choices = arrangements(self.cluster, demand.tiers, self.tables)
        found = self._best_of(demand, choices)
        if found is None or demand.objective == "energy":
            return found
        return self._quickest(found, choices)

    def runners_up(self, solution: Solution) -> tuple[Solution, ...]:
        """Return the best solution without each part of this one, cheapest first, each once.

        A part is a set of tiers on one GPU type in one shape of parallelism.
        """
        choices = arrangements(self.cluster, solution.demand.tiers, self.tables)
        columns = columns_of(self.cluster, solution.demand, choices)
        found: dict[tuple[_PartKey, ...], Solution] = {}
        for part in _parts(solution):
            others = [place for place, choice in enumerate(choices) if _part_of(choice) != part]
            kept = np.flatnonzero(np.isin(columns.arrangement, others))
            other = self._solved(solution.demand, columns.subset(kept))
            if other is not None:
                found.setdefault(_parts(other), other)
        return tuple(sorted(found.values(), key=lambda other: (other.power_w, other.n_gpus)))

    def largest_rate_per_s(self, demand: Demand) -> float:
        """Return the largest rate that the cluster carries within bounds; 0 if it carries none."""
        choices = arrangements(self.cluster, demand.tiers, self.tables)
        found = self._best_of(demand, choices)
        if found is not None:
            return self._quickest(found, choices).demand.requests_per_s
        for _ in range(_MOST_DOUBLINGS):
            demand = replace(demand, requests_per_s=demand.requests_per_s / 2)
            found = self._best_of(demand, choices)
            if found is not None:
                return self._quickest(found, choices).demand.requests_per_s
        return 0.0

    def _best_of(self, demand: Demand, choices: tuple[Arrangement, ...]) -> Solution | None:
        return self._solved(demand, columns_of(self.cluster, demand, choices))

    def _solved(self, demand: Demand, columns: Columns) -> Solution | None:
        found = best_choice(columns.problem)
        if found is None:
            return None
        return Solution(
            cluster=self.cluster,
            demand=demand,
            choices=tuple(
                Choice(
                    arrangement=columns.arrangements[columns.arrangement[k]],
                    replicas=int(columns.replicas[k]),
                )
                for k in found
            ),
            power_w=self.cluster.parked_w() + columns.problem.power_of(found),
            latency_s=float(columns.problem.latency_s[list(found)].sum()),
        )

    def _quickest(self, found: Solution, choices: tuple[Arrangement, ...]) -> Solution:
        """Return the solution at the largest rate, by doubling and halving from one that fits."""
        too_much = None
        for _ in range(_MOST_DOUBLINGS):
            if too_much is not None and too_much <= found.demand.requests_per_s * (
                1 + RATE_PRECISION
            ):
                break
            rate = found.demand.requests_per_s
            tried = 2 * rate if too_much is None else (rate + too_much) / 2
            better = self._best_of(replace(found.demand, requests_per_s=tried), choices)
            if better is None:
                too_much = tried
            else:
                found = better
        return found


_PartKey = tuple[int, str, int, int]


def _part_of(choice: Arrangement) -> _PartKey:
    return choice.serves, choice.gpu_type.name, choice.group_size, choice.n_groups


def _parts(solution: Solution) -> tuple[_PartKey, ...]:
    return tuple(sorted(_part_of(choice.arrangement) for choice in solution.choices))


def described(solution: Solution) -> Iterator[str]:
    """Yield each choice of the solution in words, with the GPU type if there are several types."""
    for choice in solution.choices:
        arrangement = choice.arrangement
        names = " + ".join(solution.demand.tiers[r.tier].name for r in arrangement.replicas)
        shared = " share" if arrangement.is_shared else ""
        kind = f" on {arrangement.gpu_type.name}" if len(solution.cluster.types) > 1 else ""
        yield f"{names}{shared} {choice.replicas} x {shape_in_words(arrangement)}{kind}"


def shape_in_words(arrangement: Arrangement) -> str:
    """Return the parallel sizes in words, such as `TP 2` or `TP 8 PP 2`."""
    stages = f" PP {arrangement.n_groups}" if arrangement.n_groups > 1 else ""
    return f"TP {arrangement.group_size}{stages}"
