"""Simulate the watch's alarm: how soon it sees a loss at 3 times its budget, how often it errs.

    python -m eval.studies.drift_simulation --runs 2000 --seed 0 [--multiple 2] [--json]

For every pair (epsilon, acceptance) labels are drawn as independent 0 and 1. A change is put at the
start, after safe labels at exactly the budget, and after safe labels at half of it. It counts as
detected when the alarm comes within 3 times Wald's mean sample number. False alarms are counted
over 100,000 requests whose loss is exactly the budget, which is the worst that is still allowed.
The e-processes are those of `hybridserve_llm/watch/eprocess.py`, many at a time.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from hybridserve_llm.watch.eprocess import FIRST_SHARE, bets, loss_budget, wald_mean_samples
from hybridserve_llm.watch.settings import ShadowSettings, WatchSettings

EPSILONS = (0.005, 0.01, 0.02, 0.05)
ACCEPTANCES = (0.3, 0.5, 0.7, 0.9)
PATIENCE = 3.0
"""Multiple of Wald's mean sample number within which the alarm must come."""
BETA = 0.05
N_REQUESTS = 100_000
PLAIN_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]


@dataclass(slots=True)
class Bank:
    """Update many independent e-processes, which take their labels together.

    `wealth` has shape [n_bets, n_runs]; `stakes`, `income` [n_bets, 1]; `is_alarm` [n_runs].
    """

    budget: float
    delta: float
    stakes: Floats
    income: Floats
    wealth: Floats
    is_alarm: Flags
    is_capped: bool = True

    @classmethod
    def watched(cls, budget: float, *, delta: float, horizon: float, n_runs: int) -> "Bank":
        """Start the recursion of `SelectiveEProcess` (a unit test compares the two)."""
        stakes, shares = (np.array(column)[:, None] for column in zip(*bets(budget), strict=True))
        return cls(
            budget=budget,
            delta=delta,
            stakes=stakes,
            income=(1.0 - FIRST_SHARE) / horizon * shares,
            wealth=np.repeat(FIRST_SHARE * shares, n_runs, axis=1),
            is_alarm=np.zeros(n_runs, dtype=np.bool_),
        )

    @classmethod
    def plain(cls, budget: float, *, delta: float, n_runs: int) -> "Bank":
        """Start a plain mixture to compare with: products of 1 + (f / b) (x - b), averaged over f.

        The usual mixture, with all money bet from the first label on and nothing added later.
        """
        stakes = np.array(PLAIN_FRACTIONS)[:, None] / budget
        return cls(
            budget=budget,
            delta=delta,
            stakes=stakes,
            income=np.zeros_like(stakes),
            wealth=np.full((len(stakes), n_runs), 1.0 / len(stakes)),
            is_alarm=np.zeros(n_runs, dtype=np.bool_),
            is_capped=False,
        )

    def update(self, losses: Flags | Floats) -> None:
        """Take one label of every run; runs in alarm stay as they are."""
        money = self.wealth + self.income
        scale: Floats | float = 1.0
        if self.is_capped:
            staked = (money * self.stakes).sum(axis=0)
            room = 1.0 / self.delta - money.sum(axis=0)
            scale = np.clip(room / (staked * (1.0 - self.budget)), 0.0, 1.0)
        money *= 1.0 + self.stakes * (scale * (losses - self.budget))
        if self.is_alarm.any():
            money[:, self.is_alarm] = self.wealth[:, self.is_alarm]
        self.wealth = money
        self.is_alarm = self.is_alarm | (money.sum(axis=0) >= (1.0 - 1e-9) / self.delta)

    def run(self, rate: float, n_labels: int, rng: np.random.Generator) -> Floats:
        """Draw `n_labels` of mean `rate` a run; return the alarm's label, infinite without one."""
        alarm_at = np.where(self.is_alarm, 0.0, np.inf)
        for label in range(1, n_labels + 1):
            self.update(rng.random(len(self.is_alarm)) < rate)
            alarm_at[self.is_alarm & np.isinf(alarm_at)] = label
        return alarm_at


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSetup:
    """Hold the settings of one run of the program."""

    n_runs: int
    seed: int
    delta: float
    share: float
    n_safe: int
    multiple: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Hold the result of one pair: shares of runs, and the labels from change to alarm.

    `median_late` is None where fewer than half of the runs came to an alarm in time.
    """

    epsilon: float
    acceptance: float
    budget: float
    wald: float
    start: float
    late: float
    late_half: float
    median_late: float | None
    plain_start: float
    plain_late: float
    false_shadowed: float
    false_all: float


def simulate_drift(epsilon: float, acceptance: float, setup: DriftSetup) -> Row:
    """Measure one pair, with random numbers of its own."""
    budget = loss_budget(epsilon, acceptance)
    seeds = np.random.SeedSequence([setup.seed, round(1e6 * epsilon), round(1e6 * acceptance)])
    rng = np.random.default_rng(seeds)
    wald = wald_mean_samples(budget, alpha=setup.delta, beta=BETA, multiple=setup.multiple)
    limit, after = int(PATIENCE * wald), setup.multiple * budget

    n_accepted = N_REQUESTS * acceptance

    def bank(share: float = setup.share) -> Bank:
        horizon = n_accepted * share
        return Bank.watched(budget, delta=setup.delta, horizon=horizon, n_runs=setup.n_runs)

    def plain() -> Bank:
        return Bank.plain(budget, delta=setup.delta, n_runs=setup.n_runs)

    late = delays(bank(), (budget, after), setup.n_safe, limit, rng)
    late_half = delays(bank(), (0.5 * budget, after), setup.n_safe, limit, rng)
    return Row(
        epsilon=epsilon,
        acceptance=acceptance,
        budget=budget,
        wald=wald,
        start=share_of(delays(bank(), (budget, after), 0, limit, rng)),
        late=share_of(late),
        late_half=share_of(late_half),
        median_late=float(np.median(late)) if np.isfinite(np.median(late)) else None,
        plain_start=share_of(delays(plain(), (budget, after), 0, limit, rng)),
        plain_late=share_of(delays(plain(), (budget, after), setup.n_safe, limit, rng)),
        false_shadowed=share_of(bank().run(budget, int(n_accepted * setup.share), rng)),
        false_all=share_of(bank(1.0).run(budget, int(n_accepted), rng)),
    )


def delays(
    bank: Bank, rates: tuple[float, float], n_safe: int, limit: int, rng: np.random.Generator
) -> Floats:
    """Return the labels from change to alarm, infinite beyond `limit`.

    Runs that were in alarm before the change are left out.
    """
    before, after = rates
    bank.run(before, n_safe, rng)
    is_quiet = ~bank.is_alarm
    return bank.run(after, limit, rng)[is_quiet]


def share_of(alarm_at: Floats) -> float:
    """Return the share of runs with an alarm."""
    return float(np.isfinite(alarm_at).mean())


def drift_table(rows: Sequence[Row], setup: DriftSetup) -> str:
    """Return the rows and the false alarms of all pairs together, at most 80 columns."""
    lines = [
        f"{setup.n_runs} runs, seed {setup.seed}, delta {setup.delta:g}, beta {BETA:g}",
        f"shadow share {setup.share:g}, {setup.n_safe} safe labels before a late change, "
        f"to {setup.multiple:g} b",
        "",
        "                           alarm within 3x Wald, %        median    false %",
        "                       -------------------------------    labels  -----------",
        "                               late  late   plain mix     to late shadow",
        "  eps  acc budget Wald  start     b   b/2  start  late     alarm  share   all",
    ]
    lines += [
        f"{row.epsilon:5.3f} {row.acceptance:4.1f} {row.budget:6.4f} {row.wald:4.0f}  "
        f"{100 * row.start:5.1f} {100 * row.late:5.1f} {100 * row.late_half:5.1f}  "
        f"{100 * row.plain_start:5.1f} {100 * row.plain_late:5.1f}    "
        f"{'-' if row.median_late is None else round(row.median_late):>6} "
        f"{100 * row.false_shadowed:6.3f} {100 * row.false_all:5.3f}"
        for row in rows
    ]
    counts = [sum(row.false_shadowed for row in rows), sum(row.false_all for row in rows)]
    shadowed, everything = (f"{setup.n_runs * n:.0f} ({100 * n / len(rows):.3f} %)" for n in counts)
    lines += [
        "",
        f"false alarms of all {setup.n_runs * len(rows)} runs: {shadowed}, {everything};",
        f"proven to be at most {100 * setup.delta:g} %; small counts scatter around their mean",
    ]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate all pairs; print the table, or one JSON object with --json."""
    parser = argparse.ArgumentParser(prog="eval.studies.drift_simulation", description=__doc__)
    parser.add_argument("--runs", type=int, default=2000, help="runs per pair and question")
    parser.add_argument("--seed", type=int, default=0, help="seed of all random numbers")
    parser.add_argument("--delta", type=float, default=WatchSettings().delta, help="false alarms")
    parser.add_argument(
        "--share", type=float, default=ShadowSettings().share, help="share of accepted answers"
    )
    parser.add_argument("--safe", type=int, default=5000, help="labels before a late change")
    parser.add_argument("--multiple", type=float, default=3.0, help="loss after it, in budgets")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args(argv)
    setup = DriftSetup(
        n_runs=args.runs,
        seed=args.seed,
        delta=args.delta,
        share=args.share,
        n_safe=args.safe,
        multiple=args.multiple,
    )
    pairs = [(epsilon, acceptance) for epsilon in EPSILONS for acceptance in ACCEPTANCES]
    progress = track(pairs, description="pairs", console=Console(stderr=True))
    rows = [simulate_drift(epsilon, acceptance, setup) for epsilon, acceptance in progress]
    whole = {"setup": asdict(setup), "rows": [asdict(row) for row in rows]}
    sys.stdout.write(json.dumps(whole) + "\n" if args.json else drift_table(rows, setup))
    return 0


if __name__ == "__main__":
    sys.exit(main())
