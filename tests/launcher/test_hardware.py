import os

import pytest

from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.hardware import Gpu
from launch.machine.hardware import probe, visible_gpus

GPUS = tuple(
    Gpu(uuid=f"GPU-{letter}", name="H200", memory_bytes=141 * 10**9) for letter in ("aa", "bb", "b")
)


@pytest.mark.parametrize(
    ("names", "uuids"),
    [
        ({}, ["GPU-aa", "GPU-bb", "GPU-b"]),
        ({"CUDA_VISIBLE_DEVICES": ""}, []),
        ({"CUDA_VISIBLE_DEVICES": "2, 0"}, ["GPU-b", "GPU-aa"]),
        ({"CUDA_VISIBLE_DEVICES": "GPU-a,1"}, ["GPU-aa", "GPU-bb"]),
    ],
)
def test_cuda_visible_devices_is_respected(names: dict[str, str], uuids: list[str]) -> None:
    assert [gpu.uuid for gpu in visible_gpus(GPUS, names)] == uuids


def test_no_gpus_whatever_cuda_visible_devices_says() -> None:
    assert visible_gpus((), {"CUDA_VISIBLE_DEVICES": "0"}) == ()


@pytest.mark.parametrize("name", ["3", "GPU-c", "MIG-a", "-1"])
def test_cuda_visible_devices_that_names_no_gpu_is_an_error(name: str) -> None:
    with pytest.raises(ConfigError, match=f"names '{name}'.*below 3 or one of GPU-aa"):
        visible_gpus(GPUS, {"CUDA_VISIBLE_DEVICES": name})


def test_probe_of_the_cpu_finds_the_cores_this_process_may_use() -> None:
    hardware = probe(cpu_only=True)
    assert set(hardware.cpu_cores) == os.sched_getaffinity(0)
    assert hardware.gpus == ()


def test_more_gpus_than_there_are_cannot_be_used() -> None:
    with pytest.raises(CannotBeDone, match="4 GPUs asked for, 0 usable here: 4 too few"):
        probe(cpu_only=True, n_gpus=4)


def test_probe_respects_an_empty_cuda_visible_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert probe().gpus == ()


@pytest.mark.gpu
def test_probe_finds_the_gpus(real_gpu: str) -> None:
    gpus = probe().gpus
    assert gpus[0].uuid == real_gpu
    assert all(gpu.uuid.startswith("GPU-") and gpu.memory_bytes > 2**30 for gpu in gpus)
