"""The report's JSON: it survives a round trip, and says where it is not as hs-launch writes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.demand import Slo
from hybridserve_llm.planner.plan import Placement, Plan, TierPlan
from hybridserve_llm.planner.report import (
    DemandedTier,
    PlanDemand,
    PlanExplanation,
    PlannedGear,
    PlannedNode,
    PlanReport,
    report_in,
)
from hybridserve_llm.profiles.profile_file import Profile, ProfilePoint

PATH = Path("report.json")
POINT = ProfilePoint(concurrency=8, step_time_s=0.00912345678, output_tokens_per_s=876.9)
PROFILE = Profile(
    model="m",
    gpu="H100-80GB",
    hardware="one H100",
    engine="vLLM 0.32.0",
    measured_on="2026-11-24",
    prompt_tokens=64.0,
    output_tokens=50.0,
    points=(POINT,),
    source="by hand",
)
REPORT = PlanReport(
    fits=True,
    searched=True,
    reason="a test",
    objective="energy",
    requests_per_s=0.5,
    head_room=0.2,
    slo=Slo(latency_s=60.0),
    gpus=1,
    cluster=(PlannedNode(node="n", gpu_type="H100-80GB", gpus=1, memory_gib_per_gpu=79.5),),
    explanation=PlanExplanation(gears=(PlannedGear(level=1.0, requests_per_s=0.5, fits=False),)),
    demand=PlanDemand(
        prompt_tokens=64.0,
        output_tokens=50.0,
        tiers=(
            DemandedTier(
                name="small",
                reach=1 / 3,
                prompt_tokens=64.0,
                output_tokens=50.0,
                max_model_len=None,
                max_num_seqs=None,
                gpu_memory_utilization=None,
                facts=ModelFacts(n_parameters=10**9, n_layers=16, hidden_size=2048, n_heads=32),
                profiles=(PROFILE,),
            ),
        ),
    ),
    plan=Plan(
        tiers=(
            TierPlan(
                tier="small",
                placements=(Placement(name="small/0", device="gpu", gpu_uuids=("n/0",)),),
            ),
        )
    ),
)


def values() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPORT.to_json())
    return found


def test_a_report_survives_a_round_trip() -> None:
    assert report_in(REPORT.to_json().encode(), PATH) == REPORT


def test_figures_are_rounded_and_the_demand_is_not() -> None:
    rounded = PlanReport(fits=True, searched=False, reason="", requests_per_s=1 / 3, gpus=0)
    assert json.loads(rounded.to_json())["requests_per_s"] == 0.333333
    tier = values()["demand"]["tiers"][0]
    assert tier["reach"] == 1 / 3
    assert tier["profiles"][0]["points"][0]["step_time_s"] == POINT.step_time_s


def test_keys_of_a_newer_report_are_ignored() -> None:
    newer = values() | {"newer": 1}
    newer["demand"]["newer"] = 1
    assert report_in(json.dumps(newer).encode(), PATH) == REPORT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("requests_per_s"), "missing required field `requests_per_s`"),
        (lambda v: v["cluster"][0].pop("gpus"), r"field `gpus` - at `\$.cluster\[0\]`"),
        (lambda v: v.update(objective="speed"), "Invalid enum value 'speed' - at `\\$.objective`"),
        (lambda v: v["explanation"]["gears"][0].update(fits="yes"), "`bool`, got `str`"),
        (
            lambda v: v["demand"]["tiers"][0]["facts"].update(n_layers=0),
            r"n_layers: Input should be greater than or equal to 1 - at .*tiers\[0\].facts",
        ),
    ],
)
def test_a_fault_is_named_with_its_place(change: Any, message: str) -> None:
    found = values()
    change(found)
    with pytest.raises(ConfigError, match=f"report report.json is not as .*{message}"):
        report_in(json.dumps(found).encode(), PATH)
