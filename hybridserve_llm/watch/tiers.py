"""What the watch keeps of one tier: its counts, its ADWIN windows, and the warnings from both."""

import logging
from collections import Counter

from hybridserve_llm.interfaces import Clock
from hybridserve_llm.values.answers import Assessment
from hybridserve_llm.watch.adwin import InputDrift
from hybridserve_llm.watch.shadow import ShadowOutcome
from hybridserve_llm.watch.snapshot import TierCounts, TierSnapshot

log = logging.getLogger(__name__)

_DRIFT_SHOWN_S = 86_400.0
"""How long an ADWIN warning is shown: it marks a moment, and has no end of its own."""
_BLIND_AFTER = 20
"""Drawn answers after which too few labels are worth a warning."""


class TierRecord:
    """Counts of one tier, from `kept` on, and what they give reason to warn of."""

    def __init__(
        self, tier: str, *, adwin_delta: float, clock: Clock, kept: TierCounts | None
    ) -> None:
        """Loads river where it is installed (see `InputDrift`)."""
        self.tier = tier
        self._clock = clock
        self._drift = InputDrift(delta=adwin_delta)
        self._drift_at_s: float | None = None
        begun = kept or TierCounts()
        self._n = Counter({name: getattr(begun, name) for name in TierCounts.__dataclass_fields__})

    @property
    def has_adwin(self) -> bool:
        """Whether river was found."""
        return self._drift.is_installed

    @property
    def counts(self) -> TierCounts:
        """The counts as they stand."""
        return TierCounts(**self._n)

    def judged(self, assessment: Assessment, *, is_accepted: bool) -> None:
        """Takes a decision of the tier."""
        if self._drift.update(assessment, is_accepted=is_accepted):
            self._drift_at_s = self._clock.monotonic_s()
            log.warning("tier %s: scores or accept rate have changed", self.tier)

    def accepted(self, *, is_drawn: bool) -> None:
        """Counts an accepted answer."""
        self._n["accepted"] += 1
        self._n["shadowed"] += is_drawn

    def settled(self, outcome: ShadowOutcome, *, is_stale: bool) -> float | None:
        """Counts what became of a drawn answer; its loss, or None where it is no label."""
        if outcome not in (ShadowOutcome.AGREED, ShadowOutcome.DISAGREED):
            self._n[outcome.value] += 1
            return None
        is_loss = outcome is ShadowOutcome.DISAGREED
        self._n["compared"] += 1
        self._n["disagreed"] += is_loss
        self._n["stale"] += is_stale
        return None if is_stale else float(is_loss)

    def warnings(self) -> list[str]:
        """Reasons to look at this tier, a line each."""
        reasons = []
        if (
            self._drift_at_s is not None
            and self._clock.monotonic_s() - self._drift_at_s < _DRIFT_SHOWN_S
        ):
            reasons.append(f"tier {self.tier}: scores or accept rate have changed")
        n_drawn = self._n["shadowed"]
        n_blind = self._n["dropped"] + self._n["failed"] + self._n["cannot_tell"]
        if n_drawn >= _BLIND_AFTER and 2 * n_blind > n_drawn:
            reasons.append(f"tier {self.tier}: {n_blind} of {n_drawn} drawn answers gave no label")
        return reasons

    def snapshot(self) -> TierSnapshot:
        """Counts and warnings as they stand."""
        drift = self._drift
        return TierSnapshot(
            tier=self.tier,
            counts=self.counts,
            score_warnings=drift.n_score_warnings if drift.is_installed else None,
            accept_warnings=drift.n_accept_warnings if drift.is_installed else None,
        )
