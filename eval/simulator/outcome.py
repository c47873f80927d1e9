"""What a simulated run comes to: latencies, goodput, joules and GPU-hours."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from eval.simulator.cascade import AskedTier, CascadeRun, SimulatedTier
from eval.simulator.workload import Floats
from hybridserve_llm.profiles.grades import Grade, worst_grade

_SECONDS_AN_HOUR = 3600.0
_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Mean and percentiles of some seconds."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a request must keep to count for goodput; None for no bound."""

    ttft_s: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOutcome:
    """One tier; seconds are of its own attempts, from their arrival at the tier.

    Attributes:
        requests: Attempts; `refused` of them were longer than its engines take.
        replicas: All that were started; `gpus` the GPUs that they held, on average over all time.
        busy_share: Of the time in which its replicas were loaded.
        mean_batch: Sequences that decode at a time in each replica, over that time.
        energy_j: Of all its replicas: while they worked, `idle_energy_j` of it while they waited,
            and `loading_energy_j` of it while they loaded their weights.
        prompt_tokens: Computed, those computed anew after `preempted` included.
        itl_s: Mean seconds between tokens of an answer; None where no answer has two.
    """

    tier: str
    replicas: int
    gpus: float
    requests: int
    refused: int
    busy_share: float
    mean_batch: float
    energy_j: float
    idle_energy_j: float
    loading_energy_j: float
    prompt_tokens: int
    output_tokens: int
    preempted: int
    ttft_s: Spread | None
    itl_s: float | None
    latency_s: Spread | None
    grade: Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The whole cascade; seconds as the client has them.

    Attributes:
        failed: Requests that every tier refused.
        horizon_s: From the first arrival to the last token of all; energy is counted over it.
        answer_tokens: Tokens of the answers that clients were given.
        goodput_per_s: Requests a second within all bounds; `good_share` of all requests. None
            without bounds.
        energy_j: Of all GPUs: working, waiting and parked.
        gpu_hours: Of all GPUs that are not parked; `parked_gpu_hours` of those.
        events: Stretches of steps that were simulated.
    """

    requests: int
    failed: int
    horizon_s: float
    answer_tokens: int
    latency_s: Spread | None
    ttft_s: Spread | None
    goodput_per_s: float | None
    good_share: float | None
    energy_j: float
    parked_energy_j: float
    energy_j_per_request: float
    energy_j_per_answer_token: float | None
    gpu_hours: float
    parked_gpu_hours: float
    events: int
    grade: Grade
    tiers: tuple[TierOutcome, ...]

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return asdict(self)


def outcome(run: CascadeRun, bounds: Bounds) -> Outcome:
    """Adds up a run."""
    latency_s = run.finish_s - run.requests.arrival_s
    ttft_s = run.first_token_s - run.requests.arrival_s
    is_answered = run.answered_by >= 0
    answer_tokens = int(run.requests.output_tokens[is_answered].sum())
    tiers = tuple(_tier(tier, asked, run) for tier, asked in _pairs(run))
    hold_s = [_hold_s(tier, asked, run) for tier, asked in _pairs(run)]
    parked_j = run.cascade.parked_w * run.horizon_s - sum(
        float((held * _of_lives(tier, "parked_w")).sum())
        for tier, held in zip(run.cascade.tiers, hold_s, strict=True)
    )
    energy_j = sum(tier.energy_j for tier in tiers) + parked_j
    gpu_hours = sum(tier.gpus for tier in tiers) * run.horizon_s / _SECONDS_AN_HOUR
    all_hours = run.cascade.n_gpus * run.horizon_s / _SECONDS_AN_HOUR
    good = _good(ttft_s, latency_s, bounds)
    return Outcome(
        requests=len(run.requests),
        failed=int(np.count_nonzero(~is_answered)),
        horizon_s=run.horizon_s,
        answer_tokens=answer_tokens,
        latency_s=spread(latency_s[is_answered]),
        ttft_s=spread(ttft_s[is_answered]),
        goodput_per_s=None if good is None else good / run.horizon_s,
        good_share=None if good is None else good / len(run.requests),
        energy_j=energy_j,
        parked_energy_j=parked_j,
        energy_j_per_request=energy_j / len(run.requests),
        energy_j_per_answer_token=energy_j / answer_tokens if answer_tokens else None,
        gpu_hours=gpu_hours,
        parked_gpu_hours=all_hours - gpu_hours,
        events=sum(asked.run.n_events for asked in run.tiers),
        grade=worst_grade(tier.grade for tier in tiers),
        tiers=tiers,
    )


def spread(seconds: Floats) -> Spread | None:
    """Mean and percentiles; None of nothing."""
    if not len(seconds):
        return None
    p50, p90, p95, p99 = np.percentile(seconds, _PERCENTILES).tolist()
    return Spread(mean=float(seconds.mean()), p50=p50, p90=p90, p95=p95, p99=p99)


def _good(ttft_s: Floats, latency_s: Floats, bounds: Bounds) -> int | None:
    """Requests within the bounds; one without an answer is not."""
    if bounds.ttft_s is None and bounds.latency_s is None:
        return None
    # Comparisons with NaN are false.
    is_good = latency_s <= (np.inf if bounds.latency_s is None else bounds.latency_s)
    is_good &= ttft_s <= (np.inf if bounds.ttft_s is None else bounds.ttft_s)
    return int(np.count_nonzero(is_good))


def _pairs(run: CascadeRun) -> Iterator[tuple[SimulatedTier, AskedTier]]:
    return zip(run.cascade.tiers, run.tiers, strict=True)


def _of_lives(tier: SimulatedTier, name: str) -> Floats:
    return np.array([getattr(life.table, name) for life in tier.lives])


def _loading_s(tier: SimulatedTier) -> Floats:
    """Seconds that each replica took to load."""
    return np.array([life.ready_s - life.begins_s for life in tier.lives])


def _hold_s(tier: SimulatedTier, asked: AskedTier, run: CascadeRun) -> Floats:
    """Seconds that each replica held its GPUs: until it is closed and has ended what it had."""
    closes_s = np.array([min(life.closes_s, run.horizon_s) for life in tier.lives])
    begins_s = np.array([min(life.begins_s, run.horizon_s) for life in tier.lives])
    return np.asarray(np.maximum(closes_s, asked.run.worked_until_s) - begins_s)


def _tier(tier: SimulatedTier, asked: AskedTier, run: CascadeRun) -> TierOutcome:
    done, hold_s = asked.run, _hold_s(tier, asked, run)
    loading_s = np.minimum(_loading_s(tier), hold_s)
    loading_j = float((loading_s * _of_lives(tier, "idle_w")).sum())
    loaded_s = hold_s - loading_s
    idle_j = float(((loaded_s - done.busy_s) * _of_lives(tier, "idle_w")).sum())
    is_done = ~np.isnan(done.finish_s)
    decode_s = (done.finish_s - done.first_token_s)[is_done].sum()
    n_gaps = int((run.requests.output_tokens[asked.asked][is_done] - 1).sum())
    return TierOutcome(
        tier=tier.name,
        replicas=len(tier.lives),
        gpus=float((hold_s * _of_lives(tier, "n_gpus")).sum()) / run.horizon_s,
        requests=len(asked.asked),
        refused=int(np.count_nonzero(~is_done)),
        busy_share=float(done.busy_s.sum() / loaded_s.sum()),
        mean_batch=float(done.sequence_s.sum() / loaded_s.sum()),
        energy_j=float(done.energy_j.sum()) + idle_j + loading_j,
        idle_energy_j=idle_j,
        loading_energy_j=loading_j,
        prompt_tokens=done.n_prompt_tokens,
        output_tokens=done.n_output_tokens,
        preempted=done.n_preempted,
        ttft_s=spread((done.first_token_s - asked.arrival_s)[is_done]),
        itl_s=float(decode_s / n_gaps) if n_gaps else None,
        latency_s=spread((done.finish_s - asked.arrival_s)[is_done]),
        grade=worst_grade(life.table.grade for life in tier.lives),
    )
