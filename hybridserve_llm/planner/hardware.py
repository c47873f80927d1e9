"""What a machine has, as the planner sees it; probing it is left to `launch/hardware.py`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU.

    Attributes:
        uuid: NVML's; it survives a change of the order of devices.
        memory_bytes: In all, as the driver reports it.
        free_bytes: Of these, what nobody holds; None where nobody looked.
        index: The driver's number of it.
    """

    uuid: str
    name: str
    memory_bytes: int
    free_bytes: int | None = None
    index: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """One machine: ids of the CPU cores that may be used, and its GPUs in their order.

    With no GPU the engines run on the CPU.
    """

    cpu_cores: tuple[int, ...]
    gpus: tuple[Gpu, ...] = ()
