"""What an operator should know of the machine that a plan is for."""

from collections.abc import Iterator

from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.forecast import Forecast
from hybridserve_llm.planner.hardware import Hardware
from hybridserve_llm.planner.plan import MAX_SHARED_GPU_MEMORY
from hybridserve_llm.units import GIB


def remarks_on(hardware: Hardware, cluster: Cluster, found: Forecast | None) -> Iterator[str]:
    """GPUs that others hold, GPUs without links, and weights larger than the host's memory."""
    for node in cluster.nodes:
        if node.memory_share < MAX_SHARED_GPU_MEMORY:
            held = [
                f"GPU {gpu.index} {gpu.free_bytes / GIB:.1f} of {gpu.memory_bytes / GIB:.1f} GiB"
                for gpu in hardware.gpus
                if gpu.uuid in node.gpus
                and gpu.free_bytes is not None
                and gpu.free_bytes < MAX_SHARED_GPU_MEMORY * gpu.memory_bytes
            ]
            yield (
                f"others hold memory of GPUs; free are of {', '.join(held)}: engines get at most "
                f"{node.memory_share:g} of every {node.gpu_type.name}"
            )
        if node.linked_size is not None and node.linked_size < len(node.gpus):
            yield (
                f"NVLink joins at most {node.linked_size} {node.gpu_type.name} at a time: larger "
                "tensor-parallel groups are taken to talk over PCIe"
            )
    for tier in found.tiers if found else ():
        n_gpus = tier.tensor_parallel_size * tier.pipeline_parallel_size
        weight_bytes = tier.weight_bytes_per_gpu * n_gpus
        if hardware.memory_bytes is not None and weight_bytes > hardware.memory_bytes:
            yield (
                f"weights of {tier.name}, {weight_bytes / GIB:.1f} GiB, are more than the "
                f"{hardware.memory_bytes / GIB:.1f} GiB of this machine's memory, through which "
                "they are loaded: that takes long"
            )
