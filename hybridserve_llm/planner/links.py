"""GPUs in an order in which those that are linked are neighbours.

`packing.py` places a group at a multiple of its size, so that order is all it needs to know.
"""

from collections.abc import Sequence

from hybridserve_llm.planner.hardware import Gpu


def by_links(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """The same GPUs, those that all reach each other over NVLink together; large sets first.

    Ties keep their order; so do all where nobody can tell what is linked.
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
    """The largest power of two for which every whole group of so many is linked, at least 1.

    Groups begin at multiples of their size. None where nobody can tell.
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
