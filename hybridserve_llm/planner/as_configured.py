"""Make the plan that the configuration describes: its replicas and parallelism, without a search.

Replicas are placed on the hardware given; no profile is read. A search makes the same kind of
`Plan`.
"""

from collections.abc import Sequence

from hybridserve_llm.config.cascade import CascadeConfig, TierConfig
from hybridserve_llm.errors import CannotBeDone
from hybridserve_llm.planner.hardware import Gpu, Hardware, NumaNode
from hybridserve_llm.planner.plan import (
    MAX_SHARED_GPU_MEMORY,
    SHARE_STEPS,
    Placement,
    Plan,
    TierPlan,
    rounded_share,
)

_ROUNDING = 1e-9


def plan_as_configured(config: CascadeConfig, hardware: Hardware) -> Plan:
    """Place every tier's `replicas` at its `tensor_parallel_size`, on GPUs if there are any.

    On the CPU each rank gets an equal number of threads, at least one. If there are several NUMA
    nodes and every engine fits into one of them, each is bound to cores of its own there. On GPUs
    each replica has its own, in order, as long as there are free ones. Then replicas share the
    GPUs that carry least.

    Raises:
        CannotBeDone: A replica needs more GPUs or cores than the machine has, or engines that share
            a GPU want more than its memory; the message says by how much.
    """
    started = [tier for tier in config.tiers if not tier.endpoints]
    placements = _on_gpus(started, hardware.gpus) if hardware.gpus else _on_cpu(started, hardware)
    plan = Plan(
        tiers=tuple(
            TierPlan(tier=tier.name, placements=placements[tier.name])
            if tier.name in placements
            else TierPlan(tier=tier.name, endpoints=tier.endpoints)
            for tier in config.tiers
        )
    )
    plan.check()
    return plan


def _n_replicas(tier: TierConfig) -> int:
    return tier.replicas or 1


def _tp(tier: TierConfig) -> int:
    return tier.tensor_parallel_size or 1


def _replica_names(tier: TierConfig) -> list[str]:
    return [f"{tier.name}/{i}" for i in range(_n_replicas(tier))]


def _check_enough(tiers: Sequence[TierConfig], n_available: int, what: str) -> None:
    for tier in tiers:
        missing = _tp(tier) - n_available
        if missing > 0:
            raise CannotBeDone(
                f"tier {tier.name} needs {_tp(tier)} {what} for "
                f"tensor_parallel_size {_tp(tier)}, there are {n_available}: "
                f"{missing} too few"
            )


