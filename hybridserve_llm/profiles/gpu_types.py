"""List GPU types with memory, bandwidth, compute, link and power, each with its datasheet.

Memory is in GiB: NVIDIA's "80 GB" are 80 GiB of chips. `usable_memory_bytes` is the total that the
driver reports, which is less by ECC and firmware. Tensor figures are dense, without the factor of
two that sparsity has in datasheets. Link bandwidth is the datasheet's total of both directions.
"""

from dataclasses import dataclass, replace

from hybridserve_llm.errors import ConfigError
from hybridserve_llm.profiles.grades import Grade
from hybridserve_llm.units import GIB, MIB

_GB_S = 1e9
_TFLOPS = 1e12
_PCIE_BYTES_S = 64e9
"""Of 16 lanes of generation 4, both directions (PCI Express Base Specification 4.0: 16 GT/s a lane,
128b/130b); newer ones are faster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuType:
    """Describe one type of GPU.

    Attributes:
        names: Its other names: NVML's product name first.
        bandwidth_bytes_s: Of device memory.
        flops_s: Dense BF16 (FP16 on a T4, which has no BF16) with FP32 accumulation.
        flops_fp8_s: Dense FP8; None without FP8 units.
        link_bytes_s: To other GPUs of the node, both directions together: NVLink, else PCIe.
        idle_bare_w: Power without any process on it.
        idle_awake_w: Power while an engine holds a CUDA context and waits.
        idle_grade: `fleet-fit` where `idle_*` were measured by others, else `datasheet`: a share
            of TDP was assumed.
        source: Datasheet of the figures.
    """

    name: str
    names: tuple[str, ...]
    memory_bytes: int
    usable_memory_bytes: int
    bandwidth_bytes_s: float
    flops_s: float
    flops_fp8_s: float | None
    link_bytes_s: float
    tdp_w: float
    idle_bare_w: float
    idle_awake_w: float
    idle_grade: Grade
    source: str


# A CUDA context adds 26 to 50 W on GPUs with HBM and 66 W on an L40S; memory in use adds next to
# nothing (arXiv:2605.23918, abstract). The middle of the range is taken.
_CONTEXT_HBM_W = 38.0
# Without a measurement of the type: bare idle of an A100 is 63 of 400 W, of an H100 75 of 700 W
# (splitwise-sim); 0.13 of TDP lies between. An idle context is taken to cost as much again in
# proportion as on an A100, 38 of 400 W.
_BARE_SHARE_OF_TDP = 0.13
_CONTEXT_SHARE_OF_TDP = 0.095


def _type(
    name: str,
    names: tuple[str, ...],
    *,
    memory_gib: int,
    usable_mib: int,
    bandwidth_gb_s: float,
    tflops: float,
    tflops_fp8: float | None,
    link_gb_s: float,
    tdp_w: float,
    source: str,
    idle_w: tuple[float, float] | None = None,
) -> GpuType:
    bare_w, awake_w = idle_w or (
        _BARE_SHARE_OF_TDP * tdp_w,
        (_BARE_SHARE_OF_TDP + _CONTEXT_SHARE_OF_TDP) * tdp_w,
    )
    return GpuType(
        name=name,
        names=names,
        memory_bytes=memory_gib * GIB,
        usable_memory_bytes=usable_mib * MIB,
        bandwidth_bytes_s=bandwidth_gb_s * _GB_S,
        flops_s=tflops * _TFLOPS,
        flops_fp8_s=None if tflops_fp8 is None else tflops_fp8 * _TFLOPS,
        link_bytes_s=link_gb_s * _GB_S,
        tdp_w=tdp_w,
        idle_bare_w=bare_w,
        idle_awake_w=awake_w,
        idle_grade="datasheet" if idle_w is None else "fleet-fit",
        source=source,
    )


# Driver totals: `nvidia-smi` of each type (ECC on where the type has it).
GPU_TYPES: tuple[GpuType, ...] = (
    _type(
        "A100-40GB",
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        memory_gib=40,
        usable_mib=40960,
        bandwidth_gb_s=1555,
        tflops=312,
        tflops_fp8=None,
        link_gb_s=600,
        tdp_w=400,
        idle_w=(63, 63 + _CONTEXT_HBM_W),
        source="NVIDIA A100 Tensor Core GPU datasheet, 2021 (SXM4)",
    ),
    _type(
        "A100-80GB",
        ("NVIDIA A100-SXM4-80GB", "A100-SXM4-80GB", "A100"),
        memory_gib=80,
        usable_mib=81920,
        bandwidth_gb_s=2039,
        tflops=312,
        tflops_fp8=None,
        link_gb_s=600,
        tdp_w=400,
        idle_w=(63, 63 + _CONTEXT_HBM_W),
        source="NVIDIA A100 Tensor Core GPU datasheet, 2021 (SXM4)",
    ),
    _type(
        "H100-80GB",
        ("NVIDIA H100 80GB HBM3", "H100", "H100-SXM5-80GB"),
        memory_gib=80,
        usable_mib=81559,
        bandwidth_gb_s=3350,
        tflops=989.5,
        tflops_fp8=1979,
        link_gb_s=900,
        tdp_w=700,
        idle_w=(75, 75 + _CONTEXT_HBM_W),
        source="NVIDIA H100 Tensor Core GPU datasheet, 2023 (SXM5)",
    ),
    _type(
        "H200",
        ("NVIDIA H200", "H200-141GB"),
        memory_gib=141,
        usable_mib=143771,
        bandwidth_gb_s=4800,
        tflops=989.5,
        tflops_fp8=1979,
        link_gb_s=900,
        tdp_w=700,
        source="NVIDIA H200 Tensor Core GPU datasheet, 2024 (SXM)",
    ),
    _type(
        "B200",
        ("NVIDIA B200", "B200-180GB"),
        memory_gib=180,
        usable_mib=183359,
        bandwidth_gb_s=8000,
        tflops=2250,
        tflops_fp8=4500,
        link_gb_s=1800,
        tdp_w=1000,
        source="NVIDIA DGX B200 datasheet, 2024 (an eighth of the system)",
    ),
    _type(
        "L40S",
        ("NVIDIA L40S",),
        memory_gib=48,
        usable_mib=46068,
        bandwidth_gb_s=864,
        tflops=362.05,
        tflops_fp8=733,
        link_gb_s=64,
        tdp_w=350,
        source="NVIDIA L40S datasheet, 2023",
    ),
    _type(
        "A10G",
        ("NVIDIA A10G",),
        memory_gib=24,
        usable_mib=23028,
        bandwidth_gb_s=600,
        tflops=70,
        tflops_fp8=None,
        link_gb_s=64,
        tdp_w=300,
        source="NVIDIA A10G datasheet, 2021 (as in AWS G5)",
    ),
    _type(
        "L4",
        ("NVIDIA L4",),
        memory_gib=24,
        usable_mib=23034,
        bandwidth_gb_s=300,
        tflops=121,
        tflops_fp8=242.5,
        link_gb_s=64,
        tdp_w=72,
        source="NVIDIA L4 Tensor Core GPU datasheet, 2023",
    ),
    _type(
        "T4",
        ("Tesla T4", "NVIDIA T4"),
        memory_gib=16,
        usable_mib=15360,
        bandwidth_gb_s=320,
        tflops=65,
        tflops_fp8=None,
        link_gb_s=32,
        tdp_w=70,
        source="NVIDIA T4 Tensor Core GPU datasheet, 2019",
    ),
    _type(
        "RTX-4090",
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        memory_gib=24,
        usable_mib=24564,
        bandwidth_gb_s=1008,
        tflops=165.2,
        tflops_fp8=330.3,
        link_gb_s=64,
        tdp_w=450,
        source="NVIDIA Ada GPU architecture whitepaper, v2.0, 2023, appendix A",
    ),
)


def gpu_type(name: str) -> GpuType:
    """Return the GPU type called `name`: a name of the catalogue, NVML's, or a common short one.

    Raises:
        ConfigError: No type has this name.
    """
    wanted = name.casefold()
    for gpu in GPU_TYPES:
        if wanted in {known.casefold() for known in (gpu.name, *gpu.names)}:
            return gpu
    allowed = ", ".join(gpu.name for gpu in GPU_TYPES)
    raise ConfigError(f"GPU type {name!r} is not known; allowed are {allowed}")


def without_nvlink(gpu: GpuType) -> GpuType:
    """Return the type with PCIe as its link; itself where its link is no faster than that."""
    if gpu.link_bytes_s <= _PCIE_BYTES_S:
        return gpu
    return replace(gpu, link_bytes_s=_PCIE_BYTES_S)
