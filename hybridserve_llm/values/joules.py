"""Hold amounts of energy, each with its source; unknown joules are None, never 0."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple


class Source(StrEnum):
    """List the meters, best first; a sum carries the worst of its parts."""

    NVML_ENERGY = "nvml_energy"
    ZEUS_ENERGY = "zeus_energy"
    RAPL = "rapl"
    NVML_POWER = "nvml_power_integrated"
    ZEUS_POWER = "zeus_power_integrated"
    MODEL = "model"
    UNAVAILABLE = "unavailable"


class Flag(StrEnum):
    """Name what a reader of an amount must know in addition to its source."""

    STALLED = "counter_stalled"
    RESET = "counter_reset"
    JUMPED = "counter_jumped"
    WRAPPED = "counter_wrapped"
    INCONSISTENT = "inconsistent"
    """Counter and integrated power differed by more than 10 % in the last comparison."""
    ALLOCATED = "allocated"
    """A shared device was split by a rule, not by measured activity."""
    ESTIMATED = "estimated"
    """The tokens of a request were not known, so its share was estimated."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joules:
    """Hold the energy of a span of time.

    Attributes:
        energy_j: None where it is not known; `reason` then says why.
        edge_j: By how much it may be off because a span begins or ends between two readings.
        grade: What a model rests on (`measured`, `calibrated-2pt`, `fleet-fit`, `datasheet`,
            `user`); None for measured energy.
    """

    energy_j: float | None
    source: Source
    reason: str | None = None
    edge_j: float = 0.0
    grade: str | None = None
    flags: frozenset[Flag] = frozenset()

    @property
    def label(self) -> str:
        """Return the source as records show it, a model with its grade: `model:datasheet`."""
        return self.source if self.grade is None else f"{self.source}:{self.grade}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """Hold what a replica did in a span, for power models.

    Attributes:
        running: Requests running, on average.
        prompt_tokens_per_s: Prompt tokens computed; None where no request reported them.
        output_tokens_per_s: Tokens generated; None where no request reported them.
    """

    running: float
    prompt_tokens_per_s: float | None = None
    output_tokens_per_s: float | None = None


class ComponentEnergy(NamedTuple):
    """Hold the energy of one component (`gpu`, `cpu`, `dram`); None where it is unknown, with why.

    A tuple for the same reason as `SettledEnergy`.

    Attributes:
        energy_j: While serving, without idle time.
        source: The meter, the worst of all that took part (docs/energy.md).
        edge_j: By how much it may be off because meters are read ten times a second.
        flags: What else a reader has to know: `allocated`, `estimated`, `counter_reset`, …
    """

    energy_j: float | None
    source: str
    reason: str | None = None
    edge_j: float | None = None
    flags: tuple[str, ...] = ()


class SettledEnergy(NamedTuple):
    """Hold what a request cost in the end, over every tier it visited, retries included.

    A tuple, as a frozen dataclass of so many fields takes four times as long to make, and one is
    made for every request.

    Attributes:
        booking: `user`, `shadow` or `calibration`: whose joules they are.
        tier: The tier that answered; None where none did.
        component: What `active_j` and `loaded_j` are of: `gpu` where engines run on GPUs.
        active_j: Energy while serving, shared by tokens computed.
        loaded_j: The same plus its share of the idle energy of its tiers in the last hour.
        source: The worst of all meters that took part.
        reason: Why joules are null, or why the best meter was not used.
        tiers: Active joules by tier.
        components: All components, `component` among them.
    """

    request_id: str
    booking: str
    tier: str | None
    component: str
    active_j: float | None
    loaded_j: float | None
    source: str
    reason: str | None
    edge_j: float | None
    flags: tuple[str, ...]
    tiers: Mapping[str, float | None]
    components: Mapping[str, ComponentEnergy]
