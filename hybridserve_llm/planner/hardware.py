"""Describe a machine's cores, GPUs and memory to the planner.

`launch/machine/hardware.py` detects them.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """Hold the facts of one GPU.

    Attributes:
        uuid: NVML's; it stays the same when the order of devices changes.
        memory_bytes: Total memory, as the driver reports it.
        free_bytes: The part that no process holds; None where it is not known.
        index: The number that the driver gives it.
        linked_to: UUIDs of the GPUs that it reaches over NVLink; None where it is not known.
        is_cut: True in MIG mode, where an engine can have no more than a slice.
        pci_address: As NVML writes it; None where it is not known.
        numa_node: The NUMA node near it; None where it is not known.
    """

    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int | None = None
    index: int = 0
    linked_to: frozenset[str] | None = None
    is_cut: bool = False
    pci_address: str | None = None
    numa_node: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NumaNode:
    """Hold the usable cores that share near memory."""

    number: int
    cpu_cores: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """Hold one machine: ids of the CPU cores that may be used, and its GPUs in their order.

    Without a GPU the engines run on the CPU.

    Attributes:
        numa_nodes: Empty where they are not known.
        memory_bytes: Memory of the machine without its GPUs; None where it is not known.
    """

    cpu_cores: tuple[int, ...]
    gpus: tuple[Gpu, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    memory_bytes: int | None = None
