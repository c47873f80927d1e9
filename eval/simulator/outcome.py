"""Sum up a simulated run: latencies, goodput, joules and GPU-hours.

Latencies are of all requests. Joules, GPU-hours and goodput are counted in one window of time, that
of the requests (`Requests.window`), so that cascades under the same requests are compared over the
same seconds: to one that falls behind the hours of its backlog do not count.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eval.simulator.cascade import AskedTier, CascadeRun, SimulatedTier
from eval.simulator.tier import TierRun
from eval.simulator.workload import CountingWindow, Floats
from hybridserve_llm.profiles.grades import Grade, worst_grade

_SECONDS_AN_HOUR = 3600.0
_PERCENTILES = (50.0, 90.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSpread:
    """Hold the mean and percentiles of some durations."""

    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


@dataclass(frozen=True, slots=True, kw_only=True)
class GoodputBounds:
    """Hold the bounds that a request must keep to count for goodput; None for no bound."""

    ttft_s: float | None = None
    latency_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TierOutcome:
    """Hold the figures of one tier; its seconds count from an attempt's arrival at the tier.

    Attempts, tokens and seconds are of all requests; the rest is over the window.

    Attributes:
        requests: Attempts; `refused` of them were longer than its engines take.
        replicas: All that were started; `gpus` the GPUs that they held, on average.
        busy_share: Of the time in which its replicas were loaded; None where none was.
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
    busy_share: float | None
    mean_batch: float | None
    energy_j: float
    idle_energy_j: float
    loading_energy_j: float
    prompt_tokens: int
    output_tokens: int
    preempted: int
    ttft_s: TimeSpread | None
    itl_s: float | None
    latency_s: TimeSpread | None
    grade: Grade


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedOutcome:
    """Hold the figures of the whole cascade; its seconds are those that the client waits.

    Attributes:
        failed: Requests that every tier refused.
        horizon_s: From the first arrival to the last token of all.
        answer_tokens: Tokens of the answers that clients were given.
        window_begins_s: From when on, counted from the first arrival, joules, GPU-hours and goodput
            are counted; `window_ends_s` until when.
        window_answers: Answers that ended within the window.
        goodput_per_s: Requests a second that came within the window and kept all bounds;
            `good_share` of those that came in it. None without bounds.
        energy_j: Of all GPUs in the window: working, waiting and parked.
        energy_j_per_request: Of each answer that ended in the window; None where none did.
        energy_j_per_answer_token: Of each token of these.
        gpu_hours: Of all GPUs that are not parked; `parked_gpu_hours` of those.
        planned_for_per_s: Of the cascade; `keeps_slo` likewise.
        events: Stretches of steps that were simulated.
    """

    planned_for_per_s: float | None
    keeps_slo: bool | None
    requests: int
    failed: int
    horizon_s: float
    answer_tokens: int
    latency_s: TimeSpread | None
    ttft_s: TimeSpread | None
    window_begins_s: float
    window_ends_s: float
    window_answers: int
    goodput_per_s: float | None
    good_share: float | None
    energy_j: float
    parked_energy_j: float
    energy_j_per_request: float | None
    energy_j_per_answer_token: float | None
    gpu_hours: float
    parked_gpu_hours: float
    events: int
    grade: Grade
    tiers: tuple[TierOutcome, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the JSON that `--json` prints."""
        return asdict(self)


def outcome(run: CascadeRun, bounds: GoodputBounds) -> SimulatedOutcome:
    """Add up a run."""
    requests, window = run.requests, _window(run)
    seconds = window.ends_s - window.begins_s
    is_answered = run.answered_by >= 0
    # Comparisons with NaN are false: who has no answer did not end in the window.
    is_ended = (window.begins_s < run.finish_s) & (run.finish_s <= window.ends_s)
    answers, tokens = int(is_ended.sum()), int(requests.output_tokens[is_ended].sum())
    tiers = tuple(_tier(tier, asked, run) for tier, asked in _pairs(run))
    parked_j = run.cascade.parked_w * seconds - sum(
        float((_held_s(tier, asked, window) * _of_lives(tier, "parked_w")).sum())
        for tier, asked in _pairs(run)
    )
    energy_j = sum(tier.energy_j for tier in tiers) + parked_j
    gpu_hours = sum(tier.gpus for tier in tiers) * seconds / _SECONDS_AN_HOUR
    good_share = _good_share(run, bounds)
    came_per_s = int(_came(run).sum()) / seconds if seconds else None
    return SimulatedOutcome(
        planned_for_per_s=run.cascade.planned_for_per_s,
        keeps_slo=run.cascade.keeps_slo,
        requests=len(requests),
        failed=int(np.count_nonzero(~is_answered)),
        horizon_s=run.horizon_s,
        answer_tokens=int(requests.output_tokens[is_answered].sum()),
        latency_s=spread((run.finish_s - requests.arrival_s)[is_answered]),
        ttft_s=spread((run.first_token_s - requests.arrival_s)[is_answered]),
        window_begins_s=window.begins_s,
        window_ends_s=window.ends_s,
        window_answers=answers,
        goodput_per_s=None if good_share is None or came_per_s is None else good_share * came_per_s,
        good_share=good_share,
        energy_j=energy_j,
        parked_energy_j=parked_j,
        energy_j_per_request=energy_j / answers if answers else None,
        energy_j_per_answer_token=energy_j / tokens if tokens else None,
        gpu_hours=gpu_hours,
        parked_gpu_hours=run.cascade.n_gpus * seconds / _SECONDS_AN_HOUR - gpu_hours,
        events=sum(asked.run.n_events for asked in run.tiers),
        grade=worst_grade(tier.grade for tier in tiers),
        tiers=tiers,
    )


def spread(seconds: Floats) -> TimeSpread | None:
    """Return mean and percentiles; None where there are no values."""
    if not len(seconds):
        return None
    p50, p90, p95, p99 = np.percentile(seconds, _PERCENTILES).tolist()
    return TimeSpread(mean=float(seconds.mean()), p50=p50, p90=p90, p95=p95, p99=p99)


def _window(run: CascadeRun) -> CountingWindow:
    """Return the window of the requests; up to the last token where they all came at once."""
    window = run.requests.window
    return CountingWindow(begins_s=window.begins_s, ends_s=min(window.ends_s, run.horizon_s))


def _came(run: CascadeRun) -> NDArray[np.bool_]:
    """Return for each request whether it came within the window."""
    window, arrival_s = run.requests.window, run.requests.arrival_s
    return (window.begins_s <= arrival_s) & (arrival_s <= window.ends_s)


def _good_share(run: CascadeRun, bounds: GoodputBounds) -> float | None:
    """Share of those that came within the window and kept the bounds; without an answer none is."""
    if bounds.ttft_s is None and bounds.latency_s is None:
        return None
    arrival_s = run.requests.arrival_s
    # Comparisons with NaN are false.
    is_good = run.finish_s - arrival_s <= (np.inf if bounds.latency_s is None else bounds.latency_s)
    is_good &= run.first_token_s - arrival_s <= (np.inf if bounds.ttft_s is None else bounds.ttft_s)
    return float(is_good[_came(run)].mean())


def _pairs(run: CascadeRun) -> Iterator[tuple[SimulatedTier, AskedTier]]:
    return zip(run.cascade.tiers, run.tiers, strict=True)


def _of_lives(tier: SimulatedTier, name: str) -> Floats:
    return np.array([getattr(life.table, name) for life in tier.lives])


def _held_s(tier: SimulatedTier, asked: AskedTier, window: CountingWindow) -> Floats:
    """Return the seconds of the window in which each replica held its GPUs.

    It holds them until it is closed and has ended what it had.
    """
    begins_s = np.array([life.begins_s for life in tier.lives])
    closes_s = np.array([life.closes_s for life in tier.lives])
    return _within(begins_s, np.maximum(closes_s, asked.run.worked_until_s), window)


def _within(begins_s: Floats, ends_s: Floats, window: CountingWindow) -> Floats:
    """Return the seconds of the window that lie between two times."""
    ends_s = np.minimum(ends_s, window.ends_s)
    return np.asarray(np.maximum(ends_s - np.maximum(begins_s, window.begins_s), 0.0))


def _done_in(run: TierRun, window: CountingWindow, name: str) -> Floats:
    """Return the work of the replicas of a tier in the window, by the name of the sum, [r]."""
    looks = {look.at_s: look for look in run.looks}
    end = looks.get(window.ends_s, run)
    return np.asarray(getattr(end, name) - getattr(looks[window.begins_s], name))


def _tier(tier: SimulatedTier, asked: AskedTier, run: CascadeRun) -> TierOutcome:
    done, window = asked.run, _window(run)
    held_s = _held_s(tier, asked, window)
    begins_s = np.array([life.begins_s for life in tier.lives])
    ready_s = np.array([life.ready_s for life in tier.lives])
    loading_s = np.minimum(_within(begins_s, ready_s, window), held_s)
    loading_j = float((loading_s * _of_lives(tier, "idle_w")).sum())
    busy_s, loaded_s = _done_in(done, window, "busy_s"), held_s - loading_s
    idle_j = float(((loaded_s - busy_s) * _of_lives(tier, "idle_w")).sum())
    is_done = ~np.isnan(done.finish_s)
    decode_s = (done.finish_s - done.first_token_s)[is_done].sum()
    n_gaps = int((asked.output_tokens[is_done] - 1).sum())
    sequence_s, all_s = _done_in(done, window, "sequence_s"), loaded_s.sum()
    gpu_s = float((held_s * _of_lives(tier, "n_gpus")).sum())
    return TierOutcome(
        tier=tier.name,
        replicas=len(tier.lives),
        gpus=gpu_s / (window.ends_s - window.begins_s or np.inf),
        requests=len(asked.asked),
        refused=int(np.count_nonzero(~is_done)),
        busy_share=float(busy_s.sum() / all_s) if all_s else None,
        mean_batch=float(sequence_s.sum() / all_s) if all_s else None,
        energy_j=float(_done_in(done, window, "energy_j").sum()) + idle_j + loading_j,
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
