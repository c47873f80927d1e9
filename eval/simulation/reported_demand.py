"""What the planner knew of the tiers, from the `demand` of its report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from hybridserve_llm.config.model_facts import ModelFacts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.planner.demand import Slo
from hybridserve_llm.profiles.profile_file import Profile


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedTier:
    """One tier that was planned; docs/planner.md has the keys."""

    name: str
    reach: float
    prompt_tokens: float
    output_tokens: float
    max_model_len: int | None
    max_num_seqs: int | None
    gpu_memory_utilization: float | None
    facts: ModelFacts
    profiles: tuple[Profile, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedLoad:
    """The load that a plan was made for; lengths are means."""

    requests_per_s: float
    prompt_tokens: float
    output_tokens: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedDemand:
    """What the plan was searched for.

    Attributes:
        prompt_tokens: Mean of a request; a tier may have its own. `output_tokens` likewise.
    """

    requests_per_s: float
    head_room: float
    slo: Slo
    prompt_tokens: float
    output_tokens: float
    tiers: tuple[ReportedTier, ...]

    @property
    def load(self) -> PlannedLoad:
        """What it says of requests."""
        return PlannedLoad(
            requests_per_s=self.requests_per_s,
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
        )


_DEMAND = TypeAdapter(ReportedDemand)


def reported_demand(report: dict[str, Any], path: Path) -> ReportedDemand | None:
    """The demand in the report of `hs-launch --dry-run --json`; None where it has none.

    Raises:
        ConfigError: It is not as hs-launch writes it; `path` names the file.
    """
    demand = report.get("demand")
    if demand is None:
        return None
    try:
        whole = {key: report[key] for key in ("requests_per_s", "head_room", "slo")}
        return _DEMAND.validate_python(demand | whole)
    except (KeyError, TypeError, ValidationError) as exc:
        raise ConfigError(f"report {path}: demand is not as hs-launch writes it: {exc}") from exc
