"""Times the planner's search: `python tests/benchmarks/bench_planner.py`.

Prints seconds of wall time; tables and arrangements are made again each time. Target: one plan for
1,024 GPUs of 2 types and 5 tiers in 10 s.
"""

import sys
import time
from collections.abc import Callable

from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.planner.demand import Demand, TierDemand
from hybridserve_llm.planner.replica_table import Tables
from hybridserve_llm.planner.search import Planner
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


def planner(*groups: tuple[str, int]) -> Planner:
    nodes = [
        node
        for kind, n_gpus in groups
        for node in described_nodes(kind, gpu_type(kind), n_gpus=n_gpus)
    ]
    return Planner(cluster=Cluster(nodes=tuple(nodes)), tables=Tables())


def small() -> None:
    assert planner(("H100-80GB", 64)).best(demand(LLAMAS, 20.0)) is not None


def large() -> None:
    plans = planner(("H100-80GB", 512), ("H200", 512))
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
        "64 GPUs, 3 tiers": small,
        "1,024 GPUs of 2 types, 5 tiers": large,
    }
    for name, work in rows.items():
        sys.stdout.write(f"{name:32} {seconds(work):6.2f} s\n")


if __name__ == "__main__":
    main()
