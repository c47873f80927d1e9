"""Run `hs-eval measure`: accuracy, decisions and cost of one running cascade, in the same run.

Its file is what `hs-eval report` reads; `replay` and `sweep` read it too.
"""

import argparse
import asyncio
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.asking.cascade_counters import CascadeCounters
from eval.asking.collect import MAX_RETRIES, cascade_client, describe_cascade
from eval.asking.measure import Measurement
from eval.commands.asking_options import AskingOptions, add_asking_options
from eval.commands.command import Command, options_from
from eval.commands.option_values import positive, positive_number
from eval.commands.recording import header_of
from eval.questions.code_runs import check_programs_run
from eval.questions.prompts import PromptSet, read_prompts
from eval.questions.ready_formats import READY_FORMATS
from eval.recorded.measured_run import RunFile, RunHeader
from eval.reports.provenance import command_line, commit_of_project, this_machine
from hybridserve_llm.errors import ConfigError
from hybridserve_llm.reporting.blocks import Paragraph, print_blocks

_BLOCK_QUESTIONS, _IDLE_S = 200, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Say which prompts to ask, in which file the run is kept, and how it is measured.

    Attributes:
        format: The form of the rows; None for labelled prompts.
        block: Questions between two readings of the counters.
        idle: Seconds of idle engines measured before and after.
        stream: Whether the cascade and the last tier alone are asked as streams.
        hardware: The machine in words; None for what it says of itself.
    """

    file: Path
    format: str | None
    run_file: Path
    block: int
    idle: float
    stream: bool
    hardware: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureOptions:
    """Hold the options of `hs-eval measure`."""

    run: RunOptions
    asking: AskingOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureResult:
    """Count what is in the file of the run now."""

    path: Path
    n_questions: int
    n_blocks: int

    def as_json(self) -> dict[str, Any]:
        """Return one JSON object."""
        return {
            "run": str(self.path), "n_questions": self.n_questions, "n_blocks": self.n_blocks
        }  # fmt: skip


def _add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, help="labelled prompts or rows: JSONL, or CSV by .csv")
    command.add_argument(
        "--format", choices=sorted(READY_FORMATS), help="what the rows are; default: prompts"
    )
    add_asking_options(command)
    command.add_argument(
        "--run", type=Path, required=True, metavar="JSONL", dest="run_file", help="the run's file"
    )
    command.add_argument(
        "--block",
        type=positive,
        default=_BLOCK_QUESTIONS,
        metavar="N",
        help=f"questions between two readings of the counters; default {_BLOCK_QUESTIONS}",
    )
    command.add_argument(
        "--idle",
        type=positive_number,
        default=_IDLE_S,
        metavar="S",
        help=f"seconds of idle engines measured before and after; default {_IDLE_S:g}",
    )
    command.add_argument(
        "--stream",
        action="store_true",
        help="ask the cascade and the last tier alone as streams, for the seconds to a first token",
    )
    command.add_argument("--hardware", help="what it ran on, in words; default: this machine")


def _read(values: argparse.Namespace) -> MeasureOptions:
    return MeasureOptions(
        run=options_from(RunOptions, values), asking=options_from(AskingOptions, values)
    )


def _run(options: MeasureOptions, console: Console) -> MeasureResult:
    """Measure what is not in the file yet; `console` shows progress.

    Raises:
        ConfigError: The prompts, an option or the file is not allowed; nothing was asked then.
        CannotBeDone: The cascade does not answer, or programs cannot be run here; whole blocks stay
            in the file.
        KeyboardInterrupt: Ctrl-C; whole blocks stay in the file.
    """
    run, asking = options.run, options.asking
    line_of = READY_FORMATS[run.format] if run.format else None
    prompts = read_prompts(run.file, asking.grader, line_of=line_of, run_code=asking.run_code)
    if prompts.labels == "agreement":
        raise ConfigError(
            f"{run.file}: measure needs references and a grader of them, not 'agrees': the "
            "last tier is asked twice here, and may disagree with itself; hs-eval collect takes "
            "labels by agreement"
        )
    if asking.run_code:
        check_programs_run()
    n_blocks = asyncio.run(_measure(options, prompts, console))
    return MeasureResult(path=run.run_file, n_questions=len(prompts.prompts), n_blocks=n_blocks)


def print_measured(found: MeasureResult, console: Console) -> None:
    """Print one line."""
    text = (
        f"{found.path}: {found.n_questions} questions in {found.n_blocks} blocks; hs-eval report "
        "reads it"
    )
    print_blocks([Paragraph(text)], console)


async def _measure(options: MeasureOptions, prompts: PromptSet, console: Console) -> int:
    run, asking = options.run, options.asking
    key = asking.api_key()

    def advanced(way: str, n_done: int, n_all: int) -> None:
        console.print(f"{n_done} of {n_all} blocks, last: {way}", highlight=False, soft_wrap=True)

    async with cascade_client(asking.base_url, key, max_retries=MAX_RETRIES) as client:
        cascade = await describe_cascade(client)
        header = RunHeader(
            asked=header_of(cascade, prompts, asking),
            served_model_name=cascade.served_model_name,
            certificate=cascade.certificate,
            command=command_line("hs-eval"),
            project_version=version("hybridserve-llm"),
            commit=commit_of_project(),
            hardware=run.hardware or this_machine(),
            concurrency=asking.concurrency,
            block_questions=run.block,
            state=cascade.state,
            thresholds=cascade.thresholds,
            is_streamed=run.stream,
        )
        with RunFile(run.run_file, header) as file:
            await Measurement(
                client, prompts, file, counters=CascadeCounters(client), on_block=advanced
            ).run(idle_s=run.idle)
            return len(file.run.blocks)


COMMAND = Command(
    description="Ask every tier, the cascade and the last tier alone the same labelled prompts, a "
    "block at a time, and read what the engines used for each. After a stop the same command goes "
    "on.",
    add_options=_add_options,
    read=_read,
    run=_run,
    show=print_measured,
)