def _on_cpu(tiers: Sequence[TierConfig], hardware: Hardware) -> dict[str, tuple[Placement, ...]]:
    cores = hardware.cpu_cores
    _check_enough(tiers, len(cores), "CPU cores")
    n_ranks = sum(_n_replicas(tier) * _tp(tier) for tier in tiers)
    n_threads = max(1, len(cores) // n_ranks) if tiers else 1
    on_nodes = _on_numa_nodes(tiers, hardware.numa_nodes, n_threads)
    if on_nodes is not None:
        return on_nodes
    placed: dict[str, tuple[Placement, ...]] = {}
    next_core = 0
    for tier in tiers:
        replicas = []
        for name in _replica_names(tier):
            n_cores = _tp(tier) * n_threads
            # Ranks of one engine wait for each other at every layer: each is bound to cores of
            # its own. A single rank is left to the scheduler, which may lend it idle cores.
            taken = [cores[(next_core + i) % len(cores)] for i in range(n_cores)]
            next_core += n_cores
            groups = _groups(taken, n_threads)
            bound = groups if len(groups) > 1 else ()
            replicas.append(_cpu_placement(tier, name, bound, n_threads))
        placed[tier.name] = tuple(replicas)
    return placed


def _on_numa_nodes(
    tiers: Sequence[TierConfig], nodes: Sequence[NumaNode], most_threads: int
) -> dict[str, tuple[Placement, ...]] | None:
    """Bind every engine to cores of its own in one NUMA node; return None where that cannot be.

    An engine that is not bound runs on all nodes. vLLM (0.32.0) takes all its memory from the node
    of the first core that it may use, so all engines would read one node's memory. Engines get
    fewer threads if they do not fit into nodes otherwise.
    """
    if len(nodes) <= 1:
        return None
    for n_threads in range(most_threads, 0, -1):
        taken = _packed(tiers, nodes, n_threads)
        if taken is not None:
            return {
                tier.name: tuple(
                    _cpu_placement(tier, name, _groups(taken[name], n_threads), n_threads)
                    for name in _replica_names(tier)
                )
                for tier in tiers
            }
    return None


def _packed(
    tiers: Sequence[TierConfig], nodes: Sequence[NumaNode], n_threads: int
) -> dict[str, list[int]] | None:
    """Return the cores of every replica.

    The largest is placed first, each on the node with most cores left. None if one does not fit.
    """
    free = [list(node.cpu_cores) for node in nodes]
    taken: dict[str, list[int]] = {}
    for tier in sorted(tiers, key=lambda tier: -_tp(tier)):
        n_cores = _tp(tier) * n_threads
        for name in _replica_names(tier):
            roomiest = max(free, key=len)
            if len(roomiest) < n_cores:
                return None
            taken[name], roomiest[:n_cores] = roomiest[:n_cores], []
    return taken


def _groups(cores: Sequence[int], n_threads: int) -> tuple[tuple[int, ...], ...]:
    """Return the cores of every rank."""
    return tuple(tuple(cores[i : i + n_threads]) for i in range(0, len(cores), n_threads))


def _cpu_placement(
    tier: TierConfig, name: str, groups: tuple[tuple[int, ...], ...], n_threads: int
) -> Placement:
    return Placement(
        name=name,
        device="cpu",
        tensor_parallel_size=_tp(tier),
        cpu_threads=n_threads,
        cpu_core_groups=groups,
    )


def _on_gpus(
    tiers: Sequence[TierConfig], gpus: tuple[Gpu, ...]
) -> dict[str, tuple[Placement, ...]]:
    _check_enough(tiers, len(gpus), "GPUs")
    assigned = _assign_gpus(tiers, gpus)
    shares = _memory_shares(tiers, assigned)
    return {
        tier.name: tuple(
            Placement(
                name=name,
                device="gpu",
                tensor_parallel_size=_tp(tier),
                gpu_uuids=assigned[name],
                gpu_memory_share=shares[name],
            )
            for name in _replica_names(tier)
        )
        for tier in tiers
    }


def _assign_gpus(tiers: Sequence[TierConfig], gpus: tuple[Gpu, ...]) -> dict[str, tuple[str, ...]]:
    """Return the GPUs of each replica. The last tier chooses first; each takes the least loaded.

    The load of a tier is its place in the cascade, the only measure of size known here. So the
    small tiers share when there are too few GPUs.
    """
    n_wanted = sum(_n_replicas(tier) * _tp(tier) for tier in tiers)
    load = {gpu.uuid: 0 for gpu in gpus[:n_wanted]}
    order = list(load)
    assigned = {}
    for weight, tier in sorted(enumerate(tiers, start=1), key=lambda item: -item[0]):
        for name in reversed(_replica_names(tier)):
            # Ties go to the last GPU: walking backwards on both sides keeps plan order = GPU order.
            by_load = sorted(order, key=lambda uuid: (load[uuid], -order.index(uuid)))
            chosen = sorted(by_load[: _tp(tier)], key=order.index)
            for uuid in chosen:
                load[uuid] += weight
            assigned[name] = tuple(chosen)
    return assigned


def _memory_shares(
    tiers: Sequence[TierConfig], assigned: dict[str, tuple[str, ...]]
) -> dict[str, float | None]:
    """Return the memory share of each replica; None for one that has its GPUs to itself.

    A tier's own `gpu_memory_utilization` is kept. The rest of a GPU's memory is divided equally
    among the engines there that have none.
    """
    wanted = {
        name: tier.engine.gpu_memory_utilization for tier in tiers for name in _replica_names(tier)
    }
    shares: dict[str, float | None] = dict.fromkeys(assigned)
    for uuid in sorted({uuid for uuids in assigned.values() for uuid in uuids}):
        here = sorted(name for name, uuids in assigned.items() if uuid in uuids)
        if len(here) == 1:
            continue
        fixed = sum(wanted[name] or 0.0 for name in here)
        n_open = sum(wanted[name] is None for name in here)
        too_much = fixed + n_open / SHARE_STEPS - MAX_SHARED_GPU_MEMORY
        if too_much > _ROUNDING:
            raise CannotBeDone(
                f"{', '.join(here)} share GPU {uuid} and want {fixed:g} of its memory by "
                f"gpu_memory_utilization, of at most {MAX_SHARED_GPU_MEMORY}: "
                f"lower it by {too_much:.3f} or more, or add GPUs"
            )
        for name in here:
            own = wanted[name] or rounded_share((MAX_SHARED_GPU_MEMORY - fixed) / n_open)
            shares[name] = min(own, shares[name] or own)
    return shares
