"""GPUs as NVML shows them, by an NVML that a test scripts."""

import logging
from dataclasses import dataclass
from pathlib import Path

import pytest

from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.hardware import Gpu, Hardware, NumaNode
from hybridserve_llm.planner.links import by_links, linked_size
from hybridserve_llm.units import GIB
from launch.machine.hardware import whole
from launch.machine.host import memory_bytes, numa_node_of, numa_nodes
from launch.machine.nvml_gpus import gpus_of
from launch.plans.planning import cluster_of
from launch.plans.remarks import remarks_on

H100 = "NVIDIA H100 80GB HBM3"


@dataclass
class ScriptedGpus:
    """GPUs of 80 GiB each, with `free` GiB of each, joined as `links` says; None: not told."""

    free: tuple[int, ...]
    links: tuple[frozenset[int], ...] | None = ()
    cut: frozenset[int] = frozenset()

    def count(self) -> int:
        return len(self.free)

    def uuid(self, index: int) -> str:
        return f"GPU-{index}"

    def name(self, index: int) -> str:
        return H100

    def memory_bytes(self, index: int) -> tuple[int, int]:
        return 80 * GIB, self.free[index] * GIB

    def is_cut(self, index: int) -> bool | None:
        return index in self.cut

    def are_linked(self, index: int, other: int) -> bool | None:
        return None if self.links is None else frozenset({index, other}) in self.links

    def pci_address(self, index: int) -> str | None:
        return f"00000000:{index:02X}:00.0"


def pairs(*linked: tuple[int, int]) -> tuple[frozenset[int], ...]:
    return tuple(frozenset(pair) for pair in linked)


ALL_OF_FOUR = pairs((0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3))


def gpus(links: tuple[frozenset[int], ...] | None, n: int = 4) -> tuple[Gpu, ...]:
    return gpus_of(ScriptedGpus(free=(80,) * n, links=links))


def test_gpus_have_what_nvml_says_of_them() -> None:
    first, second = gpus_of(ScriptedGpus(free=(79, 40), links=pairs((0, 1)), cut=frozenset({1})))
    assert (first.index, first.uuid, first.free_bytes) == (0, "GPU-0", 79 * GIB)
    assert first.linked_to == frozenset({"GPU-1"})
    assert (first.is_cut, second.is_cut) == (False, True)


@pytest.mark.parametrize(
    ("links", "order", "size"),
    [
        (ALL_OF_FOUR, [0, 1, 2, 3], 4),
        (pairs((0, 2), (1, 3)), [0, 2, 1, 3], 2),
        (pairs((1, 3)), [1, 3, 0, 2], 1),  # not every pair of two is linked
        ((), [0, 1, 2, 3], 1),
        (None, [0, 1, 2, 3], None),
    ],
)
def test_linked_gpus_become_neighbours(
    links: tuple[frozenset[int], ...] | None, order: list[int], size: int | None
) -> None:
    ordered = by_links(gpus(links))
    assert [gpu.index for gpu in ordered] == order
    assert linked_size(ordered) == size


def cluster(links: tuple[frozenset[int], ...] | None) -> Cluster:
    return cluster_of(Hardware(cpu_cores=(0,), gpus=gpus(links)))


def test_groups_larger_than_the_links_talk_over_pcie() -> None:
    (node,) = cluster(pairs((0, 2), (1, 3))).nodes
    assert node.numbers == (0, 2, 1, 3)
    joined = cluster(pairs((0, 2), (1, 3)))
    assert [joined.is_linked(node.gpu_type, size) for size in (1, 2, 4)] == [True, True, False]
    assert cluster(None).is_linked(node.gpu_type, 4)


def test_gpus_in_mig_mode_are_left_out_and_named(caplog: pytest.LogCaptureFixture) -> None:
    found = gpus_of(ScriptedGpus(free=(80, 80), cut=frozenset({1})))
    with caplog.at_level(logging.WARNING):
        assert [gpu.index for gpu in whole(found)] == [0]
    assert "GPU 1 is in MIG mode and left out" in caplog.text


def test_memory_that_others_hold_and_missing_links_are_told() -> None:
    found = Hardware(cpu_cores=(0,), gpus=gpus_of(ScriptedGpus(free=(79, 40))))
    remarks = list(remarks_on(found, cluster_of(found), None))
    assert remarks == [
        "others hold memory of GPUs; free are of GPU 1 40.0 of 80.0 GiB: engines get at most 0.5 "
        "of every H100-80GB",
        "NVLink joins at most 1 H100-80GB at a time: larger tensor-parallel groups are taken to "
        "talk over PCIe",
    ]
    free = Hardware(cpu_cores=(0,), gpus=gpus(ALL_OF_FOUR))
    assert list(remarks_on(free, cluster_of(free), None)) == []


def test_linux_tells_numa_nodes_and_memory(tmp_path: Path) -> None:
    for number, cores in enumerate(("0-1,4", "2-3")):
        folder = tmp_path / f"sys/devices/system/node/node{number}"
        folder.mkdir(parents=True)
        (folder / "cpulist").write_text(f"{cores}\n")
    device = tmp_path / "sys/bus/pci/devices/0000:3b:00.0"
    device.mkdir(parents=True)
    (device / "numa_node").write_text("1\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemTotal:       4096 kB\nMemFree: 1 kB\n")
    assert numa_nodes((0, 3, 4), tmp_path) == (
        NumaNode(number=0, cpu_cores=(0, 4)),
        NumaNode(number=1, cpu_cores=(3,)),
    )
    assert numa_node_of("00000000:3B:00.0", tmp_path) == 1
    (device / "numa_node").write_text("-1\n")
    assert numa_node_of("00000000:3B:00.0", tmp_path) is None
    assert memory_bytes(tmp_path) == 4096 * 1024
    limit = tmp_path / "sys/fs/cgroup/memory.max"
    limit.parent.mkdir(parents=True)
    limit.write_text("1048576\n")
    assert memory_bytes(tmp_path) == 1048576  # the container's limit is the lower one
    limit.write_text("max\n")
    assert memory_bytes(tmp_path) == 4096 * 1024


def test_what_linux_does_not_tell_is_none(tmp_path: Path) -> None:
    assert numa_nodes((0,), tmp_path) == ()
    assert numa_node_of("00000000:3B:00.0", tmp_path) is None
    assert memory_bytes(tmp_path) is None
