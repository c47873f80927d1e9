"""Running sums of joules that keep what is known apart from what is not."""

from hybridserve_llm.energy.joules import RANK
from hybridserve_llm.values.joules import ComponentEnergy, Flag, Joules, Source

_NO_FLAGS: frozenset[Flag] = frozenset()


class Account:
    """Joules added up over windows, or over the accounts of several stints.

    Written to be added to often: nothing is built until somebody asks for the total.

    Attributes:
        known_j: The sum of the known parts; no total where a part is missing.
        missing: Why a part is missing; None while none is.
    """

    __slots__ = ("_flags", "_least", "edge_j", "known_j", "missing")

    def __init__(self) -> None:
        self.known_j = 0.0
        self.edge_j = 0.0
        self.missing: str | None = None
        self._least: Joules | None = None
        self._flags = _NO_FLAGS

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return self._least is None and self.missing is None

    @property
    def energy_j(self) -> float | None:
        """The total; None where a part is not known, or nothing was added."""
        return None if self.missing is not None or self._least is None else self.known_j

    def add(self, whole: Joules, part: float = 1.0, flags: frozenset[Flag] = _NO_FLAGS) -> None:
        """Adds a part of a window's joules, whose edges are as uncertain in proportion."""
        if whole.flags or flags:
            self._flags = self._flags | whole.flags | flags
        if whole.energy_j is None:
            self.missing = self.missing or whole.reason or "unknown"
            return
        self.known_j += whole.energy_j * part
        self.edge_j += whole.edge_j * part
        self._lower_to(whole)

    def absorb(self, other: "Account") -> None:
        """Adds all that another account holds."""
        if other._flags:
            self._flags = self._flags | other._flags
        self.missing = self.missing or other.missing
        self.known_j += other.known_j
        self.edge_j += other.edge_j
        if other._least is not None:
            self._lower_to(other._least)

    def _lower_to(self, other: Joules) -> None:
        """Takes the worse of two sources; the label is its, grade and reason included."""
        least = self._least
        if least is None or RANK[other.source] > RANK[least.source]:
            self._least = other

    def component(self) -> ComponentEnergy:
        """The total with its worst source; unknown where a part is, or nothing was added."""
        flags = tuple(sorted(self._flags)) if self._flags else ()
        if self.missing is not None or self._least is None:
            reason = self.missing or "nothing was metered"
            source = Source.UNAVAILABLE
            return ComponentEnergy(energy_j=None, source=source, reason=reason, flags=flags)
        return ComponentEnergy(
            energy_j=self.known_j,
            source=self._least.label,
            reason=self._least.reason,
            edge_j=self.edge_j,
            flags=flags,
        )
