"""Tables of replicas: vLLM's defaults by GPU type, KV caches of hybrid models, links."""

from dataclasses import replace

import pytest

from eval.simulation.known_tiers import KnownTier, facts_of_model
from eval.simulation.planned_cascade import TableMaker
from eval.simulator.step_table import StepTable
from hybridserve_llm.planner.cluster import Cluster, described_nodes
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.memory import kv_capacity_sequences, kv_capacity_tokens
from hybridserve_llm.units import GIB

PROMPT, OUTPUT = 3000.0, 500.0
MEMORY_BYTES = 70 * GIB


def table(
    model: str, kind_name: str = "H100-80GB", *, tp: int = 1, linked_size: int | None = None
) -> StepTable:
    kind = gpu_type(kind_name)
    nodes = described_nodes("node", kind, n_gpus=8)
    make = TableMaker(
        prompt_tokens=PROMPT,
        output_tokens=OUTPUT,
        max_num_batched_tokens=None,
        cluster=Cluster(nodes=tuple(replace(node, linked_size=linked_size) for node in nodes)),
    )
    tier = KnownTier(
        name="only",
        facts=facts_of_model(model),
        reach=1.0,
        max_num_seqs=None,
        memory_share=None,
        max_tokens=None,
        profiles=(),
    )
    return make.table(
        tier,
        kind,
        tensor_parallel_size=tp,
        pipeline_parallel_size=1,
        memory_bytes=min(MEMORY_BYTES, kind.memory_bytes),
        max_num_seqs=64,
    )


@pytest.mark.parametrize(
    ("kind", "tokens"),
    # vLLM 0.32.0, engine/arg_utils.py: 160 GiB or more, 70 GiB or more but for A100s, others.
    [("B200", 16384), ("H200", 8192), ("H100-80GB", 8192), ("A100-80GB", 2048), ("L40S", 2048)],
)
def test_a_step_computes_as_many_tokens_as_vllms_default(kind: str, tokens: int) -> None:
    assert table("Qwen/Qwen3-0.6B", kind).max_num_batched_tokens == tokens


@pytest.mark.parametrize(
    ("model", "is_larger"),
    # Of Gemma 3's layers five of six see a window of 1,024 tokens; Nemotron's Mamba layers keep a
    # state of the sequence beside the cache of its few attention layers.
    [("google/gemma-3-12b-it", True), ("nvidia/NVIDIA-Nemotron-Nano-9B-v2", False)],
)
def test_a_hybrid_models_cache_holds_the_sequences_that_the_planner_counts(
    model: str, is_larger: bool
) -> None:
    facts = facts_of_model(model)
    sizes = {
        "memory_bytes_per_gpu": MEMORY_BYTES,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
    }
    n_sequences = kv_capacity_sequences(facts, context_tokens=PROMPT + OUTPUT, **sizes)
    found = table(model).kv_cache_tokens
    assert found == n_sequences * (PROMPT + OUTPUT)
    assert (found > kv_capacity_tokens(facts, **sizes)) == is_larger


def test_gpus_that_nvlink_does_not_join_talk_over_pcie() -> None:
    linked, unlinked = (table("Qwen/Qwen3-32B", tp=4, linked_size=size) for size in (4, 2))
    assert unlinked.tokens_s[64] > linked.tokens_s[64]
    assert (linked.grade, unlinked.grade) == ("fleet-fit", "datasheet")
    assert table("Qwen/Qwen3-32B", tp=4) == linked
