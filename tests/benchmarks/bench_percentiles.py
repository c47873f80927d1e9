"""Compare the percentiles of `profiles/queueing.py` with those of a simulation.

    python tests/benchmarks/bench_percentiles.py

One replica of Llama 3.1 8B on an H100, 64 requests at a time, by the fitted model's step times. An
event simulation of the same steps under Poisson arrivals has the true percentiles: of the first
token, of the time between tokens, and of whole answers. Answers are all of the mean length, or
spread as an exponential distribution is, which is what the chain assumes; their 95th percentile is
told. Prompts take no time here. Prints the chain's figure over the simulated one, minus 1, in
percent.
"""

import heapq
import math
import random
import sys
from dataclasses import dataclass, field

import numpy as np

from hybridserve_llm.profiles.curve import BatchCurve, batch_curve
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.queueing import replica_load

MODEL = "meta-llama/Llama-3.1-8B-Instruct"
OUTPUT_TOKENS = 200.0
MOST = 64
LOADS = (0.3, 0.5, 0.7, 0.8, 0.9)
N_ARRIVALS = 60_000
WARM_UP = 0.1


@dataclass(slots=True)
class Seen:
    """Hold what requests saw: seconds to their first and last token, and time at each batch."""

    ttft_s: list[float] = field(default_factory=list)
    latency_s: list[float] = field(default_factory=list)
    time_s: list[float] = field(default_factory=lambda: [0.0] * (MOST + 1))


def curve() -> BatchCurve:
    facts = known_model_facts(MODEL)
    assert facts is not None
    found = batch_curve(
        facts,
        gpu_type("H100-80GB"),
        tensor_parallel_size=1,
        pipeline_parallel_size=1,
        max_num_seqs=MOST,
        context_tokens=OUTPUT_TOKENS / 2,
        prefill_ratio=0.0,
    )
    return BatchCurve(
        batch=found.batch,
        step_time_s=found.step_time_s,
        power_w=None,
        prefill_token_s=None,
        grade=found.grade,
    )


def simulated(step_s: list[float], rate: float, *, spread: bool, n_arrivals: int) -> Seen:
    """Requests that run get tokens in step; `progress` counts those that each of them got.

    A request is in the batch from its arrival, or from when one leaves, until it has its tokens.
    """
    draw, seen = random.Random(7), Seen()
    now = progress = 0.0
    next_arrival = draw.expovariate(rate)
    waiting: list[float] = []
    running: list[tuple[float, float]] = []
    left = n_arrivals
    while left:
        batch = len(running)
        speed = 1 / step_s[batch - 1] if batch else 0.0
        leaves_at = now + (running[0][0] - progress) / speed if batch else float("inf")
        at = min(next_arrival, leaves_at)
        seen.time_s[batch] += at - now
        progress, now = progress + speed * (at - now), at
        if leaves_at <= next_arrival:
            _, arrived = heapq.heappop(running)
            seen.latency_s.append(now - arrived)
        else:
            waiting.append(now)
            left -= 1
            next_arrival = now + draw.expovariate(rate)
        while waiting and len(running) < len(step_s):
            arrived = waiting.pop(0)
            n_tokens = draw.expovariate(1 / OUTPUT_TOKENS) if spread else OUTPUT_TOKENS
            heapq.heappush(running, (progress + n_tokens, arrived))
            seen.ttft_s.append(now - arrived + step_s[len(running) - 1])
    return seen


def p95(values: list[float]) -> float:
    return float(np.quantile(values[int(WARM_UP * len(values)) :], 0.95))


def p95_itl_s(step_s: list[float], time_s: list[float]) -> float:
    """Step time that 95 % of tokens do not exceed: batches weigh by the tokens made in them."""
    tokens = np.array([n * t / step_s[n - 1] for n, t in enumerate(time_s) if n])
    return step_s[int(np.argmax(np.cumsum(tokens) >= 0.95 * tokens.sum()))]


def errors(load: float, *, spread: bool, n_arrivals: int = N_ARRIVALS) -> dict[str, float]:
    """Relative errors of the chain's percentiles at this utilisation."""
    found = curve()
    step_s = found.step_time_s.tolist()
    rate = load * MOST / (OUTPUT_TOKENS * step_s[-1])
    chain = replica_load(
        found,
        [rate],
        output_tokens=OUTPUT_TOKENS,
        prompt_tokens=0,
        idle_w=None,
        # P(length > x) = exp(-x / mean) is 0.05 at ln 20 means.
        p95_output_tokens=OUTPUT_TOKENS * math.log(20) if spread else None,
    )
    seen = simulated(step_s, rate, spread=spread, n_arrivals=n_arrivals)
    truth = {
        "p95_ttft_s": (chain.p95_ttft_s, p95(seen.ttft_s)),
        "p95_itl_s": (chain.p95_itl_s, p95_itl_s(step_s, seen.time_s)),
        "p95_latency_s": (chain.p95_latency_s, p95(seen.latency_s)),
        "latency_s": (chain.latency_s, float(np.mean(seen.latency_s))),
    }
    return {name: float(said[0]) / true - 1 for name, (said, true) in truth.items()}


def main() -> None:
    for spread in (False, True):
        for load in LOADS:
            found = errors(load, spread=spread)
            cells = "  ".join(f"{name} {100 * error:+6.1f}" for name, error in found.items())
            lengths = "spread lengths" if spread else "equal lengths "
            sys.stdout.write(f"{lengths}  load {load:.1f}  {cells}\n")


if __name__ == "__main__":
    main()
