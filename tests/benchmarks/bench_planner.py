"""Times the planner's search: `python tests/benchmarks/bench_planner.py`.

Prints seconds of wall time, tables and arrangements made anew each time. Targets: 400 vectors of
reaches on 64 GPUs and 3 tiers in 1 s, one plan for 1,024 GPUs of 2 types and 5 tiers in 10 s.
"""

import sys
import time
from collections.abc import Callable

import numpy as np

from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.planner.demand import Demand, TierDemand
from hybridserve_llm.planner.labels import solve_by_labels
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.planner.solve import Solver
from hybridserve_llm.planner.sweep import least_power_w
from hybridserve_llm.planner.tabulate import Tables
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts

LLAMAS = (
    "meta-llama/Llama-3.1-8B-Instruct",
    "meta-llama/Llama-3.1-70B-Instruct",
    "meta-llama/Llama-3.1-405B-Instruct-FP8",
)
FIVE = ("Qwen/Qwen3-0.6B", *LLAMAS, "Qwen/Qwen3-235B-A22B")
REPEATS = 3


def demand(models: tuple[str, ...], requests_per_s: float) -> Demand:
    tiers = []
    for i, model in enumerate(models):
        facts = known_model_facts(model)
        assert facts is not None
        tiers.append(
            TierDemand(
                name=model,
                facts=facts,
                reach=0.7**i,
                prompt_tokens=512,
                output_tokens=256,
                max_tokens=8192,
            )
        )
    return Demand(tiers=tuple(tiers), requests_per_s=requests_per_s)


def planner(*groups: tuple[str, int], solver: Solver | None = None) -> Planner:
    nodes = [
        node
        for kind, n_gpus in groups
        for node in described_nodes(kind, gpu_type(kind), n_gpus=n_gpus)
    ]
    return Planner(cluster=Cluster(nodes=tuple(nodes)), tables=Tables(), solver=solver)


def sweep() -> None:
    shares = np.sort(np.random.default_rng(0).uniform(0, 1, (400, 3)), axis=1)[:, ::-1].copy()
    found = least_power_w(planner(("H100-80GB", 64)), demand(LLAMAS, 20.0), shares)
    assert len(found) == 400


def large(solver: Solver | None = None) -> None:
    plans = planner(("H100-80GB", 512), ("H200", 512), solver=solver)
    assert plans.best(demand(FIVE, 200.0)) is not None


def seconds(work: Callable[[], None]) -> float:
    taken = []
    for _ in range(REPEATS):
        start_s = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start_s)
    return min(taken)


def main() -> None:
    rows = {
        "64 GPUs, 3 tiers, 400 vectors": sweep,
        "1,024 GPUs of 2 types, 5 tiers": large,
        "the same without HiGHS": lambda: large(solve_by_labels),
    }
    for name, work in rows.items():
        sys.stdout.write(f"{name:32} {seconds(work):6.2f} s\n")


if __name__ == "__main__":
    main()
