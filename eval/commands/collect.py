"""Run `hs-eval collect`: ask every tier of a running cascade every question once, and no more.

The attempts are what `hs-calibrate records`, `hs-eval replay` and `hs-eval sweep` read.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.commands.asking_options import (
    AskingOptions,
    AttemptsOptions,
    add_asking_options,
    add_attempts_options,
)
from eval.commands.command import Command, options_from
from eval.commands.option_values import comma_separated
from eval.commands.recording import ask_cascade
from eval.questions.hub_datasets import DatasetName, dataset_lines
from eval.questions.prompts import Rows, read_prompts, rows_of_file
from eval.questions.ready_formats import READY_FORMATS
from eval.recorded.attempts import Attempts, read_attempts
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.reporting.blocks import Bullets, print_blocks
from hybridserve_llm.reporting.readable import four_digits, percent


@dataclass(frozen=True, slots=True, kw_only=True)
class QuestionOptions:
    """Say where the questions are: in a file, or in a dataset of the Hugging Face hub.

    Attributes:
        format: The form of the rows; None for labelled prompts.
    """

    file: Path | None
    dataset: str | None
    subset: str | None
    split: str | None
    revision: str | None
    format: str | None

    def rows(self) -> Rows:
        """Return the rows of the file or the dataset.

        Raises:
            ConfigError, CannotBeDone: Neither or both are named, or there are no such rows.
        """
        name = DatasetName(
            path=self.dataset or "",
            subset=self.subset,
            split=self.split,
            revision=self.revision,
        )
        if (self.file is None) == (not name.path):
            raise ConfigError("one of a file and --dataset is needed, and not both")
        if self.file is None:
            return Rows(name=str(name), data=dataset_lines(name))
        if name != DatasetName(path=""):
            raise ConfigError("--subset, --split and --revision go with --dataset, not with a file")
        return rows_of_file(self.file)


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectOptions:
    """Hold the options of `hs-eval collect`; `chain` names the tiers to ask, None for all."""

    questions: QuestionOptions
    asking: AskingOptions
    attempts: AttemptsOptions
    chain: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedTier:
    """Count the attempts of one tier: how many answered, failed, and were right.

    `accuracy` is None where nothing was graded.

    `energy_j` is the mean of the `n_metered` answers with joules, where all answers have them.
    """

    name: str
    n_answered: int
    n_failed: int
    n_graded: int
    n_metered: int
    accuracy: float | None
    energy_j: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """Count what is in the file of attempts now."""

    path: Path
    tiers: tuple[CollectedTier, ...]

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object; absent is null."""
        fields = CollectedTier.__slots__
        tiers = [{name: getattr(tier, name) for name in fields} for tier in self.tiers]
        return {"attempts": str(self.path), "tiers": tiers}


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "file", type=Path, nargs="?", help="labelled prompts or rows: JSONL, or CSV by .csv"
    )
    command.add_argument(
        "--dataset", metavar="ID", help="instead of a file: a Hugging Face dataset, id or folder"
    )
    command.add_argument("--subset", metavar="NAME", help="of the dataset, such as main")
    command.add_argument("--split", metavar="NAME", help="of the dataset: test, or test[:500]")
    command.add_argument("--revision", metavar="R", help="of the dataset; default: the newest")
    command.add_argument(
        "--format", choices=sorted(READY_FORMATS), help="what the rows are; default: prompts"
    )
    add_asking_options(command)
    add_attempts_options(command)
    command.add_argument(
        "--chain", type=comma_separated, help="the tiers to ask, a,b,c; default: all"
    )


def _read(values: argparse.Namespace) -> CollectOptions:
    return CollectOptions(
        questions=options_from(QuestionOptions, values),
        asking=options_from(AskingOptions, values),
        attempts=options_from(AttemptsOptions, values),
        chain=values.chain,
    )


def _run(options: CollectOptions, console: Console) -> Collected:
    """Ask what is not yet answered, and count what is there; `console` shows progress.

    Raises:
        ConfigError: The file or an option is not allowed; nothing was asked then.
        CannotBeDone: The cascade does not answer; what was recorded stays.
    """
    asking, path = options.asking, options.attempts.attempts
    form = options.questions.format
    prompts = read_prompts(
        options.questions.rows(),
        asking.grader,
        line_of=READY_FORMATS[form] if form else None,
        run_code=asking.run_code,
    )
    ask_cascade(prompts, asking, options.attempts, chain=options.chain, costs={}, console=console)
    attempts = read_attempts(path)
    names_there = [tier.name for tier in attempts.header.tiers]
    asked = [name for name in names_there if options.chain is None or name in options.chain]
    return Collected(path=path, tiers=tuple(_counted(attempts, name) for name in asked))


def print_collected(found: Collected, console: Console) -> None:
    """Print a line a tier."""
    print_blocks([Bullets(tuple(map(_in_words, found.tiers)))], console)


def _in_words(tier: CollectedTier) -> str:
    right = "not graded" if tier.accuracy is None else f"{percent(tier.accuracy)} right"
    joules = "joules unknown"
    if tier.energy_j is not None:
        joules = f"{four_digits(tier.energy_j)} J a request"
    elif 0 < tier.n_metered < tier.n_answered:
        joules = f"joules of {tier.n_metered} known"
    return f"{tier.name}: {tier.n_answered} answered, {tier.n_failed} failed, {right}, {joules}"


def _counted(attempts: Attempts, name: str) -> CollectedTier:
    own = [by_tier[name] for by_tier in attempts.by_question.values() if name in by_tier]
    answered = [attempt for attempt in own if not attempt.has_failed]
    grades = [attempt.correct for attempt in answered if attempt.correct is not None]
    joules = [attempt.energy_j for attempt in answered if attempt.energy_j is not None]
    is_metered = bool(answered) and len(joules) == len(answered)
    return CollectedTier(
        name=name,
        n_answered=len(answered),
        n_failed=len(own) - len(answered),
        n_graded=len(grades),
        n_metered=len(joules),
        accuracy=sum(grades) / len(grades) if grades else None,
        energy_j=sum(joules) / len(joules) if is_metered else None,
    )


COMMAND = Command(
    description="Ask every tier of a running cascade every labelled prompt once, and record the "
    "attempts. After a stop the same command goes on.",
    add_options=_add_options,
    read=_read,
    run=_run,
    show=print_collected,
)
