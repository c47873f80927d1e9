"""Describe a machine to the planner; `launch/machine/hardware.py` probes it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU.

    Attributes:
        uuid: NVML's; it survives a change of the order of devices.
        memory_bytes: In all, as the driver reports it.
        free_bytes: Of these, what nobody holds; None where nobody looked.
        index: The driver's number of it.
        linked_to: UUIDs of the GPUs that it reaches over NVLink; None where nobody can tell.
        is_cut: Whether it is in MIG mode, where an engine can have no more than a slice.
        pci_address: As NVML writes it; None where nobody can tell.
        numa_node: Whose memory and cores are near; None where nobody can tell.
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
    """Cores that share near memory, those that may be used."""

    number: int
    cpu_cores: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One machine: ids of the CPU cores that may be used, and its GPUs in their order.

    With no GPU the engines run on the CPU.

    Attributes:
        numa_nodes: Empty where nobody can tell.
        memory_bytes: Of the machine, GPUs aside; None where nobody can tell.
    """

    cpu_cores: tuple[int, ...]
    gpus: tuple[Gpu, ...] = ()
    numa_nodes: tuple[NumaNode, ...] = ()
    memory_bytes: int | None = None
