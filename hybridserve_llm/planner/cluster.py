"""Describe the GPUs that a planner may use: nodes of one GPU type each."""

from dataclasses import dataclass, replace

import numpy as np

from hybridserve_llm.config.planning import ClusterConfig
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.plan import MAX_SHARED_GPU_MEMORY
from hybridserve_llm.planner.problem import IntArray
from hybridserve_llm.profiles.gpu_types import GpuType
from hybridserve_llm.profiles.gpu_types import gpu_type as known_gpu_type

GPUS_PER_NODE = 8
"""GPUs of a node that is not described otherwise: as in HGX and DGX systems."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """Hold one machine's GPUs of one type; tensor parallelism stays inside it.

    Attributes:
        gpus: Ids of its GPUs, NVML UUIDs if they were detected; unique in the cluster.
        numbers: The driver's numbers of the GPUs, shape [n_gpus]; empty for 0, 1, ….
        linked_size: NVLink joins groups of so many GPUs that begin at multiples of it. None means
            that it is not known: the link of the GPU type is taken.
        memory_bytes: Memory of each of its GPUs, as the driver reports it.
        memory_share: Part of that memory that engines may take together: `MAX_SHARED_GPU_MEMORY`,
            or less where other processes hold more than the rest.
    """

    name: str
    gpu_type: GpuType
    gpus: tuple[str, ...]
    memory_bytes: int
    memory_share: float = MAX_SHARED_GPU_MEMORY
    numbers: tuple[int, ...] = ()
    linked_size: int | None = None

    def number(self, place: int) -> int:
        """Return the driver's number of the GPU at this place of `gpus`."""
        return self.numbers[place] if self.numbers else place

    def first(self, n_gpus: int) -> "Node":
        """Return the same node with only its first `n_gpus` GPUs."""
        return replace(self, gpus=self.gpus[:n_gpus], numbers=self.numbers[:n_gpus])


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """Hold the nodes in the order they are filled.

    A plan has a budget per GPU type and group size q (1, 2, 4, …). It is the number of groups of q
    GPUs inside nodes: `sum over nodes of floor(GPUs / q)`.

    Let the sizes of groups be powers of two. For every q, count the groups of size q or more in
    units of q. The groups can be placed exactly when no count is above its budget: larger groups
    are multiples of q, so the space they leave on a node does not depend on their places.
    First-fit decreasing then finds places for all.
    """

    nodes: tuple[Node, ...]

    @property
    def types(self) -> tuple[GpuType, ...]:
        """Return the GPU types, in the order of nodes."""
        return tuple({node.gpu_type.name: node.gpu_type for node in self.nodes}.values())

    @property
    def n_gpus(self) -> int:
        """Return the number of GPUs of all types."""
        return sum(len(node.gpus) for node in self.nodes)

    def nodes_of(self, gpu_type: GpuType) -> tuple[Node, ...]:
        """Return the nodes with GPUs of this type."""
        return tuple(node for node in self.nodes if node.gpu_type.name == gpu_type.name)

    def count(self, gpu_type: GpuType) -> int:
        """Return the number of GPUs of this type."""
        return sum(len(node.gpus) for node in self.nodes_of(gpu_type))

    def memory_bytes(self, gpu_type: GpuType) -> int:
        """Return the memory that every GPU of this type has at least, by the driver."""
        return min(node.memory_bytes for node in self.nodes_of(gpu_type))

    def memory_share(self, gpu_type: GpuType) -> float:
        """Return the part of the memory that engines may take on every GPU of this type."""
        return min(node.memory_share for node in self.nodes_of(gpu_type))

    def is_linked(self, gpu_type: GpuType, size: int) -> bool:
        """Return True if GPUs of every group of `size` communicate over the link of their type."""
        sizes = [node.linked_size for node in self.nodes_of(gpu_type)]
        return all(linked is None or size <= linked for linked in sizes)

    def group_sizes(self, gpu_type: GpuType) -> tuple[int, ...]:
        """Return the powers of two up to the largest node."""
        largest = max(len(node.gpus) for node in self.nodes_of(gpu_type))
        return tuple(1 << i for i in range(largest.bit_length()))

    def n_groups(self, gpu_type: GpuType, size: int) -> int:
        """Return how many groups of `size` GPUs the nodes of this type hold."""
        return sum(len(node.gpus) // size for node in self.nodes_of(gpu_type))

    def budget_rows(self) -> tuple[tuple[GpuType, int], ...]:
        """Return the GPU type and group size of every budget that can bind."""
        return tuple(
            (kind, size)
            for kind in self.types
            for size in self.group_sizes(kind)
            if size == 1 or self.n_groups(kind, size) * size < self.count(kind)
        )

    def budgets(self) -> IntArray:
        """Return the number of groups of each of `budget_rows`."""
        return np.array([self.n_groups(*row) for row in self.budget_rows()], dtype=np.int64)

    def uses(self, gpu_type: GpuType, *, group_size: int, n_groups: IntArray) -> IntArray:
        """Return the amount that `n_groups` [n] groups take of each budget, [n, n_budgets]."""
        units = [
            group_size // size if kind.name == gpu_type.name and group_size >= size else 0
            for kind, size in self.budget_rows()
        ]
        return n_groups[:, None] * np.array(units, dtype=np.int64)

    def parked_w(self) -> float:
        """Return the watts of all GPUs with no engine on them."""
        return float(sum(len(node.gpus) * node.gpu_type.idle_bare_w for node in self.nodes))

    def first(self, n_gpus: int) -> "Cluster":
        """Return the same cluster with only its first `n_gpus` GPUs."""
        nodes, left = [], n_gpus
        for node in self.nodes:
            part = node.first(left)
            left -= len(part.gpus)
            if part.gpus:
                nodes.append(part)
        return Cluster(nodes=tuple(nodes))

    def grown(self, n_more: int) -> "Cluster":
        """Return the same cluster with `n_more` GPUs of the last node's type added.

        The last node is filled up to eight, then nodes of eight follow.
        """
        last = self.nodes[-1]
        n_here = min(n_more, max(0, GPUS_PER_NODE - len(last.gpus)))
        names = (f"{last.name}/{i}" for i in range(len(last.gpus), len(last.gpus) + n_here))
        filled = replace(last, gpus=(*last.gpus, *names), numbers=())
        added = [
            replace(node, memory_bytes=last.memory_bytes)
            for node in described_nodes("added", last.gpu_type, n_gpus=n_more - n_here)
        ]
        return Cluster(nodes=(*self.nodes[:-1], filled, *added))


def described_nodes(
    name: str, gpu_type: GpuType, *, n_gpus: int, gpus_per_node: int = GPUS_PER_NODE
) -> tuple[Node, ...]:
    """Return nodes called `name-0`, … with `n_gpus` GPUs in total; they need not exist."""
    sizes = [min(gpus_per_node, n_gpus - i) for i in range(0, n_gpus, gpus_per_node)]
    return tuple(described_node(f"{name}-{i}", gpu_type, size) for i, size in enumerate(sizes))


def described_node(name: str, gpu_type: GpuType, n_gpus: int) -> Node:
    """Return a node of this name and GPUs called `name/0`, …; it need not exist."""
    return Node(
        name=name,
        gpu_type=gpu_type,
        gpus=tuple(f"{name}/{i}" for i in range(n_gpus)),
        memory_bytes=gpu_type.usable_memory_bytes,
    )


def configured_nodes(cluster: ClusterConfig) -> tuple[Node, ...]:
    """Return the nodes that the configuration describes.

    Raises:
        ConfigError: Two nodes have one name, or a GPU type is not known.
    """
    nodes = tuple(
        described_node(
            group.name if group.count == 1 else f"{group.name}-{place}",
            known_gpu_type(group.gpu_type),
            group.gpus,
        )
        for group in cluster.nodes
        for place in range(group.count)
    )
    names = [node.name for node in nodes]
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"cluster.nodes has two nodes called {name!r}; names must differ")
    return nodes
