"""The simulator against the planner's birth-death chain: one replica under Poisson arrivals.

Both have one model of a step, so what differs is the queue: the chain sees means where the
simulator has requests, with lengths of their own and prompts in their way.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from eval.simulator.step_table import ReplicaShape, StepTable, step_table
from eval.simulator.tier import ReplicaLife, run_tier
from eval.simulator.workload import Requests, poisson
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.curve import batch_curve
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.memory import kv_capacity_tokens
from hybridserve_llm.profiles.queueing import ReplicaLoad, replica_load

LOADS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_CASES = (
    ("meta-llama/Llama-3.1-8B-Instruct", 1),
    ("Qwen/Qwen3-32B", 2),
    ("meta-llama/Llama-3.1-70B-Instruct", 4),
)
_GPU_TYPE, _MEMORY_SHARE = "H100-80GB", 0.9
_MAX_NUM_SEQS, _MAX_NUM_BATCHED_TOKENS = 256, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What the chain says, and what was simulated."""

    chain: float
    simulated: float

    @property
    def error(self) -> float:
        """Of the chain, as a share of what was simulated."""
        return self.chain / self.simulated - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class BirthDeathPoint:
    """One model at one share of the rate that its replica could carry."""

    model: str
    tensor_parallel_size: int
    load: float
    requests_per_s: float
    energy_j_per_token: Pair
    latency_s: Pair
    ttft_s: Pair
    mean_batch: Pair


@dataclass(frozen=True, slots=True, kw_only=True)
class BirthDeathCheck:
    """All points, and how many requests were simulated at each."""

    n_requests: int
    seed: int
    points: tuple[BirthDeathPoint, ...]

    def worst(self, name: str) -> float:
        """The largest error of a figure, whatever its sign."""
        return max(abs(float(getattr(point, name).error)) for point in self.points)

    def as_json(self) -> dict[str, Any]:
        """As `--json` prints it."""
        worst = {name: self.worst(name) for name in ("energy_j_per_token", "latency_s", "ttft_s")}
        return {"schema": "hybridserve-birth-death-check/1", **asdict(self), "worst": worst}


def birth_death_check(
    lengths: Requests, *, loads: Sequence[float] = LOADS, n_requests: int, seed: int
) -> BirthDeathCheck:
    """Both at every load for three models on H100s, requests as long as those of `lengths`.

    Raises:
        ConfigError: A load is not between 0 and 1.
    """
    wrong = [load for load in loads if not 0 < load < 1]
    if wrong:
        raise ConfigError(f"load {wrong[0]:g} is not between 0 and 1")
    return BirthDeathCheck(
        n_requests=n_requests,
        seed=seed,
        points=tuple(
            point
            for model, tp in _CASES
            for point in _points(model, tp, lengths, loads, n_requests, seed)
        ),
    )


def _points(
    model: str, tp: int, lengths: Requests, loads: Sequence[float], n_requests: int, seed: int
) -> Iterator[BirthDeathPoint]:
    facts, kind = known_model_facts(model), gpu_type(_GPU_TYPE)
    if facts is None:
        raise ValueError(f"{model} is in the catalogue")
    prompt, output = float(lengths.prompt_tokens.mean()), float(lengths.output_tokens.mean())
    curve = batch_curve(
        facts,
        kind,
        tensor_parallel_size=tp,
        pipeline_parallel_size=1,
        max_num_seqs=_MAX_NUM_SEQS,
        context_tokens=prompt + output / 2,
        prefill_ratio=prompt / output,
    )
    shape = ReplicaShape(
        facts=facts,
        gpu=kind,
        tensor_parallel_size=tp,
        max_num_seqs=_MAX_NUM_SEQS,
        max_num_batched_tokens=_MAX_NUM_BATCHED_TOKENS,
        kv_cache_tokens=kv_capacity_tokens(
            facts,
            memory_bytes_per_gpu=int(_MEMORY_SHARE * kind.usable_memory_bytes),
            tensor_parallel_size=tp,
            pipeline_parallel_size=1,
        ),
    )
    table = step_table(shape, prompt_tokens=prompt, output_tokens=output)
    of_requests = partial(
        replica_load, curve, output_tokens=output, prompt_tokens=prompt, idle_w=table.idle_w
    )
    most = of_requests(0.0).max_rate_per_s
    for load in loads:
        rate = load * most
        requests = poisson(lengths, requests_per_s=rate, n_requests=n_requests, seed=seed)
        pairs = _pairs(of_requests(rate), table, requests, tokens_per_s=rate * output)
        yield BirthDeathPoint(
            model=model, tensor_parallel_size=tp, load=load, requests_per_s=rate, **pairs
        )


def _pairs(
    chain: ReplicaLoad, table: StepTable, requests: Requests, *, tokens_per_s: float
) -> dict[str, Pair]:
    if chain.power_w is None:
        raise ValueError("the fitted model always gives power")
    run = run_tier([ReplicaLife(table=table)], requests)
    horizon_s = float(run.finish_s.max())
    energy_j = run.energy_j.sum() + (horizon_s - run.busy_s.sum()) * table.idle_w
    return {
        "energy_j_per_token": Pair(
            chain=float(chain.power_w[0]) / tokens_per_s,
            simulated=float(energy_j) / run.n_output_tokens,
        ),
        "latency_s": Pair(
            chain=float(chain.latency_s[0]),
            simulated=float((run.finish_s - requests.arrival_s).mean()),
        ),
        "ttft_s": Pair(
            chain=float(chain.ttft_s[0]),
            simulated=float((run.first_token_s - requests.arrival_s).mean()),
        ),
        "mean_batch": Pair(
            chain=float(chain.mean_batch[0]),
            simulated=float(run.sequence_s.sum()) / horizon_s,
        ),
    }
