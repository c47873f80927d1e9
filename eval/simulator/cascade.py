"""A whole cascade under a stream of requests: tier by tier, cheapest first.

Which tiers a request asks is drawn before it is simulated, from the share of requests that reach
each tier, independently of its length. Its prompt and its answer have the trace's lengths at every
tier. The router itself takes no time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from eval.simulator.tier import ReplicaLife, TierRun, run_tier
from eval.simulator.workload import Floats, Ints, Requests
from hybridserve_llm.errors import ConfigError

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTier:
    """One tier.

    Attributes:
        reach: Share of requests that ask it.
        lives: Its replicas, and when each is there.
    """

    name: str
    reach: float
    lives: tuple[ReplicaLife, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCascade:
    """Tiers, cheapest first, and the GPUs that are there.

    Attributes:
        n_gpus: GPUs in all; those that no replica has are parked.
        parked_w: Watts that all of them together would draw parked.
    """

    tiers: tuple[SimulatedTier, ...]
    n_gpus: int
    parked_w: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTier:
    """What became of the requests that asked one tier.

    Attributes:
        asked: Which requests, in the order in which they came to this tier, [m].
        arrival_s: When they came to it, [m].
        run: What the tier did with them.
    """

    asked: Ints
    arrival_s: Floats
    run: TierRun


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeRun:
    """What became of n requests.

    Attributes:
        answered_by: Place of the tier that answered, [n]; -1 where every tier refused.
        first_token_s: When the client had the first token, [n]: an answer below the last tier is
            held until it is accepted. NaN without an answer.
        finish_s: When it had the last, [n]; NaN likewise.
        horizon_s: From the first arrival to the last token of all.
    """

    cascade: SimulatedCascade
    requests: Requests
    answered_by: Ints
    first_token_s: Floats
    finish_s: Floats
    tiers: tuple[AskedTier, ...]
    horizon_s: float


def drawn_visits(reaches: Sequence[float], n_requests: int, *, seed: int) -> NDArray[np.bool_]:
    """Which tiers each request asks, [n, number of tiers]; every request asks one at least.

    One number a request, between 0 and 1, is compared with all reaches, so that who asks a tier has
    asked all tiers with a larger reach. A tier with a reach of 0 is not part of the chain. Who does
    not ask the chain's first tier goes to the last at once, as by a gate; the last tier's other
    requests come up the chain.

    Raises:
        ConfigError: The shares cannot be those of a cascade.
    """
    inner, last = [reach for reach in reaches[:-1] if reach > 0], reaches[-1]
    if any(low < high for low, high in pairwise(inner)):
        raise ConfigError(f"reaches {_shares(reaches)} rise below the last tier; they must fall")
    first, before_last = (inner[0], inner[-1]) if inner else (0.0, 0.0)
    climbing = last - (1 - first)
    if not -_ROUNDING <= climbing <= before_last + _ROUNDING:
        raise ConfigError(
            f"reaches {_shares(reaches)}: {1 - first:.4g} of requests ask no tier below the last, "
            f"so its reach must be {1 - first:.4g} to {1 - first + before_last:.4g}"
        )
    draw = np.random.default_rng(seed).random(n_requests)
    visits = draw[:, None] < np.array([*reaches[:-1], climbing])
    visits[:, -1] |= draw >= first
    return visits


def run_cascade(cascade: SimulatedCascade, requests: Requests, *, seed: int) -> CascadeRun:
    """Simulates until every request is done; the same seed gives the same run.

    A request that a tier refuses goes on to the next, as with the router.

    Raises:
        ConfigError: The reaches cannot be those of a cascade.
    """
    visits = drawn_visits([tier.reach for tier in cascade.tiers], len(requests), seed=seed)
    now_s = requests.arrival_s.copy()
    answered_by = np.full(len(requests), -1, dtype=np.int64)
    first_token_s = np.full(len(requests), np.nan)
    tiers = []
    looks_s = (requests.window.begins_s, requests.window.ends_s)
    last = len(cascade.tiers) - 1
    for place, tier in enumerate(cascade.tiers):
        asked = np.flatnonzero(visits[:, place])
        asked = asked[np.argsort(now_s[asked], kind="stable")]
        came_s = now_s[asked]
        run = run_tier(
            tier.lives, replace(requests.taken(asked), arrival_s=came_s), looks_s=looks_s
        )
        tiers.append(AskedTier(asked=asked, arrival_s=came_s, run=run))
        is_done = ~np.isnan(run.finish_s)
        if place < last:
            visits[asked[~is_done], place + 1] = True
        now_s[asked[is_done]] = run.finish_s[is_done]
        answered_by[asked] = np.where(is_done, place, -1)
        shown_s = run.first_token_s if place == last else run.finish_s
        first_token_s[asked] = shown_s
    is_answered = answered_by >= 0
    finish_s = np.where(is_answered, now_s, np.nan)
    return CascadeRun(
        cascade=cascade,
        requests=requests,
        answered_by=answered_by,
        first_token_s=np.where(is_answered, first_token_s, np.nan),
        finish_s=finish_s,
        tiers=tuple(tiers),
        horizon_s=float(now_s.max()),
    )


def _shares(reaches: Sequence[float]) -> str:
    return ", ".join(f"{reach:.4g}" for reach in reaches)
