"""Places groups of GPUs into nodes: first-fit decreasing, which cannot fail within the budgets."""

from collections.abc import Sequence
from dataclasses import dataclass

from hybridserve_llm.planner.cluster import Cluster, Node
from hybridserve_llm.profiles.gpu_types import GpuType


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """GPUs that one tensor-parallel group, or several that share them, run on.

    `gpus` are places in `node.gpus`.
    """

    node: Node
    gpus: tuple[int, ...]

    @property
    def gpu_ids(self) -> tuple[str, ...]:
        """Ids of the GPUs."""
        return tuple(self.node.gpus[i] for i in self.gpus)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The driver's numbers of the GPUs."""
        return tuple(self.node.number(i) for i in self.gpus)


def pack(cluster: Cluster, wanted: Sequence[tuple[GpuType, int]]) -> tuple[Group, ...]:
    """A group for every wanted (GPU type, size), in the order wanted.

    The largest are placed first, each in the first node with room (Source: first-fit decreasing,
    Coffman et al. 1987, optimal where each size divides the next). So a group begins at a multiple
    of its size, where GPUs that are linked in pairs are neighbours.

    Raises:
        ValueError: They do not fit: `wanted` breaks the budgets of `cluster`, or sizes are no
            powers of two.
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
