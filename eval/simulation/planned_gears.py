"""The gears of a plan's report as a cascade that changes with the load."""

from collections.abc import Sequence

from eval.simulation.known_tiers import KnownTier
from eval.simulation.plan_file import GearReplicas, PlannedGear, PlanOnCluster
from eval.simulation.planned_cascade import TableMaker, simulated_tier
from eval.simulator.cascade import SimulatedCascade
from eval.simulator.gears import Gear, GearChange, GearRules, gear_changes, geared_tiers
from eval.simulator.step_table import StepTable
from eval.simulator.workload import Requests
from hybridserve_llm.errors import CannotBeDone, ConfigError
from hybridserve_llm.profiles.gpu_types import gpu_type
from hybridserve_llm.units import GIB


def geared_cascade(
    planned: PlanOnCluster,
    tiers: Sequence[KnownTier],
    make: TableMaker,
    requests: Requests,
    rules: GearRules,
) -> tuple[SimulatedCascade, tuple[GearChange, ...]]:
    """The cascade under `requests`, and when it changes gears.

    Raises:
        ConfigError: The report has no gears, or a gear has other tiers than the configuration.
        CannotBeDone: Tiers of a gear share GPUs, or a change needs more GPUs than are there.
    """
    if not planned.gears:
        raise ConfigError(
            "the plan's file has no gears, only one plan: hs-launch --dry-run --explain --json "
            "writes them, at the loads of planner.gears"
        )
    made: dict[GearReplicas, StepTable] = {}
    gears = [_gear(gear, tiers, make, made) for gear in planned.gears]
    changes = gear_changes(requests.arrival_s, [gear.requests_per_s for gear in gears], rules)
    cluster = planned.cluster
    changing = geared_tiers(
        [(tier.name, tier.reach) for tier in tiers], gears, changes, rules, n_gpus=cluster.n_gpus
    )
    simulated = tuple(
        simulated_tier(tier, other.lives) for tier, other in zip(tiers, changing, strict=True)
    )
    cascade = SimulatedCascade(tiers=simulated, n_gpus=cluster.n_gpus, parked_w=cluster.parked_w())
    return cascade, changes


def _gear(
    gear: PlannedGear,
    tiers: Sequence[KnownTier],
    make: TableMaker,
    made: dict[GearReplicas, StepTable],
) -> Gear:
    by_name = {replicas.tier: replicas for replicas in gear.replicas}
    if set(by_name) != {tier.name for tier in tiers}:
        raise ConfigError(
            f"a gear has the tiers {', '.join(by_name)}, the configuration "
            f"{', '.join(tier.name for tier in tiers)}"
        )
    shared = [replicas.tier for replicas in gear.replicas if replicas.shares_gpus_with]
    if shared:
        raise CannotBeDone(
            f"in the gear for {gear.requests_per_s:g} requests/s {', '.join(shared)} share GPUs: "
            "nobody measured how engines share time, and the simulator does not guess it"
        )
    return Gear(
        requests_per_s=gear.requests_per_s,
        tables=tuple(
            (_table(tier, by_name[tier.name], make, made),) * by_name[tier.name].replicas
            for tier in tiers
        ),
    )


def _table(
    tier: KnownTier, replicas: GearReplicas, make: TableMaker, made: dict[GearReplicas, StepTable]
) -> StepTable:
    """One table for all replicas of a shape, in whatever gear."""
    shape = GearReplicas(
        tier=replicas.tier,
        gpu_type=replicas.gpu_type,
        replicas=1,
        tensor_parallel_size=replicas.tensor_parallel_size,
        pipeline_parallel_size=replicas.pipeline_parallel_size,
        max_num_seqs=replicas.max_num_seqs,
        memory_gib_per_gpu=replicas.memory_gib_per_gpu,
        shares_gpus_with=(),
    )
    if shape not in made:
        made[shape] = make.table(
            tier,
            gpu_type(replicas.gpu_type),
            tensor_parallel_size=replicas.tensor_parallel_size,
            pipeline_parallel_size=replicas.pipeline_parallel_size,
            memory_bytes=int(replicas.memory_gib_per_gpu * GIB),
            max_num_seqs=replicas.max_num_seqs,
        )
    return made[shape]
