"""Run the e-processes of one policy: one for all tiers together, and one for each of several.

The certificate bounds the loss of the whole policy. So the sum over tiers has to keep to it, and
each tier alone all the more. A single tier that turns bad is seen sooner by its own e-process.
"""

import logging
from collections.abc import Mapping

from hybridserve_llm.watch.eprocess import EProcessState, SelectiveEProcess, loss_budget
from hybridserve_llm.watch.settings import WatchedPolicy, WatchSettings
from hybridserve_llm.watch.snapshot import MonitorSnapshot

log = logging.getLogger(__name__)

ALL_TIERS = "all tiers"
"""Name of the e-process over all tiers; no tier's name can hold a space."""


class Monitors:
    """Take labels and report which e-process raised the alarm.

    `delta` is divided among the e-processes evenly, so that it holds for any of them (union bound).
    A budget of 1 or more cannot be overspent: such a tier has no e-process of its own. That of all
    tiers together is the least, so where it is 1 or more there is none at all (`is_blind`).
    """

    def __init__(
        self,
        policy: WatchedPolicy,
        settings: WatchSettings,
        kept: Mapping[str, EProcessState] | None = None,
    ) -> None:
        """Create the e-processes; those in `kept` with unchanged settings are continued."""
        acceptance = {ALL_TIERS: policy.total_acceptance}
        if len(policy.acceptance) > 1:
            acceptance |= dict(policy.acceptance)
        budgets = {name: loss_budget(policy.epsilon, share) for name, share in acceptance.items()}
        watchable = {name: budget for name, budget in budgets.items() if budget < 1.0}
        labels_per_acceptance = settings.horizon_requests * settings.shadow.share
        self._processes: dict[str, SelectiveEProcess] = {}
        for name, budget in watchable.items():
            fresh = SelectiveEProcess(
                budget=budget,
                delta=settings.delta / len(watchable),
                horizon=max(1.0, labels_per_acceptance * acceptance[name]),
            )
            self._processes[name] = _gone_on_with(name, fresh, (kept or {}).get(name))

    def update(self, tier: str, loss: float) -> tuple[str, float] | None:
        """Take one label of `tier`; return name and e-value of an e-process in alarm, or None."""
        alarm = None
        for name in (ALL_TIERS, tier):
            process = self._processes.get(name)
            if process is not None:
                process.update(loss)
                if process.is_alarm and alarm is None:
                    alarm = name, process.e_value
        return alarm

    @property
    def is_blind(self) -> bool:
        """Return True where no label could ever raise an alarm, as every answer may disagree."""
        return not self._processes

    @property
    def states(self) -> dict[str, EProcessState]:
        """Return the states to keep, by name."""
        return {name: process.state for name, process in self._processes.items()}

    def snapshots(self) -> tuple[MonitorSnapshot, ...]:
        """Return the e-processes as they stand."""
        return tuple(
            MonitorSnapshot(
                name=name,
                budget=state.budget,
                labels=state.n_labels,
                losses=state.loss_sum,
                e_value=sum(state.wealth),
                alarm_at=1.0 / state.delta,
                is_alarm=state.is_alarm,
            )
            for name, state in self.states.items()
        )


def _gone_on_with(
    name: str, fresh: SelectiveEProcess, kept: EProcessState | None
) -> SelectiveEProcess:
    if kept is None:
        return fresh
    now = fresh.state
    if (kept.budget, kept.delta, kept.horizon) == (now.budget, now.delta, now.horizon):
        return SelectiveEProcess.restored(kept)
    log.warning("watch of %s starts without evidence: budget, delta or horizon have changed", name)
    return fresh
