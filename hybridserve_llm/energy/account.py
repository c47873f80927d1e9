"""Running sums of joules that keep what is known apart from what is not."""

from dataclasses import dataclass, field, replace

from hybridserve_llm.energy.joules import unknown, worst
from hybridserve_llm.records import Flag, Joules


@dataclass(slots=True)
class Account:
    """Joules added up over windows.

    Attributes:
        known_j: The sum of the known parts; no total where a part is missing.
        missing: Why a part is missing; None while none is.
    """

    known_j: float = 0.0
    edge_j: float = 0.0
    missing: str | None = None
    _least: Joules | None = field(default=None, init=False)
    _flags: frozenset[Flag] = field(default=frozenset(), init=False)

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return self._least is None and self.missing is None

    def add(self, part: Joules) -> None:
        """Adds one window's part."""
        if part.flags:
            self._flags |= part.flags
        if part.energy_j is None:
            self.missing = self.missing or part.reason or "unknown"
            return
        self.known_j += part.energy_j
        self.edge_j += part.edge_j
        if self._least is None or self._least.source is not part.source:
            self._least = part if self._least is None else worst((self._least, part))

    def joules(self) -> Joules:
        """The total, with its worst source; unknown where a part is, or nothing was added."""
        if self.missing is not None:
            return replace(unknown(self.missing), flags=self._flags)
        if self._least is None:
            return unknown("no work was metered")
        least = self._least
        return Joules(  # written out: `replace` takes five times as long, and this is often called
            energy_j=self.known_j,
            source=least.source,
            reason=least.reason,
            edge_j=self.edge_j,
            grade=least.grade,
            flags=self._flags,
        )
