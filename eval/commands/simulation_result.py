"""Hold the result of `hs-eval simulate`, and write it as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from msgspec import to_builtins

from eval.simulation.plan_file import PlannedLoad
from eval.simulator.gears import GearChange
from eval.simulator.outcome import GoodputBounds, SimulatedOutcome
from eval.simulator.workload import Requests
from hybridserve_llm.planner.report import PlannedGear

SCHEMA = "hybridserve-simulation/1"
PLANNED = "planned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """Hold the result of `hs-eval simulate`.

    Attributes:
        planned_for: Load of the plan by its report; None of a bare plan.
        plan_assumptions: Assumptions that the plan's report states.
        outcomes: `planned`, with `--gears` `geared`, and those it is compared with, by name.
        not_compared: The reason why another cascade has no outcome, by its name.
        gears: Gears of the plan's file, by load; empty where it has none.
        gear_changes: Changes of `geared`; None where it was not simulated.
        cpu_s: CPU-seconds of each simulation; not in the JSON, which the seed alone decides.
    """

    seed: int
    requests: Requests
    bounds: GoodputBounds
    planned_for: PlannedLoad | None
    plan_assumptions: tuple[str, ...]
    gears: tuple[PlannedGear, ...]
    gear_changes: tuple[GearChange, ...] | None
    outcomes: Mapping[str, SimulatedOutcome]
    not_compared: Mapping[str, str]
    cpu_s: Mapping[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object; unknown is null."""
        return {
            "schema": SCHEMA,
            "seed": self.seed,
            "requests": len(self.requests),
            "span_s": self.requests.span_s,
            "prompt_tokens": float(self.requests.prompt_tokens.mean()),
            "output_tokens": float(self.requests.output_tokens.mean()),
            "bounds": {"ttft_s": self.bounds.ttft_s, "latency_s": self.bounds.latency_s},
            "planned_for": None if self.planned_for is None else asdict(self.planned_for),
            "plan_assumptions": list(self.plan_assumptions),
            "gears": [
                {"requests_per_s": gear.requests_per_s, "replicas": to_builtins(gear.replicas)}
                for gear in self.gears
            ]
            or None,
            "gear_changes": None
            if self.gear_changes is None
            else [asdict(change) for change in self.gear_changes],
            "cascades": {name: found.as_json() for name, found in self.outcomes.items()},
            "not_compared": dict(self.not_compared),
        }
