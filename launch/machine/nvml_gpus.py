"""The GPUs that NVML shows, with what links them and what of them is taken.

The adapter over pynvml is thin and stands behind a protocol, so that tests drive the rest with a
scripted NVML.
"""

from typing import Protocol

import pynvml

from hybridserve_llm.planner.hardware import Gpu


class GpuLibrary(Protocol):
    """What is asked of NVML, by the driver's number of a GPU.

    The last three answer None where the GPU or the driver cannot tell; the others raise
    `pynvml.NVMLError`.
    """

    def count(self) -> int:
        """GPUs there are."""

    def uuid(self, index: int) -> str:
        """Its UUID."""

    def name(self, index: int) -> str:
        """Its product name."""

    def memory_bytes(self, index: int) -> tuple[int, int]:
        """In all, and what nobody holds."""

    def is_cut(self, index: int) -> bool | None:
        """Whether it is in MIG mode."""

    def are_linked(self, index: int, other: int) -> bool | None:
        """Whether the two reach each other over NVLink, directly or over switches."""

    def pci_address(self, index: int) -> str | None:
        """Such as `00000000:3B:00.0`."""


def gpus_of(library: GpuLibrary) -> tuple[Gpu, ...]:
    """All GPUs in the driver's order, those in MIG mode too."""
    indices = range(library.count())
    uuids = [library.uuid(i) for i in indices]
    return tuple(_gpu(library, index, uuids) for index in indices)


def _gpu(library: GpuLibrary, index: int, uuids: list[str]) -> Gpu:
    memory_bytes, free_bytes = library.memory_bytes(index)
    linked = {
        uuid: library.are_linked(index, other) for other, uuid in enumerate(uuids) if other != index
    }
    return Gpu(
        uuid=uuids[index],
        name=library.name(index),
        memory_bytes=memory_bytes,
        free_bytes=free_bytes,
        index=index,
        linked_to=None
        if None in linked.values()
        else frozenset(uuid for uuid, is_linked in linked.items() if is_linked),
        is_cut=bool(library.is_cut(index)),
        pci_address=library.pci_address(index),
    )


class InstalledNvml:
    """NVML as installed; `pynvml.nvmlInit` must have been called."""

    def count(self) -> int:
        """GPUs there are."""
        return int(pynvml.nvmlDeviceGetCount())

    def uuid(self, index: int) -> str:
        """Its UUID."""
        return str(pynvml.nvmlDeviceGetUUID(self._handle(index)))

    def name(self, index: int) -> str:
        """Its product name."""
        return str(pynvml.nvmlDeviceGetName(self._handle(index)))

    def memory_bytes(self, index: int) -> tuple[int, int]:
        """In all, and what nobody holds."""
        memory = pynvml.nvmlDeviceGetMemoryInfo(self._handle(index))
        return int(memory.total), int(memory.free)

    def is_cut(self, index: int) -> bool | None:
        """Whether it is in MIG mode; None before Ampere."""
        try:
            current, _ = pynvml.nvmlDeviceGetMigMode(self._handle(index))
        except pynvml.NVMLError:
            return None
        return bool(current == pynvml.NVML_DEVICE_MIG_ENABLE)

    def are_linked(self, index: int, other: int) -> bool | None:
        """Whether the two reach each other over NVLink, as `nvidia-smi topo -p2p n` says."""
        try:
            status = pynvml.nvmlDeviceGetP2PStatus(
                self._handle(index), self._handle(other), pynvml.NVML_P2P_CAPS_INDEX_NVLINK
            )
        except pynvml.NVMLError:
            return None
        return bool(status == pynvml.NVML_P2P_STATUS_OK)

    def pci_address(self, index: int) -> str | None:
        """Such as `00000000:3B:00.0`."""
        try:
            return str(pynvml.nvmlDeviceGetPciInfo(self._handle(index)).busId)
        except pynvml.NVMLError:
            return None

    def _handle(self, index: int) -> object:
        return pynvml.nvmlDeviceGetHandleByIndex(index)
