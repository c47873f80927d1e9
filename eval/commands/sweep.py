"""`hs-eval sweep`: every chain of the recorded tiers at many thresholds, and which of them pay.

Each policy is the server's own `ScorePolicy`. Thresholds of a tier are quantiles of its scores.
What is best here is best on the questions it was chosen on, and promises nothing on others.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from eval.commands.calibrate_options import names_in
from eval.commands.option_values import cost, natural, positive
from eval.commands.replay import thresholds, ways_beside
from eval.recorded.calibration_data import read_calibration_data
from eval.reports.readable import percent
from eval.reports.ways_table import FITTED_NOTE, ways_in_terminal
from eval.rivals.other_ways import OtherWay
from eval.rivals.policy_replay import ServedPolicy, decided, replay_of
from eval.rivals.replay_figures import ReplayFigures, replay_figures
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import Replay
from hybridserve_llm.calibration.risk_models import states_below

_MOST_POLICIES = 100
"""Of one chain: longer chains get fewer thresholds a tier."""
NEAR_LAST = 0.01
"""Accuracy that a policy may lack to be compared with other ways at its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPolicy:
    """One chain with one threshold for each tier below the last."""

    chain: tuple[str, ...]
    accept: Mapping[str, float]
    figures: ReplayFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """The policies that no other one beats in accuracy and cost, cheapest first.

    `ways` are others at the cost `beside`: that of the cheapest policy of the front that is at most
    NEAR_LAST below the last tier.
    """

    front: tuple[SweptPolicy, ...]
    n_policies: int
    n_questions: int
    cost_source: str
    ways: tuple[OtherWay, ...]
    beside: float

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        front = [{**asdict(one), "ratio": one.figures.ratio} for one in self.front]
        return {**asdict(self), "front": front}


def add_sweep_options(command: argparse.ArgumentParser) -> None:
    """The command line of `hs-eval sweep`."""
    command.description = (
        "Replay recorded answers at many thresholds for every chain of the tiers, and show those "
        "that no other one beats in accuracy and cost."
    )
    command.add_argument("file", type=Path, help="recorded attempts (JSONL), or records (CSV)")
    command.add_argument("--chain", type=names_in, help="tiers to choose from; default: all")
    command.add_argument(
        "--cost", type=cost, action="append", default=[], metavar="TIER=X", help="per request"
    )
    command.add_argument(
        "--steps", type=positive, default=20, help="thresholds a tier, at most; default 20"
    )
    command.add_argument("--seed", type=natural, default=0, help="of the intervals")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def sweep(options: argparse.Namespace) -> Sweep:
    """The sweep that the options ask for.

    Raises:
        ConfigError: The file cannot be used, or a chain or a cost names what is not there.
    """
    data = read_calibration_data(options.file, options.chain, dict(options.cost))
    outcomes = data.outcomes
    tried = [
        (accept, of_chain, replay_of(decided(_policy(of_chain, accept), of_chain), of_chain))
        for of_chain in _chains(outcomes)
        for accept in _grid(of_chain, options.steps)
    ]
    front = tuple(
        SweptPolicy(
            chain=of_chain.tiers,
            accept=accept,
            figures=replay_figures(done, of_chain, seed=options.seed),
        )
        for accept, of_chain, done in _unbeaten(tried)
    )
    beside = _cost_near_last(front)
    return Sweep(
        front=front,
        ways=ways_beside(data, beside, seed=options.seed),
        beside=beside,
        n_policies=len(tried),
        n_questions=outcomes.n_questions,
        cost_source=data.cost_source,
    )


def print_sweep(found: Sweep, console: Console) -> None:
    """The front as a table of 80 columns."""
    table = Table(box=None, header_style="bold", title_justify="left")
    table.title = f"{len(found.front)} of {found.n_policies} policies that no other one beats"
    table.add_column("accept at score")
    for heading in ("right", "harm", "cost", "ratio"):
        table.add_column(heading, justify="right")
    for one in found.front:
        parts = [f"{name} {one.accept[name]:.4g}" for name in one.chain[:-1]]
        figures = one.figures
        table.add_row(
            " > ".join([*parts, one.chain[-1]]),
            percent(figures.accuracy),
            percent(figures.harm),
            f"{figures.cost:.4g}",
            f"{figures.ratio:.2f}",
        )
    console.print(table)
    caption = f"other ways, at a cost of {found.beside:.4g}"
    console.print(ways_in_terminal(found.ways, caption=caption))
    console.print(FITTED_NOTE)
    console.print(
        f"Cost: {found.cost_source}. Chosen on the {found.n_questions} questions they are measured "
        "on: no promise; hs-calibrate makes one."
    )


def _cost_near_last(front: tuple[SweptPolicy, ...]) -> float:
    near = [p.figures for p in front if p.figures.difference >= -NEAR_LAST - 1e-9]
    return min(figures.cost for figures in near or [front[-1].figures])


def _policy(outcomes: Outcomes, accept: Mapping[str, float]) -> ServedPolicy:
    return ServedPolicy(policy=thresholds(outcomes.tiers, dict(accept)))


def _chains(outcomes: Outcomes) -> Iterator[Outcomes]:
    """The outcomes of every subset of the tiers that ends in the last one; that one alone first."""
    for lower in ((), *states_below(outcomes.last)):
        kept = [*lower, outcomes.last]
        yield replace(
            outcomes,
            tiers=tuple(outcomes.tiers[tier] for tier in kept),
            is_right=outcomes.is_right[:, kept],
            scores=outcomes.scores[:, kept],
            answers=outcomes.answers[:, kept],
            costs=outcomes.costs[kept],
            answer_features=outcomes.answer_features[:, kept],
        )


def _grid(outcomes: Outcomes, n_steps: int) -> Iterator[dict[str, float]]:
    """Thresholds for every tier below the last, at quantiles of its scores."""
    lower = outcomes.tiers[:-1]
    if not lower:
        yield {}
        return
    n_each = min(n_steps, int(_MOST_POLICIES ** (1 / len(lower)) + 1e-9))
    values = []
    for tier in range(len(lower)):
        scores = outcomes.scores[~np.isnan(outcomes.scores[:, tier]), tier]
        if len(scores) == 0:
            return  # a tier that gives no score never answers: the chain without it is the same
        at = np.quantile(scores, np.linspace(0, 1, n_each), method="lower")
        values.append([float(score) for score in np.unique(at)])
    for picked in itertools.product(*values):
        yield dict(zip(lower, picked, strict=True))


_Tried = tuple[dict[str, float], Outcomes, Replay]


def _unbeaten(tried: list[_Tried]) -> list[_Tried]:
    """Cheapest first, each more often right than every cheaper one."""
    keyed = [
        (float(done.costs(of_chain).mean()), -float(done.is_right(of_chain).mean()), i)
        for i, (_, of_chain, done) in enumerate(tried)
    ]
    front: list[_Tried] = []
    best = 1.0
    for _, wrongness, i in sorted(keyed):
        if wrongness < best - 1e-12:
            best = wrongness
            front.append(tried[i])
    return front
