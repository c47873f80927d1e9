"""The simulator against the log of a real vLLM, calibrated on one half of it, judged on the other.

The whole log is simulated each time, since its requests stand in each other's way; the half says
whose latencies are looked at. What is calibrated are factors of a step's time and of a prompt
token's, and the size of the KV cache where nobody told it.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from eval.simulator.step_table import ReplicaShape, StepTable, step_table
from eval.simulator.tier import ReplicaLife, TierRun, run_tier
from eval.simulator.workload import Floats
from eval.studies.engine_log import EngineLog

# Of the logarithms of the factors: where the log does not tell one, it stays at the model's.
_USUAL_SPREAD = 1.0
_SMALL_PULL = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What is multiplied: all steps, prompt tokens further, and the KV cache of the shape."""

    step: float = 1.0
    prompt: float = 1.0
    kv_cache: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfJudged:
    """One half, simulated; seconds are means.

    Attributes:
        calibrated_on: Which half was calibrated on; None for the model as it is.
        judged_on: Which is judged here.
        kv_cache_tokens: Of the calibrated engine.
        latency_error: Of the mean, as a share of what was measured.
        request_error: Mean over requests of the error of each, whatever its sign.
    """

    calibrated_on: str | None
    judged_on: str
    calibration: Calibration
    kv_cache_tokens: int
    latency_s: float
    measured_latency_s: float
    latency_error: float
    request_error: float
    ttft_s: float
    measured_ttft_s: float
    ttft_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineLogCheck:
    """Every way to halve the log, both ways round."""

    n_requests: int
    preempted: int
    halves: tuple[HalfJudged, ...]

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        return {"schema": "hybridserve-engine-log-check/1", **asdict(self)}


def engine_log_check(
    log: EngineLog, shape: ReplicaShape, *, is_kv_cache_known: bool
) -> EngineLogCheck:
    """Calibrates on each half, and judges on the other.

    Args:
        log: At least two requests.
        shape: The engine; its KV cache is a guess unless `is_kv_cache_known`.
        is_kv_cache_known: Whether to leave its size alone.
    """
    judge = _Judge(log, shape)
    n = len(log.requests)
    first, even = np.arange(n) < n // 2, np.arange(n) % 2 == 0
    halves = {"first": first, "second": ~first, "even": even, "odd": ~even}
    ways = [
        ("first", "second"),
        ("second", "first"),
        ("even", "odd"),
        ("odd", "even"),
    ]
    judged = [judge.half(None, "all", Calibration(), np.ones(n, dtype=bool))]
    for known, other in ways:
        found = judge.calibrated(halves[known], is_kv_cache_known=is_kv_cache_known)
        judged.append(judge.half(known, other, found, halves[other]))
    run = judge.run(Calibration())
    return EngineLogCheck(n_requests=n, preempted=run.n_preempted, halves=tuple(judged))


class _Judge:
    def __init__(self, log: EngineLog, shape: ReplicaShape) -> None:
        self._log = log
        self._table: StepTable = step_table(
            shape,
            prompt_tokens=float(log.requests.prompt_tokens.mean()),
            output_tokens=float(log.requests.output_tokens.mean()),
        )
        longest = log.requests.prompt_tokens + log.requests.output_tokens
        self._least_kv_cache = int(longest.max())

    def _kv_cache_tokens(self, calibration: Calibration) -> int:
        """At least what the longest request holds: the real engine served it."""
        tokens = round(calibration.kv_cache * self._table.kv_cache_tokens)
        return max(tokens, self._least_kv_cache)

    def run(self, calibration: Calibration) -> TierRun:
        tokens = self._kv_cache_tokens(calibration)
        table = replace(
            self._table.scaled(step=calibration.step, prompt=calibration.prompt),
            kv_cache_tokens=tokens,
            max_request_tokens=tokens,
        )
        return run_tier([ReplicaLife(table=table)], self._log.requests)

    def calibrated(self, half: NDArray[np.bool_], *, is_kv_cache_known: bool) -> Calibration:
        """Least squares of latency and of the time to the first token of the half's requests.

        By Nelder and Mead: the simulated times are steps in the size of the cache. Two beginnings,
        as a full cache and slow steps look alike.
        """

        def calibration(logs: Floats) -> Calibration:
            step, prompt, *kv_cache = np.exp(np.clip(logs, -3.0, 3.0)).tolist()
            return Calibration(step=step, prompt=prompt, kv_cache=kv_cache[0] if kv_cache else 1.0)

        def loss(logs: Floats) -> float:
            run = self.run(calibration(logs))
            at_s = self._log.requests.arrival_s
            errors = (
                _share_of_square(run.finish_s - at_s, self._log.latency_s, half)
                + _share_of_square(run.first_token_s - at_s, self._log.ttft_s, half)
            )  # fmt: skip
            return errors + _SMALL_PULL * float(((logs / _USUAL_SPREAD) ** 2).sum())

        n = 2 if is_kv_cache_known else 3
        starts = [np.zeros(n), np.array([-0.5, 0.0, 0.3][:n])]
        options = {"xatol": 1e-3, "fatol": 1e-6, "maxiter": 300}
        tried = [minimize(loss, start, method="Nelder-Mead", options=options) for start in starts]
        return calibration(min(tried, key=lambda result: float(result.fun)).x)

    def half(
        self,
        calibrated_on: str | None,
        judged_on: str,
        calibration: Calibration,
        half: NDArray[np.bool_],
    ) -> HalfJudged:
        run, at_s = self.run(calibration), self._log.requests.arrival_s
        simulated_s, measured_s = (run.finish_s - at_s)[half], self._log.latency_s[half]
        ttft_s, measured_ttft_s = (run.first_token_s - at_s)[half], self._log.ttft_s[half]
        return HalfJudged(
            calibrated_on=calibrated_on,
            judged_on=judged_on,
            calibration=calibration,
            kv_cache_tokens=self._kv_cache_tokens(calibration),
            latency_s=float(simulated_s.mean()),
            measured_latency_s=float(measured_s.mean()),
            latency_error=float(simulated_s.mean() / measured_s.mean() - 1),
            request_error=float(np.abs(simulated_s / measured_s - 1).mean()),
            ttft_s=float(ttft_s.mean()),
            measured_ttft_s=float(measured_ttft_s.mean()),
            ttft_error=float(ttft_s.mean() / measured_ttft_s.mean() - 1),
        )


def _share_of_square(simulated: Floats, measured: Floats, half: NDArray[np.bool_]) -> float:
    off = (simulated - measured)[half]
    return float((off @ off) / (measured[half] @ measured[half]))
