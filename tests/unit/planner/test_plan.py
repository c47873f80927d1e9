import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.plan import Placement, Plan, TierPlan

CPU = Placement(name="small/0", device="cpu", cpu_threads=2)
GPU = Placement(name="giant/0", device="gpu", gpu_uuids=("GPU-a",))


def plan_of(*placements: Placement) -> Plan:
    return Plan(
        tiers=tuple(TierPlan(tier=p.name.split("/")[0], placements=(p,)) for p in placements)
    )


@st.composite
def placements(draw: st.DrawFn, tier: str, index: int) -> Placement:
    tensor_parallel_size = draw(st.integers(1, 3))
    common = {"name": f"{tier}/{index}", "tensor_parallel_size": tensor_parallel_size}
    if draw(st.booleans()):
        # GPUs of its own, so that whatever share is drawn fits.
        uuids = tuple(f"GPU-{tier}-{index}-{rank}" for rank in range(tensor_parallel_size))
        share = draw(st.none() | st.floats(0, 1, exclude_min=True))
        return Placement(**common, device="gpu", gpu_uuids=uuids, gpu_memory_share=share)
    groups = tuple((2 * rank, 2 * rank + 1) for rank in range(tensor_parallel_size))
    return Placement(
        **common,
        device="cpu",
        cpu_threads=draw(st.integers(1, 8)),
        cpu_core_groups=groups if tensor_parallel_size > 1 or draw(st.booleans()) else (),
    )


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    names = draw(
        st.lists(
            st.from_regex(r"[a-z][a-z0-9./-]*", fullmatch=True), unique=True, min_size=1, max_size=4
        )
    )
    tiers = []
    for name in names:
        if draw(st.booleans()):
            tiers.append(TierPlan(tier=name, endpoints=("http://there:1",)))
        else:
            n = draw(st.integers(1, 3))
            tiers.append(
                TierPlan(tier=name, placements=tuple(draw(placements(name, i)) for i in range(n)))
            )
    return Plan(tiers=tuple(tiers))


@given(plans())
def test_plan_survives_a_round_trip(plan: Plan) -> None:
    plan.check()
    assert Plan.from_json(plan.to_json()) == plan


def test_json_form_is_the_one_documented() -> None:
    assert json.loads(plan_of(CPU).to_json()) == {
        "schema_version": 2,
        "tiers": [
            {
                "tier": "small",
                "endpoints": [],
                "placements": [
                    {
                        "name": "small/0",
                        "device": "cpu",
                        "node": "localhost",
                        "tensor_parallel_size": 1,
                        "pipeline_parallel_size": 1,
                        "gpu_uuids": [],
                        "gpu_memory_share": None,
                        "max_num_seqs": None,
                        "cpu_threads": 2,
                        "cpu_core_groups": [],
                    }
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema_version": 1}, "schema_version 1, this program reads 2: plan anew"),
        ({"schema_version": None}, "schema_version"),
        ({"typo": 1}, "typo"),
        ({"tiers": []}, "no tiers"),
        ({"tiers": [{"tier": "a"}]}, "tier a needs either placements or endpoints"),
        ({"tiers": [{"tier": "a", "placements": [{"name": "a/0", "gpus": 1}]}]}, "gpus"),
        (
            {"tiers": [{"tier": "a", "placements": [{"name": "a/0", "device": "tpu"}]}]},
            "'cpu' or 'gpu'",
        ),
    ],
)
def test_plan_file_that_is_not_a_plan_is_refused(change: dict[str, object], message: str) -> None:
    values = {**json.loads(plan_of(CPU).to_json()), **change}
    with pytest.raises(ConfigError, match=message):
        Plan.from_json(json.dumps(values))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "{}"])
def test_text_that_is_no_plan_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="plan: "):
        Plan.from_json(text)


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        (dataclasses.replace(CPU, tensor_parallel_size=0), "must be at least 1"),
        (dataclasses.replace(CPU, cpu_threads=0), "cpu_threads 0 must be at least 1"),
        (dataclasses.replace(CPU, cpu_threads=None), "cpu_threads None must be at least 1"),
        (dataclasses.replace(CPU, gpu_uuids=("GPU-a",)), "gpu_uuids .* are for device gpu"),
        (dataclasses.replace(CPU, tensor_parallel_size=2), "2 core groups needed, 0 given"),
        (
            dataclasses.replace(CPU, tensor_parallel_size=2, cpu_core_groups=((0, 1), (1, 2))),
            "two hold the same core",
        ),
        (
            dataclasses.replace(CPU, tensor_parallel_size=2, cpu_core_groups=((0,), ())),
            "a core group is empty",
        ),
        (dataclasses.replace(CPU, name="0"), "0 must be called"),
        (dataclasses.replace(GPU, gpu_uuids=()), "1 different GPUs needed, 0 named"),
        (
            dataclasses.replace(GPU, pipeline_parallel_size=2, gpu_uuids=("GPU-a", "GPU-a")),
            "2 different GPUs needed, 1 named",
        ),
        (dataclasses.replace(GPU, gpu_memory_share=1.5), "above 0 and at most 1"),
        (dataclasses.replace(GPU, gpu_memory_share=float("nan")), "above 0 and at most 1"),
        (dataclasses.replace(GPU, cpu_threads=1), "are for device cpu"),
    ],
)
def test_placement_that_contradicts_itself_is_refused(placement: Placement, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(placement).check()


def test_doubles_are_refused() -> None:
    with pytest.raises(ConfigError, match="tier small is there twice; replica small/0 is there"):
        plan_of(CPU, CPU).check()


def test_tier_with_both_placements_and_endpoints_is_refused() -> None:
    both = TierPlan(tier="small", placements=(CPU,), endpoints=("http://x",))
    with pytest.raises(ConfigError, match="either placements or endpoints"):
        Plan(tiers=(both,)).check()


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ((0.5, 0.5), "engines take 1.000 of GPU GPU-a, at most 0.9"),
        ((0.5, None), "b/0 share GPU GPU-a without gpu_memory_share"),
    ],
)
def test_shared_gpu_needs_shares_that_fit(
    shares: tuple[float | None, float | None], message: str
) -> None:
    a, b = (
        Placement(name=f"{tier}/0", device="gpu", gpu_uuids=("GPU-a",), gpu_memory_share=share)
        for tier, share in zip("ab", shares, strict=True)
    )
    with pytest.raises(ConfigError, match=message):
        plan_of(a, b).check()
    plan_of(*(dataclasses.replace(p, gpu_memory_share=0.45) for p in (a, b))).check()
