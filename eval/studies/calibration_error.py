"""How far each tier's confidence is from calibrated, beside what perfect calibration would show.

    python -m eval.studies.calibration_error FILE... [--splits 50] [--n-fit 300] [--json]

Models of confidence are fitted on random rows of a file of recorded answers and judged on all other
rows: the expected calibration error over 15 bins of equal mass. A finite sample of a perfectly
calibrated confidence has an error too, so labels are drawn from the predicted probabilities and
binned alike; the excess is what the models add. For each tier below the last there are two states:
the tier asked alone, and asked after all tiers before it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from eval.judging.reliability import N_ECE_BINS, calibration_error, perfect_errors
from eval.recorded.recorded_costs import costs_for, outcomes_at
from eval.recorded.records_csv import read_records
from eval.recorded.splits import DEFAULT_N_FIT
from hybridserve_llm.calibration.outcomes import Floats, Outcomes, State
from hybridserve_llm.calibration.risk_models import fit_state_models
from hybridserve_llm.errors import ConfigError

N_SPLITS = 50
N_DRAWS = 20
"""Sets of labels drawn for one split."""
FEWEST_PER_BIN = 20
"""Rows to judge on, for each bin: with fewer the error is nearly all chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StateError:
    """Means over the splits; the standard error is that of the excess, None for one split."""

    file: str
    state: tuple[str, ...]
    n_fit: int
    n_judged: int
    error: float
    perfect_error: float
    excess: float
    excess_standard_error: float | None


def state_errors(
    outcomes: Outcomes, file: str, *, n_fit: int, n_splits: int, seed: int
) -> list[StateError]:
    """The error of every tier below the last, alone and after all tiers before it.

    Raises:
        ConfigError: Too few rows are left to judge on.
    """
    n_judged = outcomes.n_questions - n_fit
    if n_fit < 1 or n_judged < N_ECE_BINS * FEWEST_PER_BIN:
        raise ConfigError(
            f"{file}: {outcomes.n_questions} questions are too few to fit on {n_fit} and judge on "
            f"{N_ECE_BINS * FEWEST_PER_BIN}; lower --n-fit or leave the file out"
        )
    found: dict[State, list[tuple[float, float]]] = {state: [] for state in shown_states(outcomes)}
    for split in track(range(n_splits), description=file, console=Console(stderr=True)):
        for state, errors in _one_split(outcomes, list(found), n_fit, [seed, split]).items():
            found[state].append(errors)
    return [
        _state_error(file, outcomes, state, n_fit, np.array(errors))
        for state, errors in found.items()
    ]


def shown_states(outcomes: Outcomes) -> list[State]:
    """The states that are reported: each tier alone, and each after all tiers before it."""
    alone = [(tier,) for tier in range(outcomes.last)]
    return [*alone, *(tuple(range(tier + 1)) for tier in range(1, outcomes.last))]


def _one_split(
    outcomes: Outcomes, states: Sequence[State], n_fit: int, seeds: list[int]
) -> dict[State, tuple[float, float]]:
    """Error and perfect error of each state on one random split."""
    rng = np.random.default_rng(seeds)
    order = rng.permutation(outcomes.n_questions)
    models = fit_state_models(outcomes.take(order[:n_fit]), rng)
    rest = outcomes.take(order[n_fit:])
    errors = {}
    for state in states:
        confidence = models[state].judge(rest).confidence
        known = ~np.isnan(confidence)
        said, is_right = confidence[known], rest.is_right[known, state[-1]]
        perfect = perfect_errors(said, rng, n_simulations=N_DRAWS)
        errors[state] = (calibration_error(said, is_right), float(perfect.mean()))
    return errors


def _state_error(
    file: str, outcomes: Outcomes, state: State, n_fit: int, errors: Floats
) -> StateError:
    excess = errors[:, 0] - errors[:, 1]
    n = len(excess)
    return StateError(
        file=file,
        state=tuple(outcomes.tiers[tier] for tier in state),
        n_fit=n_fit,
        n_judged=outcomes.n_questions - n_fit,
        error=float(errors[:, 0].mean()),
        perfect_error=float(errors[:, 1].mean()),
        excess=float(excess.mean()),
        excess_standard_error=float(excess.std(ddof=1) / np.sqrt(n)) if n > 1 else None,
    )


def table(rows: Sequence[StateError]) -> str:
    """The rows as text."""
    width = max(len(" > ".join(row.state)) for row in rows)
    lines = []
    for file in dict.fromkeys(row.file for row in rows):
        here = [row for row in rows if row.file == file]
        lines += [
            f"{file}: fitted on {here[0].n_fit}, judged on {here[0].n_judged}",
            f"{'state':{width}}   ECE  perfect  excess  (s.e.)",
        ]
        for row in here:
            spread = "" if row.excess_standard_error is None else f"{row.excess_standard_error:.4f}"
            lines.append(
                f"{' > '.join(row.state):{width}} {row.error:.4f}  {row.perfect_error:.4f} "
                f" {row.excess:+.4f}  {spread}".rstrip()
            )
        lines.append("")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures every file; prints a table, or one JSON list with --json; 2 on wrong usage."""
    parser = argparse.ArgumentParser(prog="eval.studies.calibration_error", description=__doc__)
    parser.add_argument("files", type=Path, nargs="+", help="CSV of recorded answers")
    parser.add_argument("--splits", type=int, default=N_SPLITS, help="random splits of each file")
    parser.add_argument("--n-fit", type=int, default=DEFAULT_N_FIT, help="rows fitted on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="one JSON list on stdout")
    options = parser.parse_args(arguments)
    rows: list[StateError] = []
    try:
        for path in options.files:
            outcomes = outcomes_at(path, costs_for(read_records(path), {}))
            rows += state_errors(
                outcomes,
                path.name,
                n_fit=options.n_fit,
                n_splits=options.splits,
                seed=options.seed,
            )
    except ConfigError as exc:
        sys.stderr.write(f"eval.studies.calibration_error: error: {exc}\n")
        return 2
    as_json = json.dumps([asdict(row) for row in rows]) + "\n"
    sys.stdout.write(as_json if options.json else table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
