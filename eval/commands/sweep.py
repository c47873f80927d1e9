"""Run `hs-eval sweep`: try every chain of the recorded tiers at many thresholds.

Each policy is the server's own `ScorePolicy`. Thresholds of a tier are quantiles of its scores.
What is best here is best on the questions it was chosen on, and promises nothing on others.
"""

import argparse
import itertools
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from eval.commands.command import Command, options_from
from eval.commands.option_values import comma_separated, model_cost, natural, positive
from eval.judging.ways import Way
from eval.recorded.calibration_data import read_calibration_data
from eval.reports.shared_tables import FITTED_NOTE, ways_table
from eval.rivals.given_policies import threshold_policy
from eval.rivals.other_ways import ways_at_cost, ways_json
from eval.rivals.policy_replay import ServedPolicy, decided, replay_of
from eval.rivals.replay_figures import ReplayFigures, replay_figures
from hybridserve_llm.calibration.outcomes import Outcomes
from hybridserve_llm.calibration.policies import Replay
from hybridserve_llm.calibration.risk_models import states_below
from hybridserve_llm.reporting.blocks import Paragraph, Table, print_blocks
from hybridserve_llm.reporting.readable import four_digits, percent

_MOST_POLICIES = 100
"""Most policies of one chain: longer chains get fewer thresholds for each tier."""
NEAR_LAST = 0.01
"""Accuracy that a policy may lack to be compared with other ways at its cost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """Hold the options of `hs-eval sweep`.

    Attributes:
        file: The recorded answers.
        chain: Tiers to choose from; None for all.
        cost: Pairs of a tier and its cost of a request.
        steps: Thresholds of a tier, at most.
        seed: Seed of the intervals.
    """

    file: Path
    chain: tuple[str, ...] | None
    cost: list[tuple[str, float]]
    steps: int
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptPolicy:
    """Hold one chain with one threshold for each tier below the last, and its figures."""

    chain: tuple[str, ...]
    accept: Mapping[str, float]
    figures: ReplayFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """Hold the policies that no other one beats in accuracy and cost, cheapest first.

    `ways` are other ways at the cost `beside`, which is that of the cheapest policy of the front
    that is at most NEAR_LAST below the last tier.
    """

    front: tuple[SweptPolicy, ...]
    n_policies: int
    n_questions: int
    cost_source: str
    ways: tuple[Way, ...]
    beside: float

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        front = [{**asdict(one), "ratio": one.figures.ratio} for one in self.front]
        return {**asdict(self), "front": front, "ways": ways_json(self.ways)}


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="recorded attempts (JSONL), or records (CSV)")
    command.add_argument("--chain", type=comma_separated, help="tiers to choose from; default: all")
    command.add_argument(
        "--cost", type=model_cost, action="append", default=[], metavar="TIER=X", help="per request"
    )
    command.add_argument(
        "--steps", type=positive, default=20, help="thresholds a tier, at most; default 20"
    )
    command.add_argument("--seed", type=natural, default=0, help="of the intervals")


def _run(options: SweepOptions, console: Console) -> SweepResult:
    """Replay every chain at many thresholds, and keep the policies that no other one beats.

    Raises:
        ConfigError: The file cannot be used, or a chain or a cost names a tier that does not exist.
    """
    with console.status("replaying"):
        return _swept(options)


def _swept(options: SweepOptions) -> SweepResult:
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
    return SweepResult(
        front=front,
        ways=ways_at_cost(data, beside, seed=options.seed),
        beside=beside,
        n_policies=len(tried),
        n_questions=outcomes.n_questions,
        cost_source=data.cost_source,
    )


def print_sweep(found: SweepResult, console: Console) -> None:
    """Print the front and other ways, as tables of 80 columns."""
    front = Table.of(
        found.front,
        f"{len(found.front)} of {found.n_policies} policies that no other one beats",
        {
            "accept at score": _in_words,
            "right": lambda one: percent(one.figures.accuracy),
            "harm": lambda one: percent(one.figures.harm),
            "cost": lambda one: four_digits(one.figures.cost),
            "ratio": lambda one: f"{one.figures.ratio:.2f}",
        },
    )
    blocks = (
        front,
        ways_table(found.ways, caption=f"other ways, at a cost of {four_digits(found.beside)}"),
        Paragraph(FITTED_NOTE),
        Paragraph(
            f"Cost: {found.cost_source}. Chosen on the {found.n_questions} questions they are "
            "measured on: no promise; hs-calibrate makes one."
        ),
    )
    print_blocks(blocks, console)


def _in_words(one: SweptPolicy) -> str:
    parts = [f"{name} {four_digits(one.accept[name])}" for name in one.chain[:-1]]
    return " > ".join([*parts, one.chain[-1]])


def _cost_near_last(front: tuple[SweptPolicy, ...]) -> float:
    near = [p.figures for p in front if p.figures.difference >= -NEAR_LAST - 1e-9]
    return min(figures.cost for figures in near or [front[-1].figures])


def _policy(outcomes: Outcomes, accept: Mapping[str, float]) -> ServedPolicy:
    return ServedPolicy(policy=threshold_policy(outcomes.tiers, dict(accept)))


def _chains(outcomes: Outcomes) -> Iterator[Outcomes]:
    """Yield the outcomes of every subset of the tiers with the last one; first of it alone."""
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
    """Yield thresholds for every tier below the last, at quantiles of its scores."""
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
    """Return the policies, cheapest first, of which each is more often right than all before."""
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


COMMAND = Command(
    description="Replay recorded answers at many thresholds for every chain of the tiers, and show "
    "those that no other one beats in accuracy and cost.",
    add_options=_add_options,
    read=partial(options_from, SweepOptions),
    run=_run,
    show=print_sweep,
)
