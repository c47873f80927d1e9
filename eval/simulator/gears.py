"""Change the replicas of a cascade with the load, by plans made for several loads (gears).

A controller looks at the rate of arrivals every few seconds. It changes up as soon as the rate is
above what the gear is planned for; down only once the rate has stayed well below a lower gear's for
a while (hysteresis). New replicas load their weights first; those that go take no more requests
once the new ones are ready, and end what they have:

    change ── new ones load ── new ones ready, old ones close ── old ones end their requests

What it does follows from the arrivals alone, so all changes are known before anything is simulated.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from eval.simulator.cascade import SimulatedTier
from eval.simulator.step_table import StepTable
from eval.simulator.tier import ReplicaLife
from eval.simulator.workload import Floats
from hybridserve_llm.errors import CannotBeDone


@dataclass(frozen=True, slots=True, kw_only=True)
class GearRules:
    """Hold the rules of when to change gears, in seconds.

    Attributes:
        every_s: Between two looks at the rate.
        window_s: Over which arrivals are counted.
        hold_s: How long the rate must have allowed a lower gear.
        down_share: Part of the lower gear's rate that it must have stayed within.
        load_s: In which a new replica is ready.
    """

    every_s: float = 10.0
    window_s: float = 60.0
    hold_s: float = 300.0
    down_share: float = 0.9
    load_s: float = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedGear:
    """Hold a plan for one load.

    Attributes:
        requests_per_s: What it is planned for, head-room kept.
        tables: Of each replica, tier by tier; replicas of one shape have the same table.
    """

    requests_per_s: float
    tables: tuple[tuple[StepTable, ...], ...]

    @property
    def n_gpus(self) -> int:
        """Return the number of GPUs of all its replicas."""
        return sum(table.n_gpus for tier in self.tables for table in tier)


@dataclass(frozen=True, slots=True, kw_only=True)
class GearChange:
    """Say that from `at_s` on new replicas load for `gear`, counted from the lowest."""

    at_s: float
    gear: int


def gear_changes(
    arrival_s: Floats, rates_per_s: Sequence[float], rules: GearRules
) -> tuple[GearChange, ...]:
    """Return all changes, the gear at the start first; none begins while another is under way.

    The gear at the start is that of the first window: a cascade that has served for long knows it.

    Args:
        arrival_s: Of all requests, never falling.
        rates_per_s: What each gear is planned for, rising.
        rules: When to change.
    """
    last_s = max(float(arrival_s[-1]), rules.window_s)
    looks_s = np.arange(rules.window_s, last_s + rules.every_s, rules.every_s)
    seen = np.searchsorted(arrival_s, looks_s, side="right") - np.searchsorted(
        arrival_s, looks_s - rules.window_s, side="right"
    )
    rates = seen / rules.window_s
    changes = [GearChange(at_s=0.0, gear=_gear_for(float(rates[0]), rates_per_s))]
    ready_s, low_since_s = 0.0, None
    for at_s, rate in zip(looks_s.tolist(), rates.tolist(), strict=True):
        gear = changes[-1].gear
        up, down = _gear_for(rate, rates_per_s), _gear_for(rate / rules.down_share, rates_per_s)
        low_since_s = (at_s if low_since_s is None else low_since_s) if down < gear else None
        if at_s < ready_s:
            continue
        is_low = low_since_s is not None and at_s - low_since_s >= rules.hold_s
        if up > gear or is_low:
            changes.append(GearChange(at_s=at_s, gear=up if up > gear else down))
            ready_s, low_since_s = at_s + rules.load_s, None
    return tuple(changes)


def geared_tiers(
    tiers: Sequence[tuple[str, float]],
    gears: Sequence[SimulatedGear],
    changes: Sequence[GearChange],
    rules: GearRules,
    *,
    n_gpus: int,
) -> tuple[SimulatedTier, ...]:
    """Return the tiers with their replicas and the time in which each is there.

    Args:
        tiers: Name and reach of each.
        gears: Rising.
        changes: Of `gear_changes`.
        rules: How long loading takes.
        n_gpus: GPUs that are there.

    Raises:
        CannotBeDone: A change needs more GPUs than are there, old and new replicas together.
    """
    made = []
    needed = [0] * len(changes)
    for place, (name, reach) in enumerate(tiers):
        wanted = [gears[change.gear].tables[place] for change in changes]
        lives = _lives(wanted, [change.at_s for change in changes], rules)
        made.append(SimulatedTier(name=name, reach=reach, lives=lives))
        for i, change in enumerate(changes):
            needed[i] += sum(
                life.table.n_gpus
                for life in lives
                if life.begins_s <= change.at_s and life.closes_s >= change.at_s
            )
    for change, n in zip(changes, needed, strict=True):
        if n > n_gpus:
            raise CannotBeDone(
                f"changing gears at {change.at_s:.0f} s needs {n} GPUs, old and new replicas "
                f"together; there are {n_gpus}"
            )
    return tuple(made)


def _gear_for(rate: float, rates_per_s: Sequence[float]) -> int:
    """Return the lowest gear planned for `rate` or more, else the highest."""
    return min(int(np.searchsorted(rates_per_s, rate, side="left")), len(rates_per_s) - 1)


def _lives(
    wanted: Sequence[tuple[StepTable, ...]], times_s: Sequence[float], rules: GearRules
) -> tuple[ReplicaLife, ...]:
    """Keep replicas of a shape that both gears have; the others load, or close."""
    running = [ReplicaLife(table=table) for table in wanted[0]]
    ended: list[ReplicaLife] = []
    for tables, at_s in zip(wanted[1:], times_s[1:], strict=True):
        left = list(tables)
        kept, going = [], []
        for life in running:
            same = next((i for i, table in enumerate(left) if table is life.table), None)
            if same is None:
                going.append(life)
            else:
                del left[same]
                kept.append(life)
        ready_s = at_s + rules.load_s
        new = [ReplicaLife(table=table, begins_s=at_s, ready_s=ready_s) for table in left]
        ended += [replace(life, closes_s=ready_s if new else at_s) for life in going]
        running = kept + new
    return (*ended, *running)
