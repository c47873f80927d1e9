"""Run all replicas of a tier under their requests, in order of time.

A cascade sends requests upwards only, so a tier's requests are known once the tiers below are done,
and tiers are simulated one after the other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from eval.simulator.replica import SimulatedReplica
from eval.simulator.step_table import StepTable
from eval.simulator.workload import Floats, Ints, Requests

# Added to the count of requests of a replica that takes none, so that it never has the fewest.
_CLOSED = 1 << 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLife:
    """Hold one replica and the time in which it exists; without gears that is always.

        begins_s ── loads ── ready_s ── takes requests ── closes_s ── ends what it has

    Attributes:
        begins_s: When its GPUs are taken; the model is loaded until `ready_s`.
        ready_s: From when on it takes requests.
        closes_s: Until when it does.
    """

    table: StepTable
    begins_s: float = 0.0
    ready_s: float = 0.0
    closes_s: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """Hold the work of each replica until `at_s`, and its requests at that moment, [r]."""

    at_s: float
    energy_j: Floats
    busy_s: Floats
    sequence_s: Floats
    n_requests: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRun:
    """Hold the results of a tier for n requests.

    Attributes:
        first_token_s: When the first token was there, [n]; NaN where the tier refused it.
        finish_s: When the last was, [n]; NaN likewise.
        replica: Which replica answered, [n]; -1 likewise.
        energy_j: Joules of each replica while it worked, [r].
        busy_s: Seconds in which each worked, [r].
        sequence_s: Seconds times sequences that decoded, [r].
        worked_until_s: When each ended its last work, [r]; 0 of one that had none.
        n_prompt_tokens: Prompt tokens computed, those computed anew included.
        n_output_tokens: Answer tokens made.
        n_events: Stretches of steps that were simulated.
        n_preempted: How often a sequence was put out of a full KV cache.
        looks: How far it was at the moments that were asked for.
    """

    first_token_s: Floats
    finish_s: Floats
    replica: Ints
    energy_j: Floats
    busy_s: Floats
    sequence_s: Floats
    worked_until_s: Floats
    n_prompt_tokens: int
    n_output_tokens: int
    n_events: int
    n_preempted: int
    looks: tuple[Look, ...] = ()


def run_tier(
    lives: Sequence[ReplicaLife], requests: Requests, *, looks_s: Sequence[float] = ()
) -> TierRun:
    """Send every request to the replica with the fewest, round robin among equals.

    As `hybridserve_llm/engines/replica_set.py` does. A request longer than an engine takes is
    refused.

    Args:
        lives: Replicas; the smallest says what is taken. At any time one takes requests.
        requests: In order of arrival.
        looks_s: Moments at which to note how far each replica is, rising.
    """
    n = len(requests)
    room = min(life.table.max_request_tokens for life in lives)
    fits = requests.prompt_tokens + requests.output_tokens <= room
    first_token_s, finish_s, chosen = [-1.0] * n, [-1.0] * n, [-1] * n
    replicas = [SimulatedReplica(life.table, first_token_s, finish_s) for life in lives]
    looks = _run(replicas, lives, requests, fits.tolist(), chosen, looks_s)
    for replica in replicas:
        replica.close_window()
    return TierRun(
        first_token_s=_known(first_token_s),
        finish_s=_known(finish_s),
        replica=np.array(chosen, dtype=np.int64),
        energy_j=np.array([replica.energy_j for replica in replicas]),
        busy_s=np.array([replica.busy_s for replica in replicas]),
        sequence_s=np.array([replica.sequence_s for replica in replicas]),
        worked_until_s=np.array([replica.worked_until_s for replica in replicas]),
        n_prompt_tokens=sum(replica.n_prompt_tokens for replica in replicas),
        n_output_tokens=sum(replica.n_output_tokens for replica in replicas),
        n_events=sum(replica.n_events for replica in replicas),
        n_preempted=sum(replica.n_preempted for replica in replicas),
        looks=looks,
    )


def _run(
    replicas: Sequence[SimulatedReplica],
    lives: Sequence[ReplicaLife],
    requests: Requests,
    fits: list[bool],
    chosen: list[int],
    looks_s: Sequence[float],
) -> tuple[Look, ...]:
    """Process arrivals and ends of stretches in order of time, until nothing is left."""
    # Ends that an arrival made sooner stay in the heap, and count for nothing when they come up.
    ends: list[tuple[float, int]] = []
    outstanding = [0 if life.ready_s <= 0 else _CLOSED for life in lives]
    changes = _changes(lives)
    next_change_s = changes[-1][0] if changes else math.inf
    looks: list[Look] = []
    left_s = [*looks_s, math.inf][::-1]
    turn = 0
    arrivals = zip(
        requests.arrival_s.tolist(),
        requests.prompt_tokens.tolist(),
        requests.output_tokens.tolist(),
        strict=True,
    )
    for request, (at_s, prompt_tokens, output_tokens) in enumerate(arrivals):
        if not fits[request]:
            continue
        while left_s[-1] < at_s:
            looks.append(_look(replicas, ends, outstanding, left_s.pop()))
        while ends and ends[0][0] <= at_s:
            _end(replicas, ends, outstanding)
        while next_change_s <= at_s:
            _, place, change = changes.pop()
            outstanding[place] += change
            next_change_s = changes[-1][0] if changes else math.inf
        fewest = min(outstanding)
        try:
            place = outstanding.index(fewest, turn)
        except ValueError:
            place = outstanding.index(fewest)
        turn = place + 1
        chosen[request] = place
        outstanding[place] += 1
        replica = replicas[place]
        if replica.arrive(request, prompt_tokens, output_tokens, at_s):
            heappush(ends, (replica.next_s, place))
    while left_s[-1] < math.inf:
        looks.append(_look(replicas, ends, outstanding, left_s.pop()))
    while ends:
        _end(replicas, ends, outstanding)
    return tuple(looks)


def _look(
    replicas: Sequence[SimulatedReplica],
    ends: list[tuple[float, int]],
    outstanding: list[int],
    at_s: float,
) -> Look:
    """Go on to `at_s`, before which nothing more arrives, and note what was done."""
    while ends and ends[0][0] <= at_s:
        _end(replicas, ends, outstanding)
    energy_j, busy_s, sequence_s, n_requests = zip(
        *(replica.so_far(at_s) for replica in replicas), strict=True
    )
    return Look(
        at_s=at_s,
        energy_j=np.array(energy_j),
        busy_s=np.array(busy_s),
        sequence_s=np.array(sequence_s),
        n_requests=np.array(n_requests, dtype=np.int64),
    )


def _changes(lives: Sequence[ReplicaLife]) -> list[tuple[float, int, int]]:
    """Return the changes of replicas' counts, last first; openings come before closings."""
    opened = [(life.ready_s, i, -_CLOSED) for i, life in enumerate(lives) if life.ready_s > 0]
    closed = [(life.closes_s, i, _CLOSED) for i, life in enumerate(lives)]
    changes = [change for change in (*opened, *closed) if change[0] < math.inf]
    return sorted(changes, key=lambda change: (change[0], change[2], change[1]), reverse=True)


def _end(
    replicas: Sequence[SimulatedReplica], ends: list[tuple[float, int]], outstanding: list[int]
) -> None:
    end_s, place = heappop(ends)
    replica = replicas[place]
    if replica.next_s != end_s:
        return
    outstanding[place] -= replica.end_stretch()
    if replica.next_s < math.inf:
        heappush(ends, (replica.next_s, place))


def _known(times_s: list[float]) -> Floats:
    times = np.array(times_s)
    return np.where(times < 0, np.nan, times)
