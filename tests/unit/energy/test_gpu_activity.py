"""Shares of GPUs that replicas share, by what the driver says of their processes."""

import math

import pytest

from hybridserve_llm.energy.gpu_activity import GpuActivity, WithActivity
from hybridserve_llm.energy.meters import AbsentMeter
from hybridserve_llm.energy.nvml import ProcessActivity
from hybridserve_llm.testing import FakeClock, ScriptedNvml


def activity_of(
    nvml: ScriptedNvml, clock: FakeClock, uuids: tuple[str, ...] = ("G0",)
) -> GpuActivity:
    processes = {"small/0": {7, 8}, "medium/0": {9}}
    return GpuActivity(uuids, list(processes), lambda: processes, nvml, clock=clock)


def test_replicas_share_by_the_activity_of_their_processes() -> None:
    clock = FakeClock()
    nvml = ScriptedNvml(clock=clock)
    activity = activity_of(nvml, clock)
    activity.sample()
    nvml.activity["G0"] = [
        ProcessActivity(7, 10, 40.0),
        ProcessActivity(8, 10, 20.0),
        ProcessActivity(9, 10, 30.0),
        ProcessActivity(77, 10, 10.0),  # somebody else's
    ]
    clock.advance(1)
    activity.sample()
    assert activity.shares(1000, 1001) == {"small/0": 60, "medium/0": 30, "others": 10}
    clock.advance(0.5)
    activity.sample()  # no newer sample: the driver has not looked again
    assert activity.known_until_s == 1001
    assert WithActivity(AbsentMeter("none"), activity).known_until_s == 1001
    assert activity.shares(1000, 1001.5) is None


def test_all_gpus_of_a_group_count() -> None:
    clock = FakeClock()
    nvml = ScriptedNvml(clock=clock)
    activity = activity_of(nvml, clock, ("G0", "G1"))
    activity.sample()
    nvml.activity = {
        "G0": [ProcessActivity(7, 10, 40.0)],
        "G1": [ProcessActivity(7, 10, 40.0), ProcessActivity(9, 11, 20.0)],
    }
    clock.advance(1)
    activity.sample()
    assert activity.shares(1000, 1001) == {"small/0": 80, "medium/0": 20, "others": 0}


@pytest.mark.parametrize("samples", [[], [ProcessActivity(77, 10, 90.0)]])
def test_where_no_process_of_ours_was_seen_shares_are_not_known(
    samples: list[ProcessActivity],
) -> None:
    clock = FakeClock()
    nvml = ScriptedNvml(clock=clock)
    activity = activity_of(nvml, clock)
    activity.sample()
    nvml.activity["G0"] = samples
    clock.advance(2)
    activity.sample()
    assert activity.shares(1000, 1002) is None
    assert activity.known_until_s == 1002  # and nobody waits for them


def test_a_driver_that_does_not_tell_is_not_waited_for() -> None:
    clock = FakeClock()
    nvml = ScriptedNvml(clock=clock, missing={"process_activity"})
    activity = activity_of(nvml, clock)
    activity.sample()
    assert activity.known_until_s == math.inf
    assert activity.fault == "process_activity is not supported"
    assert activity.shares(1000, 1001) is None
