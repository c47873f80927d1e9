"""Describe where a profile was measured: the hardware in words, and its GPU type."""

import os
import platform
from pathlib import Path

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.hardware import Hardware
from hybridserve_llm.planner.plan import Placement
from hybridserve_llm.profiles.gpu_types import gpu_type


def gpu_name(placement: Placement, hardware: Hardware) -> str | None:
    """Return the GPU type's name in the catalogue, NVML's where it has none; None on a CPU."""
    if placement.device == "cpu":
        return None
    (name,) = {gpu.name for gpu in hardware.gpus if gpu.uuid in placement.gpu_uuids}
    try:
        return gpu_type(name).name
    except ConfigError:
        return name


def hardware_in_words(placement: Placement, hardware: Hardware) -> str:
    """Return the devices that the placement runs on."""
    if placement.device == "gpu":
        names = [gpu.name for gpu in hardware.gpus if gpu.uuid in placement.gpu_uuids]
        return ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    threads = placement.cpu_threads or 1
    return (
        f"{_processor()}, {len(hardware.cpu_cores)} of {os.cpu_count()} cores usable, "
        f"{placement.n_ranks} x {threads} thread{'s' if threads > 1 else ''}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.machine() or "CPU of unknown name"
