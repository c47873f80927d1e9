"""`hs-eval collect`: every tier of a running cascade answers every question once, and no more.

The attempts are what `hs-calibrate records`, `hs-eval replay` and `hs-eval sweep` read.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.commands.calibrate_options import add_asking_options
from eval.commands.calibrate_options import names_in as names
from eval.commands.calibrate_prompts import ask_cascade
from eval.questions.hub_datasets import DatasetName, dataset_lines
from eval.questions.prompts import Rows, read_prompts, rows_of_file
from eval.questions.ready_formats import READY_FORMATS
from eval.recorded.attempts import Attempts, read_attempts
from hybridserve_llm.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedTier:
    """One tier's attempts: how many answered, failed, and were right; None where nobody graded.

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
    """What is in the file now."""

    path: Path
    tiers: tuple[CollectedTier, ...]

    def as_json(self) -> dict[str, Any]:
        """One JSON object; absent is null."""
        fields = CollectedTier.__slots__
        tiers = [{name: getattr(tier, name) for name in fields} for tier in self.tiers]
        return {"attempts": str(self.path), "tiers": tiers}


def add_collect_options(command: argparse.ArgumentParser) -> None:
    """The command line of `hs-eval collect`."""
    command.description = (
        "Ask every tier of a running cascade every labelled prompt once, and record the attempts. "
        "After a stop the same command goes on."
    )
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
    command.add_argument("--chain", type=names, help="the tiers to ask, a,b,c; default: all")
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")
    command.set_defaults(cost=[])


def collected(options: argparse.Namespace, console: Console) -> Collected:
    """Asks what is not yet answered, and counts what is there; `console` shows progress.

    Raises:
        ConfigError: The file or an option is not allowed; nothing was asked then.
        CannotBeDone: The cascade does not answer; what was recorded stays.
    """
    line_of = READY_FORMATS[options.format] if options.format else None
    prompts = read_prompts(
        _rows(options), options.grader, line_of=line_of, run_code=options.run_code
    )
    ask_cascade(options, prompts, console=console)
    attempts = read_attempts(options.attempts)
    names_there = [tier.name for tier in attempts.header.tiers]
    asked = [name for name in names_there if options.chain is None or name in options.chain]
    return Collected(path=options.attempts, tiers=tuple(_counted(attempts, name) for name in asked))


def _rows(options: argparse.Namespace) -> Rows:
    """Of the file or the dataset.

    Raises:
        ConfigError, CannotBeDone: Neither or both are named, or there are no such rows.
    """
    name = DatasetName(
        path=options.dataset or "",
        subset=options.subset,
        split=options.split,
        revision=options.revision,
    )
    if (options.file is None) == (not name.path):
        raise ConfigError("one of a file and --dataset is needed, and not both")
    if options.file is None:
        return Rows(name=str(name), data=dataset_lines(name))
    if name != DatasetName(path=""):
        raise ConfigError("--subset, --split and --revision go with --dataset, not with a file")
    return rows_of_file(options.file)


def print_collected(found: Collected, console: Console) -> None:
    """A line a tier."""
    for tier in found.tiers:
        right = "not graded" if tier.accuracy is None else f"{100 * tier.accuracy:.1f} % right"
        joules = "joules unknown" if tier.energy_j is None else f"{tier.energy_j:.4g} J a request"
        if 0 < tier.n_metered < tier.n_answered:
            joules = f"joules of {tier.n_metered} known"
        console.print(
            f"{tier.name}: {tier.n_answered} answered, {tier.n_failed} failed, {right}, {joules}"
        )


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
