"""List what an operator should know of the machine that a plan is for."""

from collections.abc import Iterator, Sequence

from hybridserve_llm.planner.cluster import Cluster
from hybridserve_llm.planner.hardware import Hardware
from hybridserve_llm.planner.plan import MAX_SHARED_GPU_MEMORY
from hybridserve_llm.planner.report import PlannedTier
from hybridserve_llm.units import GIB


def remarks_on(hardware: Hardware, cluster: Cluster, tiers: Sequence[PlannedTier]) -> Iterator[str]:
    """Yield remarks on GPU memory in use, missing links, and weights larger than host memory."""
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
                f"other processes hold GPU memory; free are {', '.join(held)}. Engines get at most "
                f"{node.memory_share:g} of every {node.gpu_type.name}"
            )
        if node.linked_size is not None and node.linked_size < len(node.gpus):
            yield (
                f"NVLink joins at most {node.linked_size} {node.gpu_type.name} at a time: larger "
                "tensor-parallel groups are assumed to communicate over PCIe"
            )
    host_gib = None if hardware.memory_bytes is None else hardware.memory_bytes / GIB
    for tier in tiers:
        n_gpus = tier.tensor_parallel_size * tier.pipeline_parallel_size
        weight_gib = (tier.weight_gib_per_gpu or 0.0) * n_gpus
        if host_gib is not None and weight_gib > host_gib:
            yield (
                f"weights of {tier.name}, {weight_gib:.1f} GiB, are more than the "
                f"{host_gib:.1f} GiB of this machine's memory, through which they are loaded: "
                "loading will be slow"
            )
