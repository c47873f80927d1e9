"""Compute batch, power and latency of a replica at given request rates, by a birth-death chain.

Requests arrive as a Poisson process and are taken into the batch as they come. A request leaves
when its output is done. Its speed depends on the number of running requests. The state is the
number of requests in the replica, n. With B = `max_num_seqs`, L output tokens a request and t(b)
the step time at a batch of b, requests leave at the rate

    mu(n) = min(n, B) / (L * t(min(n, B))).

Source: the state-dependent M/M/1 model of Inferno (github.com/llm-inferno/queue-analysis).
Deviations: the queue has no end; its tail beyond B is a geometric series, summed in closed form.
Everything is in logarithms. Waiting for the prompts of others is added to TTFT, since the chain
itself does not see it. docs/planner-fit.md shows how exact it is: its TTFT is the least exact
figure.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.curve import BatchCurve
from hybridserve_llm.profiles.grades import Grade
from hybridserve_llm.profiles.step_work import Floats
from hybridserve_llm.profiles.throughput import requests_per_s

_TAIL = 0.05
# P(X > x) = exp(-x / mean) of an exponential X: its 95th percentile is this many means.
_P95_OF_EXPONENTIAL = math.log(1 / _TAIL)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaLoad:
    """Describe a replica at each of m request rates; every array is [m].

    Where the rate is not sustainable (`utilisation` of 1 or more) the latencies that include
    waiting are infinite, and batch, power and ITL are those of a full batch.

    Attributes:
        power_w: Mean watts of the replica, waiting included; None where the curve knows no power.
        mean_batch: Mean sequences that decode at a time, over all time.
        utilisation: Rate over `max_rate_per_s`.
        busy_share: Share of the time in which at least one request runs.
        itl_s: Mean seconds from one token of a request to its next: a step, or as measured.
        ttft_s: Mean seconds to the first token: waiting, the prompt, one step; or waiting and what
            was measured.
        latency_s: Mean seconds from arrival to the last token: waiting, the prompt, one step a
            token.
        p95_itl_s: Step time at the batch that 95 % of tokens do not exceed.
        p95_ttft_s: 95th percentile of waiting and of the prompt's time, added, and one step; an
            upper estimate, as both are rarely long at once.
        p95_latency_s: `p95_ttft_s`, and `p95_itl_s` for each token of an answer that 95 % do not
            exceed: an upper estimate.
        max_rate_per_s: Requests per second that a full batch serves, one number.
        grades: Grades of these figures, [m]: `measured` where 95 % of tokens come from batches that
            the curve's table holds, else the curve's grade.
    """

    power_w: Floats | None
    mean_batch: Floats
    utilisation: Floats
    busy_share: Floats
    itl_s: Floats
    ttft_s: Floats
    latency_s: Floats
    p95_itl_s: Floats
    p95_ttft_s: Floats
    p95_latency_s: Floats
    max_rate_per_s: float
    grades: tuple[Grade, ...]


def replica_load(
    curve: BatchCurve,
    request_rate_per_s: ArrayLike,
    *,
    output_tokens: float,
    prompt_tokens: float,
    idle_w: float | None,
    p95_output_tokens: float | None = None,
) -> ReplicaLoad:
    """Return the figures of a replica with this curve at each rate, [m]; O(m * max_num_seqs).

    Args:
        curve: At the same prompt and output lengths.
        request_rate_per_s: Requests per second that reach this one replica, 0 or more, [m].
        output_tokens: Mean per request.
        prompt_tokens: Mean per request, of those that are computed (not cached).
        idle_w: Watts of the whole replica while it waits; None where not known, which leaves power
            unknown.
        p95_output_tokens: Tokens that 95 % of answers do not exceed; None takes the mean for all.

    Raises:
        ConfigError: A rate is below 0, or `output_tokens` is not above 0.
    """
    rates = np.atleast_1d(np.asarray(request_rate_per_s, dtype=np.float64))
    if not np.all(rates >= 0) or not output_tokens > 0:
        raise ConfigError(
            f"request rates must be 0 or more and output_tokens above 0; given "
            f"{rates.min():g} requests/s and {output_tokens:g} tokens"
        )
    leaving = requests_per_s(curve, output_tokens)
    max_rate = float(leaving[-1])
    is_stable = rates < max_rate
    chain = _chain(np.where(is_stable, rates, 0.0), leaving)
    step_s = curve.step_time_s
    tokens = _token_shares(curve, chain, (rates > 0) & is_stable)
    mean_step_s = np.where(is_stable, tokens @ step_s, step_s[-1])
    most = np.where(is_stable, _quantile_index(tokens), len(step_s) - 1)
    p95_itl_s = step_s[most]
    prompt = _prompt_time(curve, rates, prompt_tokens)
    wait_s = np.where(is_stable, chain.wait_s, np.inf)
    p95_wait_s = np.where(is_stable, chain.p95_wait_s, np.inf)
    p95_ttft_s = p95_wait_s + _P95_OF_EXPONENTIAL * prompt + p95_itl_s
    return ReplicaLoad(
        power_w=_mean_power(curve, chain.at_batch, is_stable, idle_w),
        mean_batch=np.where(is_stable, chain.at_batch[:, 1:] @ curve.batch, curve.batch[-1]),
        utilisation=rates / max_rate,
        busy_share=np.where(is_stable, 1 - chain.at_batch[:, 0], 1.0),
        itl_s=mean_step_s
        if curve.itl_s is None
        else np.where(is_stable, tokens @ curve.itl_s, curve.itl_s[-1]),
        ttft_s=wait_s + (prompt + mean_step_s if curve.ttft_s is None else _first(curve, chain)),
        latency_s=wait_s + prompt + output_tokens * mean_step_s,
        p95_itl_s=p95_itl_s,
        p95_ttft_s=p95_ttft_s,
        p95_latency_s=p95_ttft_s + ((p95_output_tokens or output_tokens) - 1) * p95_itl_s,
        max_rate_per_s=max_rate,
        grades=tuple(
            "measured" if batch <= curve.measured_to else curve.grade for batch in curve.batch[most]
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chain:
    """Hold the stationary chain: time shares of batches 0 ... B, [m, B + 1], and waiting, [m]."""

    at_batch: Floats
    wait_s: Floats
    p95_wait_s: Floats


def _chain(rates: Floats, leaving: Floats) -> _Chain:
    """Return the stationary distribution at rates below `leaving[-1]`.

    pi(n) = pi(0) * prod rate / mu(i). From B on mu is constant, so pi falls by r = rate / mu(B) a
    step. All states of a full batch together are pi(B) / (1 - r), and r / (1 - r) wait on average
    in them.
    """
    with np.errstate(divide="ignore"):
        log_rates = np.log(rates)[:, None]
    log_weights = np.concatenate(
        [np.zeros((len(rates), 1)), np.cumsum(log_rates - np.log(leaving), axis=1)], axis=1
    )
    ratio = rates / leaving[-1]
    log_weights[:, -1] -= np.log1p(-ratio)
    log_weights -= log_weights.max(axis=1, keepdims=True)
    at_batch = np.exp(log_weights)
    at_batch /= at_batch.sum(axis=1, keepdims=True)
    full = at_batch[:, -1]
    # An arrival that finds a full batch waits for those before it: exponential with mean
    # 1 / (mu(B) - rate), as in M/M/c.
    mean_if_waiting = 1 / (leaving[-1] - rates)
    p95 = mean_if_waiting * np.log(np.maximum(full / _TAIL, 1.0))
    return _Chain(at_batch=at_batch, wait_s=full * mean_if_waiting, p95_wait_s=p95)


def _token_shares(curve: BatchCurve, chain: _Chain, has_rest: NDArray[np.bool_]) -> Floats:
    """Return the share of tokens that come from each batch 1 ... B, [m, B].

    A request sees tokens, not moments, so batches weigh by the tokens made in them. The first
    request of an idle replica runs alone. Rows at rates that are not sustainable are not used.
    """
    tokens = chain.at_batch[:, 1:] * (curve.batch / curve.step_time_s)
    tokens[~has_rest, 0] = 1.0
    return np.asarray(tokens / tokens.sum(axis=1, keepdims=True))


def _first(curve: BatchCurve, chain: _Chain) -> Floats:
    """Return the measured mean seconds from entering the batch to the first token, [m].

    Poisson arrivals see the chain as time does: one that finds n requests makes it n + 1.
    """
    ttft_s = np.zeros(len(curve.batch)) if curve.ttft_s is None else curve.ttft_s
    return np.asarray(chain.at_batch[:, :-1] @ ttft_s + chain.at_batch[:, -1] * ttft_s[-1])


def _quantile_index(shares: Floats) -> NDArray[np.intp]:
    """Return the index of the first batch up to which 95 % of `shares`, [m, B], lie."""
    reached = np.cumsum(shares, axis=1) >= (1 - _TAIL) - 1e-12
    return np.asarray(np.argmax(reached, axis=1), dtype=np.intp)


def _prompt_time(curve: BatchCurve, rates: Floats, prompt_tokens: float) -> Floats:
    """Return the mean seconds of a prompt with those before it: an M/M/1 queue, [m].

    Prompts are computed one after the other, each for as long as its tokens take. Their lengths are
    taken to be exponentially distributed. 0 where the curve does not know prompts.
    """
    alone_s = prompt_tokens * (curve.prefill_token_s or 0.0)
    use = rates * alone_s
    with np.errstate(divide="ignore"):
        return np.where(use < 1, alone_s / np.maximum(1 - use, 1e-300), np.inf)


def _mean_power(
    curve: BatchCurve,
    at_batch: Floats,
    is_stable: NDArray[np.bool_],
    idle_w: float | None,
) -> Floats | None:
    if curve.power_w is None or idle_w is None:
        return None
    mean_w = at_batch[:, 0] * idle_w + at_batch[:, 1:] @ curve.power_w
    return np.where(is_stable, mean_w, curve.power_w[-1])
