"""`hs-eval measure`: accuracy, decisions and cost of one running cascade, all in the same run.

Its file is what `hs-eval report` reads; `replay` and `sweep` read it too.
"""

import argparse
import asyncio
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console

from eval.asking.collect import MAX_RETRIES, cascade_client, describe_cascade
from eval.asking.engine_counters import CascadeCounters
from eval.asking.measure import Measurement
from eval.commands.calibrate_options import add_asking_options
from eval.commands.calibrate_prompts import api_key_in
from eval.commands.option_values import positive, positive_number
from eval.questions.code_runs import check_programs_run
from eval.questions.prompts import PromptSet, read_prompts
from eval.questions.ready_formats import READY_FORMATS
from eval.recorded.attempts import AttemptsHeader
from eval.recorded.measured_run import RunHeader
from eval.recorded.run_file import RunFile
from eval.reports.provenance import command_line, commit_of_project, this_machine
from hybridserve_llm.errors import ConfigError

_BLOCK_QUESTIONS, _IDLE_S = 200, 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is in the file now."""

    path: Path
    n_questions: int
    n_blocks: int

    def as_json(self) -> dict[str, Any]:
        """One JSON object."""
        return {
            "run": str(self.path), "n_questions": self.n_questions, "n_blocks": self.n_blocks
        }  # fmt: skip


def add_measure_options(command: argparse.ArgumentParser) -> None:
    """The command line of `hs-eval measure`."""
    command.description = (
        "Ask every tier, the cascade and the last tier alone the same labelled prompts, a block "
        "at a time, and read what the engines used for each. After a stop the same command goes on."
    )
    command.add_argument("file", type=Path, help="labelled prompts or rows: JSONL, or CSV by .csv")
    command.add_argument(
        "--format", choices=sorted(READY_FORMATS), help="what the rows are; default: prompts"
    )
    add_asking_options(command, keeps_attempts=False)
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
    command.add_argument("--json", action="store_true", help="print JSON and nothing else")


def measured(options: argparse.Namespace, console: Console) -> Measured:
    """Measures what is not in the file yet; `console` shows progress.

    Raises:
        ConfigError: The prompts, an option or the file is not allowed; nothing was asked then.
        CannotBeDone: The cascade does not answer, or programs cannot be run here; whole blocks stay
            in the file.
        KeyboardInterrupt: Ctrl-C; whole blocks stay in the file.
    """
    line_of = READY_FORMATS[options.format] if options.format else None
    prompts = read_prompts(options.file, options.grader, line_of=line_of, run_code=options.run_code)
    if prompts.labels == "agreement":
        raise ConfigError(
            f"{options.file}: measure needs references and a grader of them, not 'agrees': the "
            "last tier is asked twice here, and may disagree with itself; hs-eval collect takes "
            "labels by agreement"
        )
    if options.run_code:
        check_programs_run()
    n_blocks = asyncio.run(_measure(options, prompts, console))
    return Measured(path=options.run_file, n_questions=len(prompts.prompts), n_blocks=n_blocks)


def print_measured(found: Measured, console: Console) -> None:
    """One line."""
    console.print(
        f"{found.path}: {found.n_questions} questions in {found.n_blocks} blocks; hs-eval report "
        "reads it"
    )


async def _measure(options: argparse.Namespace, prompts: PromptSet, console: Console) -> int:
    key = api_key_in(options.api_key_env)

    def told(way: str, n_done: int, n_all: int) -> None:
        console.print(f"{n_done} of {n_all} blocks, last: {way}", highlight=False, soft_wrap=True)

    async with cascade_client(options.base_url, key, max_retries=MAX_RETRIES) as client:
        cascade = await describe_cascade(client)
        header = RunHeader(
            asked=AttemptsHeader(
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                tiers=cascade.tiers,
                fingerprint=cascade.fingerprint,
                sampling=options.sampling,
                endpoints=tuple(endpoint.value for endpoint in prompts.endpoints),
                data_sha256=prompts.sha256,
                labels=prompts.labels,
                grader=options.grader.model_dump(mode="json") if options.grader else None,
            ),
            served_model_name=cascade.served_model_name,
            certificate=cascade.certificate,
            command=command_line("hs-eval"),
            project_version=version("hybridserve-llm"),
            commit=commit_of_project(),
            hardware=options.hardware or this_machine(),
            concurrency=options.concurrency,
            block_questions=options.block,
            state=cascade.state,
            thresholds=cascade.thresholds,
            is_streamed=options.stream,
        )
        with RunFile(options.run_file, header) as file:
            await Measurement(
                client, prompts, file, counters=CascadeCounters(client), told=told
            ).run(idle_s=options.idle)
            return len(file.run.blocks)
