"""Place groups of GPUs into nodes: first-fit decreasing, which cannot fail within the budgets.

A group is placed at a multiple of its size. So GPUs that NVLink joins get neighbouring places
(`by_links`), and no more needs to be known of links.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridserve_llm.planner.cluster import Cluster, Node
from hybridserve_llm.planner.hardware import Gpu
from hybridserve_llm.profiles.gpu_types import GpuType


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Hold the GPUs that one tensor-parallel group runs on, or several groups that share them.

    `gpus` are places in `node.gpus`.
    """

    node: Node
    gpus: tuple[int, ...]

    @property
    def gpu_ids(self) -> tuple[str, ...]:
        """Return the ids of the GPUs."""
        return tuple(self.node.gpus[i] for i in self.gpus)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Return the driver's numbers of the GPUs."""
        return tuple(self.node.number(i) for i in self.gpus)


def pack(cluster: Cluster, wanted: Sequence[tuple[GpuType, int]]) -> tuple[Group, ...]:
    """Return a group for every wanted (GPU type, size), in the order wanted.

    The largest are placed first, each in the first node with room (Source: first-fit decreasing,
    Coffman et al. 1987, optimal where each size divides the next). So a group begins at a multiple
    of its size, and GPUs that are linked in pairs stay together.

    Raises:
        ValueError: They do not fit: `wanted` breaks the budgets of `cluster`, or a size is not a
            power of two.
    """
    # A machine with GPUs of two types is two nodes of one name.
    n_taken = {(node.name, node.gpu_type.name): 0 for node in cluster.nodes}
    groups: dict[int, Group] = {}
    for place, (gpu_type, size) in sorted(enumerate(wanted), key=lambda item: -item[1][1]):
        for node in cluster.nodes_of(gpu_type):
            key = (node.name, gpu_type.name)
            first = n_taken[key]
            if first + size <= len(node.gpus):
                groups[place] = Group(node=node, gpus=tuple(range(first, first + size)))
                n_taken[key] += size
                break
        else:
            raise ValueError(f"no node has {size} {gpu_type.name} left")
    return tuple(groups[place] for place in range(len(wanted)))


def by_links(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Return the same GPUs, those that all reach each other over NVLink together, large sets first.

    Sets of equal size keep their order. So do all GPUs if links are not known.
    """
    left, sets = list(gpus), []
    while left:
        linked: list[Gpu] = []
        for gpu in left:
            if _reaches_all(gpu, linked):
                linked.append(gpu)
        sets.append(linked)
        left = [gpu for gpu in left if gpu not in linked]
    return tuple(gpu for found in sorted(sets, key=len, reverse=True) for gpu in found)


def linked_size(gpus: Sequence[Gpu]) -> int | None:
    """Return the largest power of two for which NVLink joins every whole group of so many GPUs.

    It is at least 1. Groups begin at multiples of their size. None means that links are not known.
    """
    if any(gpu.linked_to is None for gpu in gpus):
        return None
    size = 1
    while 2 * size <= len(gpus) and all(
        _is_linked(gpus[first : first + 2 * size])
        for first in range(0, len(gpus) - 2 * size + 1, 2 * size)
    ):
        size *= 2
    return size


def _is_linked(group: Sequence[Gpu]) -> bool:
    return all(_reaches_all(gpu, group[:i]) for i, gpu in enumerate(group))


def _reaches_all(gpu: Gpu, others: Sequence[Gpu]) -> bool:
    return all(_are_linked(gpu, other) for other in others)


def _are_linked(gpu: Gpu, other: Gpu) -> bool:
    return gpu.linked_to is not None and other.uuid in gpu.linked_to
