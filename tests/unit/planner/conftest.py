"""Models, clusters and tables that tests of the search share."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.planner.arrangements import ArrangedReplica, Arrangement
from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.planner.demand import Demand, TierDemand
from hybridserve_llm.planner.replica_table import EngineShape, ReplicaTable, Tables
from hybridserve_llm.planner.search import Planner
from hybridserve_llm.profiles.gpu_types import gpu_type

# About 1, 8 and 70 thousand million weights of 2 bytes, with 8 heads of keys and values.
FACTS = {
    "small": ModelFacts(
        n_parameters=10**9, n_layers=16, hidden_size=2048, n_heads=32, n_kv_heads=8
    ),
    "medium": ModelFacts(
        n_parameters=8 * 10**9, n_layers=32, hidden_size=4096, n_heads=32, n_kv_heads=8
    ),
    "giant": ModelFacts(
        n_parameters=70 * 10**9, n_layers=80, hidden_size=8192, n_heads=64, n_kv_heads=8
    ),
}
REACH = {"small": 1.0, "medium": 0.5, "giant": 0.25}
TABLES = Tables()


@pytest.fixture(scope="session")
def tier() -> Callable[..., TierDemand]:
    """A tier of `FACTS` by its name; keywords replace what it is asked."""

    def make(name: str, **changes: Any) -> TierDemand:
        values = {
            "name": name,
            "facts": FACTS[name],
            "reach": REACH[name],
            "prompt_tokens": 400.0,
            "output_tokens": 200.0,
            "max_tokens": 4096,
        }
        return TierDemand(**{**values, **changes})

    return make


@pytest.fixture(scope="session")
def demand(tier: Callable[..., TierDemand]) -> Callable[..., Demand]:
    """The demand of the tiers named, or made already, at 1 request/s."""

    def make(*tiers: str | TierDemand, **changes: Any) -> Demand:
        made = tuple(tier(each) if isinstance(each, str) else each for each in tiers)
        return Demand(**{"tiers": made, "requests_per_s": 1.0, **changes})

    return make


@pytest.fixture(scope="session")
def planner() -> Callable[..., Planner]:
    """A planner for so many GPUs of one type, on nodes of eight."""

    def make(n_gpus: int, kind: str = "H100-80GB") -> Planner:
        nodes = described_nodes("node", gpu_type(kind), n_gpus=n_gpus)
        # Tables depend on models and shapes alone: made once for all tests.
        return Planner(cluster=Cluster(nodes=nodes), tables=TABLES)

    return make


@pytest.fixture(scope="session")
def arrangement() -> Callable[..., Arrangement]:
    """Replicas of tiers 0, 1, … on one H100 with the tables given."""

    def make(*tables: ReplicaTable) -> Arrangement:
        kind = gpu_type("H100-80GB")
        shape = EngineShape(
            gpu_type=kind, tensor_parallel_size=1, pipeline_parallel_size=1, max_num_seqs=8
        )
        replicas = tuple(
            ArrangedReplica(tier=i, shape=shape, memory_share=0.4, memory_bytes=2**35, table=table)
            for i, table in enumerate(tables)
        )
        return Arrangement(gpu_type=kind, replicas=replicas)

    return make


@pytest.fixture(scope="session")
def table() -> ReplicaTable:
    """A replica of 10 requests/s: idle 100 W, 300 W above that at its most; TDP 700 W.

    Up to 10 requests/s all is a straight line, 10 s to 20 s a request; from 5 on it is always busy.
    """
    rate = np.array([0.0, 5.0, 10.0])
    return ReplicaTable(
        rate_per_s=rate,
        power_w=100.0 + 30.0 * rate,
        ttft_s=1.0 + 0.1 * rate,
        itl_s=0.1 + 0.01 * rate,
        latency_s=10.0 + rate,
        p95_ttft_s=3.0 + 0.3 * rate,
        p95_itl_s=0.2 + 0.02 * rate,
        p95_latency_s=20.0 + 2.0 * rate,
        busy_share=np.array([0.0, 1.0, 1.0]),
        max_rate_per_s=10.0,
        idle_w=100.0,
        tdp_w=700.0,
        grades=("measured", "measured", "calibrated-2pt"),
    )
