"""Run a whole cascade under a stream of requests: tier by tier, cheapest first.

Which tiers a request asks is drawn before it is simulated, from the share of requests that reach
each tier, independently of its length. Its prompt and its answer have the trace's lengths, times
what a tier's own are longer on average. The router itself takes no time.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from eval.simulator.tier import ReplicaLife, TierRun, run_tier
from eval.simulator.workload import Floats, Ints, Requests
from hybridserve_llm.errors import ConfigError

_ROUNDING = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedTier:
    """Describe one tier: its share of the requests and its replicas.

    Attributes:
        reach: Share of requests that ask it.
        lives: Its replicas, and when each is there.
        prompt_scale: Tokens of a prompt here, over those of the request; `output_scale` likewise.
    """

    name: str
    reach: float
    lives: tuple[ReplicaLife, ...]
    prompt_scale: float = 1.0
    output_scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedCascade:
    """Hold the tiers, cheapest first, and the GPUs of the cluster.

    Attributes:
        n_gpus: All GPUs; those without a replica are parked.
        parked_w: Watts that all of them together would draw parked.
        planned_for_per_s: Requests a second that it was planned for; None where it is not known.
        keeps_slo: Whether its planner found that it keeps the bounds it was given; None without.
    """

    tiers: tuple[SimulatedTier, ...]
    n_gpus: int
    parked_w: float
    planned_for_per_s: float | None = None
    keeps_slo: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskedTier:
    """Hold the results of the requests that asked one tier.

    Attributes:
        asked: Which requests, in the order in which they came to this tier, [m].
        arrival_s: When they came to it, [m].
        output_tokens: Of its answers to them, [m].
        run: What the tier did with them.
    """

    asked: Ints
    arrival_s: Floats
    output_tokens: Ints
    run: TierRun


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeRun:
    """Hold the results of n requests.

    Attributes:
        requests: The requests, with `output_tokens` of the answers that clients were given.
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
    """Draw which tiers each request asks, [n, number of tiers]; every request asks at least one.

    One number a request, between 0 and 1, decides for all tiers. The first tier with a reach has
    those up to its reach. The others pass it, as by a gate: to the last tier as far as its reach
    goes, else to the one before, and so on. What a tier's reach leaves beyond these it has from the
    smallest numbers on: who asks a tier has asked all tiers with a larger reach, and tiers with a
    smaller one are skipped.

    Raises:
        ConfigError: The shares come to less than 1, so that some requests would ask no tier.
    """
    if sum(reaches) < 1 - _ROUNDING:
        raise ConfigError(
            f"reaches {_shares(reaches)} come to {sum(reaches):.4g}: every request asks one tier "
            "at least, so they must come to 1 or more"
        )
    draw = np.random.default_rng(seed).random(n_requests)
    visits = np.zeros((n_requests, len(reaches)), dtype=np.bool_)
    first = next(place for place, reach in enumerate(reaches) if reach > 0)
    visits[:, first] = draw < reaches[first]
    passed_to = 1.0
    for place in reversed(range(first + 1, len(reaches))):
        passed_from = max(reaches[first], passed_to - reaches[place])
        beyond = reaches[place] - (passed_to - passed_from)
        # The smallest numbers that are not passed to it anyway.
        up_to = beyond if beyond <= passed_from else reaches[place]
        visits[:, place] = ((passed_from <= draw) & (draw < passed_to)) | (draw < up_to)
        passed_to = passed_from
    # Whom rounding of the shares left out.
    visits[~visits.any(axis=1), -1] = True
    return visits


def run_cascade(cascade: SimulatedCascade, requests: Requests, *, seed: int) -> CascadeRun:
    """Simulate until every request is done; the same seed gives the same run.

    A request that a tier refuses goes on to the next, as with the router.

    Raises:
        ConfigError: The reaches cannot be those of a cascade.
    """
    visits = drawn_visits([tier.reach for tier in cascade.tiers], len(requests), seed=seed)
    now_s = requests.arrival_s.copy()
    answered_by = np.full(len(requests), -1, dtype=np.int64)
    first_token_s = np.full(len(requests), np.nan)
    output_tokens = requests.output_tokens.copy()
    tiers = []
    looks_s = (requests.window.begins_s, requests.window.ends_s)
    last = len(cascade.tiers) - 1
    for place, tier in enumerate(cascade.tiers):
        asked = np.flatnonzero(visits[:, place])
        asked = asked[np.argsort(now_s[asked], kind="stable")]
        came_s = now_s[asked]
        asking = _scaled(requests.taken(asked), tier, came_s)
        run = run_tier(tier.lives, asking, looks_s=looks_s)
        tiers.append(
            AskedTier(asked=asked, arrival_s=came_s, output_tokens=asking.output_tokens, run=run)
        )
        is_done = ~np.isnan(run.finish_s)
        if place < last:
            visits[asked[~is_done], place + 1] = True
        now_s[asked[is_done]] = run.finish_s[is_done]
        answered_by[asked] = np.where(is_done, place, -1)
        output_tokens[asked] = asking.output_tokens
        shown_s = run.first_token_s if place == last else run.finish_s
        first_token_s[asked] = shown_s
    is_answered = answered_by >= 0
    finish_s = np.where(is_answered, now_s, np.nan)
    return CascadeRun(
        cascade=cascade,
        requests=replace(requests, output_tokens=output_tokens),
        answered_by=answered_by,
        first_token_s=np.where(is_answered, first_token_s, np.nan),
        finish_s=finish_s,
        tiers=tuple(tiers),
        horizon_s=float(now_s.max()),
    )


def _scaled(requests: Requests, tier: SimulatedTier, arrival_s: Floats) -> Requests:
    """Return the requests as they come to a tier: at these times, with its lengths, at least 1."""
    return Requests(
        arrival_s=arrival_s,
        prompt_tokens=_times(requests.prompt_tokens, tier.prompt_scale),
        output_tokens=_times(requests.output_tokens, tier.output_scale),
    )


def _times(tokens: Ints, scale: float) -> Ints:
    scaled: Ints = np.rint(tokens * scale).astype(np.int64)
    return np.maximum(scaled, 1)


def _shares(reaches: Sequence[float]) -> str:
    return ", ".join(f"{reach:.4g}" for reach in reaches)
