"""The table of a replica gives the planner's own seconds and watts."""

from dataclasses import replace

import numpy as np
import pytest

from eval.simulator.step_table import ReplicaShape, StepTable, step_table
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.profiles.known_models import known_model_facts
from hybridserve_llm.profiles.power_model import power_w
from hybridserve_llm.profiles.profile_file import Profile, ProfilePoint
from hybridserve_llm.profiles.step_model import step_time_s

H100 = gpu_type("H100-80GB")
HYBRID = "nvidia/NVIDIA-Nemotron-Nano-9B-v2"
MODEL = "meta-llama/Llama-3.1-70B-Instruct"
PROMPT, OUTPUT = 400.0, 200.0


def shape(tp: int = 4, pp: int = 1, model: str = MODEL) -> ReplicaShape:
    facts = known_model_facts(model)
    assert facts is not None
    return ReplicaShape(
        facts=facts,
        gpu=H100,
        tensor_parallel_size=tp,
        pipeline_parallel_size=pp,
        max_num_seqs=64,
        max_num_batched_tokens=2048,
        kv_cache_tokens=200_000,
    )


def step(table: StepTable, n: int, cached: float) -> tuple[float, float]:
    """Seconds and watts of a step of `n` sequences, without prompts."""
    seconds = table.tokens_s[n] + n * table.sequence_s + cached * table.cached_s[n]
    joules = table.tokens_j[n] + n * table.sequence_j + cached * table.cached_j
    factor = table.factor[n]
    return factor * seconds, table.power_factor[n] * joules / seconds


@pytest.mark.parametrize("model", [MODEL, "Qwen/Qwen3-30B-A3B", HYBRID])
@pytest.mark.parametrize("n", [1, 8, 64])
def test_a_decoding_step_is_the_planners(model: str, n: int) -> None:
    kind = shape(model=model)
    table = step_table(kind, prompt_tokens=PROMPT, output_tokens=OUTPUT)
    of_model = {"tensor_parallel_size": 4, "pipeline_parallel_size": 1, "batch": n}
    seconds, watts = step(table, n, n * 500.0)
    assert seconds == pytest.approx(
        step_time_s(kind.facts, H100, context_tokens=500, prefill_ratio=0, **of_model)
    )
    modelled_w = power_w(kind.facts, H100, context_tokens=500, prefill_ratio=0, **of_model)
    assert min(watts, table.power_limit_w) == pytest.approx(4 * modelled_w)


def test_a_state_is_read_once_a_sequence_however_many_tokens_its_prompt_has() -> None:
    kind = shape(model=HYBRID)
    assert kind.facts.state_bytes_per_sequence > 0
    stateless = replace(kind, facts=kind.facts.model_copy(update={"state_bytes_per_sequence": 0}))
    table, plain = (
        step_table(one, prompt_tokens=PROMPT, output_tokens=OUTPUT) for one in (kind, stateless)
    )
    assert table.tokens_s == pytest.approx(plain.tokens_s)
    assert table.tokens_j == pytest.approx(plain.tokens_j)
    # A quarter of the state on each GPU, at the datasheet's bandwidth times the fitted share.
    state_s = kind.facts.state_bytes_per_sequence / 4 / (0.760 * H100.bandwidth_bytes_s)
    assert table.sequence_s - plain.sequence_s == pytest.approx(state_s)
    # Watts of reading a cache: 0.631 and 0.489 of TDP, on each of four GPUs.
    assert table.sequence_j - plain.sequence_j == pytest.approx(
        state_s * (0.631 + 0.489) * 4 * H100.tdp_w
    )


def test_a_pipeline_takes_as_many_stages_as_the_planners() -> None:
    kind = shape(tp=2, pp=2)
    table = step_table(kind, prompt_tokens=PROMPT, output_tokens=OUTPUT)
    for n in (1, 8):
        modelled_s = step_time_s(
            kind.facts, H100, tensor_parallel_size=2, pipeline_parallel_size=2, batch=n,
            context_tokens=500, prefill_ratio=0,
        )  # fmt: skip
        # A stage samples for the sequences in it; here they are counted once over all stages, so
        # with one sequence the second stage's 41 us are left out.
        assert step(table, n, n * 500.0)[0] == pytest.approx(modelled_s, rel=0.005)


def test_a_profile_corrects_time_and_power_where_it_was_measured() -> None:
    kind = shape()
    plain = step_table(kind, prompt_tokens=PROMPT, output_tokens=OUTPUT)
    ratio = PROMPT / OUTPUT
    modelled = [
        (
            float(step_time_s(kind.facts, H100, tensor_parallel_size=4, pipeline_parallel_size=1,
                              batch=n, context_tokens=500, prefill_ratio=ratio)),
            float(power_w(kind.facts, H100, tensor_parallel_size=4, pipeline_parallel_size=1,
                          batch=n, context_tokens=500, prefill_ratio=ratio)),
        )
        for n in (1, 64)
    ]  # fmt: skip
    # Half as long again at one sequence, twice as long at 64, a tenth less power.
    points = tuple(
        ProfilePoint(
            concurrency=n,
            step_time_s=longer * seconds,
            output_tokens_per_s=n / (longer * seconds),
            power_w=0.9 * 4 * watts,
        )
        for n, longer, (seconds, watts) in zip((1, 64), (1.5, 2.0), modelled, strict=True)
    )
    profile = Profile(
        schema="hybridserve-profile/1", model=MODEL, gpu="H100-80GB", hardware="4 x H100",
        engine="vllm", measured_on="2026-01-01", tensor_parallel_size=4, prompt_tokens=PROMPT,
        output_tokens=OUTPUT, points=points, source="worked out",
    )  # fmt: skip
    table = step_table(kind, prompt_tokens=PROMPT, output_tokens=OUTPUT, profile=profile)
    assert (table.factor[1], table.factor[64]) == pytest.approx((1.5, 2.0))
    assert table.power_factor[1] == pytest.approx(0.9)
    assert plain.factor[1] == 1.0
    # What an H100 draws while it waits was measured by others.
    assert table.grade == "fleet-fit"
    waiting = profile.model_copy(update={"idle_w": 333.0})
    table = step_table(kind, prompt_tokens=PROMPT, output_tokens=OUTPUT, profile=waiting)
    assert (table.idle_w, table.grade) == (333.0, "calibrated-2pt")


def test_scaling_keeps_power() -> None:
    plain = step_table(shape(), prompt_tokens=PROMPT, output_tokens=OUTPUT)
    scaled = plain.scaled(step=2.0, prompt=3.0)
    seconds, watts = step(plain, 1, 100.0)
    assert step(scaled, 1, 100.0) == pytest.approx((2 * seconds, watts))
    # A thousand prompt tokens more take three times the seconds, and twice for the steps.
    more = plain.tokens_s[1001] - plain.tokens_s[1]
    assert scaled.factor[1] * (scaled.tokens_s[1001] - scaled.tokens_s[1]) == pytest.approx(
        6 * more
    )
    ratios = np.array(scaled.tokens_j[1:]) / np.array(scaled.tokens_s[1:])
    assert ratios == pytest.approx(np.array(plain.tokens_j[1:]) / np.array(plain.tokens_s[1:]))
